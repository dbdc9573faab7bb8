//! nginx and Caddy as Debian packages them, with the configurations of `docs/first-party.md`.

use crate::document::{block, replaced};
use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::http::{self, Connection};
use harness::process::{Process, free_address};
use harness::service::{Service, eventually};
use schemas::Hour;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

const DOCUMENT: &str = "docs/first-party.md";

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";

/// Readers with the same browser, each at another IP address.
const READERS: u8 = 12;

/// IP addresses that a client invents.
const FORGED: u8 = 20;

/// A documentation whose pages have the line of the document.
fn write_docs(root: &Path) -> Result<()> {
    let line = block(DOCUMENT, "html")?;
    ensure!(line.contains("/_docs/page.js"), "{line}");
    std::fs::create_dir_all(root)?;
    let html =
        format!("<!doctype html><html lang=\"en\"><head><title>Page</title>{}</head><body></body></html>", line.trim());
    std::fs::write(root.join("page.html"), html.replace(" data-project=\"sphinx\"", ""))?;
    Ok(())
}

/// nginx with the document's server; its log is beside its configuration.
fn nginx(home: &Path, listen: SocketAddr, service: SocketAddr) -> Result<Process> {
    let directory = home.display();
    let server = replaced(
        &block(DOCUMENT, "nginx")?,
        &[
            ("listen 443 ssl;", &format!("listen {listen};")),
            ("root /var/www/docs;", &format!("root {directory}/docs;")),
            ("http://127.0.0.1:8017", &format!("http://{service}")),
        ],
    )?;
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = kinds.iter().map(|kind| format!("{kind}_temp_path {directory}/{kind};\n")).collect();
    let file = home.join("nginx.conf");
    std::fs::write(
        &file,
        format!(
            "daemon off;\nmaster_process off;\npid {directory}/pid;\nerror_log stderr;\nevents {{}}\n\
             http {{\ntypes {{ text/html html; }}\naccess_log {directory}/access.log;\n{temporary}{server}}}\n"
        ),
    )?;
    let arguments = ["-p".to_owned(), directory.to_string(), "-c".to_owned(), file.display().to_string()];
    Ok(Process::new("nginx", Path::new("nginx"), arguments.to_vec(), home.join("log")))
}

/// Caddy with the document's site.
fn caddy(home: &Path, listen: SocketAddr, service: SocketAddr) -> Result<Process> {
    let site = replaced(
        &block(DOCUMENT, "caddyfile")?,
        &[
            // Any name of a host, on loopback only.
            ("docs.example.org {", &format!("http://:{} {{\n    bind {}", listen.port(), listen.ip())),
            ("root * /var/www/docs", &format!("root * {}/docs", home.display())),
            ("127.0.0.1:8017", &service.to_string()),
        ],
    )?;
    let file = home.join("Caddyfile");
    std::fs::write(&file, format!("{{\n    admin off\n    auto_https off\n}}\n{site}"))?;
    let arguments = ["run", "--config", &file.display().to_string(), "--adapter", "caddyfile"].map(str::to_owned);
    let mut process = Process::new("caddy", Path::new("caddy"), arguments.to_vec(), home.join("log"));
    for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
        process.variable(variable, &home.display().to_string());
    }
    Ok(process)
}

/// Beacons of many readers, and of one that sends forged IP addresses in its headers.
async fn readers(proxy: SocketAddr) -> Result<()> {
    let body = json!({"url": format!("http://{proxy}/page.html")}).to_string();
    let send = async |last: u8, forged: Option<String>| {
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 1, last));
        let forwarded = forged.as_ref().map(|ip| format!("for={ip}"));
        let mut headers = vec![("user-agent", AGENT), ("cookie", "session=secret")];
        headers.extend(forged.as_deref().map(|ip| ("x-forwarded-for", ip)));
        headers.extend(forwarded.as_deref().map(|element| ("forwarded", element)));
        let mut connection = Connection::open_from(source, proxy).await?;
        let host = proxy.to_string();
        let answer = connection.send("POST", "/_docs/v1/page", &headers, body.clone()).await?;
        ensure!(answer.status == 202, "{host}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        Ok(())
    };
    for reader in 1..=READERS {
        send(reader, None).await?;
    }
    for forged in 1..=FORGED {
        send(1, Some(format!("203.0.113.{forged}"))).await?;
    }
    Ok(())
}

/// One proxy before a service: which headers it forwards, and which it does not.
async fn counts_readers(service: &Service, name: &str, listen: SocketAddr, browser: &Browser) -> Result<()> {
    let month = Hour::of(chrono::Utc::now()).month().to_string();
    let page = browser.new_page().await?;
    let mark = page.mark();
    page.navigate(&format!("http://{listen}/page.html")).await?;
    let beacon = format!("http://{listen}/_docs/v1/page");
    let answer = page.response(mark, "the beacon's answer", |response| response.url == beacon).await?;
    ensure!(answer.status == 202, "{answer:?}");
    readers(listen).await?;
    let views = 1 + u64::from(READERS) + u64::from(FORGED);
    service.counted(name, &month, views).await?;
    // Two coordinates of this few readers may be equal; one reader for all, or one for each invented IP address, is far off.
    let (least, most) = (u64::from(READERS) - 1, u64::from(READERS) + 2);
    let visitors = eventually("the visitors", async || {
        let report = service.report(name, &month).await?;
        report["totals"]["visitors"]["estimate"].as_u64().with_context(|| report["totals"].to_string())
    })
    .await?;
    ensure!((least..=most).contains(&visitors), "{name}: {visitors} visitors, {least} to {most} expected");
    for path in ["/_docs/", "/_docs/projects", "/_docs/healthz", "/_docs/v1/openapi.json", "/_docs/v1/pageview"] {
        let answer = http::get(listen, path).await?;
        ensure!(answer.status == 404, "{name} passes {path} on: {answer:?}");
    }
    println!("{name}: {views} views of {} readers, {visitors} visitors", READERS + 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_proxies_count_each_reader_by_its_own_ip_address() -> Result<()> {
    let (at_nginx, at_caddy) = (free_address()?, free_address()?);
    let projects = [("nginx", at_nginx.to_string()), ("caddy", at_caddy.to_string())];
    let projects: Vec<(&str, &str)> = projects.iter().map(|(slug, host)| (*slug, host.as_str())).collect();
    let mut service = Service::started(&["--trusted-proxy", "127.0.0.1"], &projects).await?;
    let browser = Browser::launch().await?;

    let home = tempfile::tempdir()?;
    write_docs(&home.path().join("docs"))?;
    let mut proxy = nginx(home.path(), at_nginx, service.address())?;
    proxy.spawn(&[]).context("nginx is missing; scripts/test installs it")?;
    proxy.wait_ready(at_nginx, "/page.html").await?;
    counts_readers(&service, "nginx", at_nginx, &browser).await?;
    let logged = std::fs::read_to_string(home.path().join("access.log"))?;
    let passed_on = ["/_docs/page.js ", "/_docs/v1/page "];
    ensure!(passed_on.iter().all(|path| !logged.contains(path)), "the proxy keeps IP addresses: {logged}");
    proxy.signal("QUIT")?;
    proxy.ended().await?;

    let home = tempfile::tempdir()?;
    write_docs(&home.path().join("docs"))?;
    let mut proxy = caddy(home.path(), at_caddy, service.address())?;
    proxy.spawn(&[]).context("caddy is missing; scripts/test installs it")?;
    proxy.wait_ready(at_caddy, "/page.html").await?;
    counts_readers(&service, "caddy", at_caddy, &browser).await?;
    ensure!(!proxy.log().contains("127.0.1."), "the proxy keeps IP addresses: {}", proxy.log());
    proxy.signal("TERM")?;
    proxy.ended().await?;
    service.stop().await
}
