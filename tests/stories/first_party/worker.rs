//! The Cloudflare Worker of `docs/first-party.md` under Node.js, whose `Request`, `Headers` and `fetch` are the same standard's.

use crate::document::{block, replaced};
use anyhow::{Result, ensure};
use harness::service::{Service, eventually};
use schemas::Hour;
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::process::Command;

/// Readers with the same browser, each at another IP address.
const READERS: u64 = 12;

/// Runs the Worker with requests as Cloudflare would pass them on from readers, and prints its responses.
const CALLER: &str = r#"
import worker from "./worker.mjs";

const through = globalThis.fetch;
const passed = [];
globalThis.fetch = (request) => {
  if (new URL(request.url).host === "docs.example.org") return new Response("the docs");
  passed.push([request.headers.get("cookie"), request.headers.get("forwarded")]);
  return through(request);
};
const ask = async (path, reader, body) => {
  const headers = { "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "cf-connecting-ip": `198.51.100.${reader}`, "x-forwarded-for": "203.0.113.7", forwarded: "for=203.0.113.7", cookie: "session=secret" };
  const options = body ? { method: "POST", headers, body } : { headers };
  const answer = await worker.fetch(new Request("https://docs.example.org" + path, options));
  return [answer.status, await answer.text()];
};
const statuses = [];
for (let reader = 1; reader <= READERS; reader += 1) {
  statuses.push((await ask("/_docs/v1/page", reader, JSON.stringify({ url: "https://docs.example.org/a.html" })))[0]);
}
const [pixel] = await ask("/_docs/v1/page.gif?url=https://docs.example.org/a.html", 1);
const [script, text] = await ask("/_docs/page.js", 1);
const others = [];
for (const path of ["/a.html", "/_docs/", "/_docs/projects", "/v1/page", "/page.js"]) others.push((await ask(path, 1))[1]);
console.log(JSON.stringify({ statuses, pixel, script, posts: text.includes("v1/page"), others, passed }));
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_worker_counts_each_reader_by_its_own_ip_address() -> Result<()> {
    let mut service = Service::started(&["--trusted-proxy", "127.0.0.1"], &[("docs", "docs.example.org")]).await?;
    let home = tempfile::tempdir()?;
    let worker = block("docs/first-party.md", "js")?;
    let worker = replaced(&worker, &[("https://stats.example.org", &service.url(""))])?;
    std::fs::write(home.path().join("worker.mjs"), worker)?;
    std::fs::write(home.path().join("caller.mjs"), CALLER.replace("READERS", &READERS.to_string()))?;
    let mut node = Command::new("node");
    node.arg(home.path().join("caller.mjs")).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(harness::service::PATIENCE, node.output()).await??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let statuses = said["statuses"].as_array().map_or(0, |all| all.iter().filter(|status| **status == 202).count());
    ensure!(statuses as u64 == READERS, "{said}");
    ensure!(said["pixel"] == 200 && said["script"] == 200 && said["posts"] == true, "{said}");
    ensure!(said["others"] == json!(vec!["the docs"; 5]), "other paths are the docs': {said}");
    let clean = said["passed"].as_array().is_some_and(|all| all.iter().all(|headers| *headers == json!([null, null])));
    ensure!(clean, "neither cookies nor a client's own Forwarded are passed on: {said}");

    let month = Hour::of(chrono::Utc::now()).month().to_string();
    service.counted("docs", &month, READERS + 1).await?;
    let visitors = eventually("the visitors", async || {
        let report = service.report("docs", &month).await?;
        report["totals"]["visitors"]["estimate"].as_u64().ok_or_else(|| anyhow::anyhow!("{}", report["totals"]))
    })
    .await?;
    ensure!((READERS - 1..=READERS + 1).contains(&visitors), "{visitors} visitors of {READERS} readers");
    println!("the Worker: {} views, {visitors} visitors", READERS + 1);
    service.stop().await
}
