// Comfort only: every page works without it. Asks nobody but this service.
"use strict";

// Codes of countries and languages by name, as this browser calls them.
if (window.Intl && Intl.DisplayNames) {
  for (const type of ["region", "language"]) {
    const names = new Intl.DisplayNames(document.documentElement.lang, { type, fallback: "none" });
    for (const element of document.querySelectorAll("[data-names=" + type + "] bdi")) {
      const code = element.textContent;
      let name;
      try { name = names.of(code); } catch { /* Not a code: it stays as it is. */ }
      if (name && name !== code) element.textContent = name + " (" + code + ")";
    }
  }
}

// What is under the pointer in the hours of the week; the table below has the same figures.
for (const map of document.querySelectorAll(".heat svg")) {
  const readout = document.getElementById("hour");
  const table = document.getElementById("hours");
  const silent = readout.textContent;
  map.addEventListener("pointermove", event => {
    const box = map.getBoundingClientRect();
    const at = (position, length, count) => Math.min(count - 1, Math.max(0, Math.floor(position / length * count)));
    const hour = at(event.clientX - box.left, box.width, 24);
    const day = at(event.clientY - box.top, box.height, 7);
    const row = table.rows[hour + 1];
    readout.textContent = table.rows[0].cells[day + 1].textContent + ", " + row.cells[0].textContent + ": " +
      row.cells[day + 1].textContent + " views";
  });
  map.addEventListener("pointerleave", () => { readout.textContent = silent; });
}

// A button to copy what is to be pasted.
if (navigator.clipboard) {
  for (const block of document.querySelectorAll("pre")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet copy";
    button.textContent = "Copy";
    button.addEventListener("click", () => {
      navigator.clipboard.writeText(block.textContent).then(() => { button.textContent = "Copied"; });
    });
    block.after(button);
  }
}

// Waits for the first view: asks every five seconds, for ten minutes at most.
const waiting = document.querySelector("[data-live]");
if (waiting) {
  const status = document.getElementById("live");
  let refused;
  const until = Date.now() + 10 * 60 * 1000;
  const ask = async () => {
    if (Date.now() > until) {
      status.textContent = "No view has come in ten minutes. Check again when you have opened a page that carries the line.";
      return;
    }
    try {
      const answer = await fetch(waiting.dataset.live, { headers: { accept: "application/json" } });
      if (answer.ok) {
        const live = await answer.json();
        if (live.views_today > 0 || live.last_hour > 0) {
          status.textContent = "The first view has arrived.";
          setTimeout(() => location.reload(), 1500);
          return;
        }
        // Somebody tries, and is refused: the page says why.
        if (live.refused_today > refused) {
          location.reload();
          return;
        }
        refused = live.refused_today;
      }
      status.textContent = "Waiting for the first view. This page asks every five seconds.";
    } catch {
      status.textContent = "The service cannot be reached. Trying again.";
    }
    setTimeout(ask, 5000);
  };
  ask();
}
