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

// What is under the pointer, in words: from the table below the chart.
for (const chart of document.querySelectorAll("svg[data-table]")) {
  const section = chart.closest("section");
  const readout = section.querySelector(".readout");
  const { rows } = document.getElementById(chart.dataset.table);
  const silent = readout.textContent;
  const head = rows[0].cells;
  const at = (position, length, count) => Math.min(count - 1, Math.max(0, Math.floor(position / length * count)));
  chart.addEventListener("pointermove", event => {
    const box = chart.getBoundingClientRect();
    const row = rows[at(event.clientX - box.left, box.width, Number(chart.dataset.columns)) + 1];
    if (!row) {
      readout.textContent = silent;
    } else if (chart.dataset.rows) {
      const day = at(event.clientY - box.top, box.height, Number(chart.dataset.rows)) + 1;
      readout.textContent = head[day].textContent + ", " + row.cells[0].textContent + ": " + row.cells[day].textContent + " views";
    } else {
      readout.textContent = row.cells[0].textContent + ": " +
        [1, 2, 3].map(cell => row.cells[cell].textContent + " " + head[cell].textContent.toLowerCase()).join(", ");
    }
  });
  chart.addEventListener("pointerleave", () => { readout.textContent = silent; });
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
