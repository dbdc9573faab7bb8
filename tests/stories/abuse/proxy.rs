//! The operator's details are unreachable through the reverse proxy in the README.

use anyhow::{Context, Result, ensure};
use harness::http;
use harness::process::{Process, free_address};
use harness::service::Service;
use std::net::SocketAddr;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The configuration in the README, without TLS and names, with these two listen addresses.
fn configuration(listen: SocketAddr, service: SocketAddr, directory: &Path) -> Result<String> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"))?;
    let block = readme.split_once("```nginx\n").and_then(|(_, rest)| rest.split_once("```"));
    let (server, _) = block.context("the README has an nginx configuration")?;
    ensure!(server.contains("listen 443 ssl;") && server.contains("http://127.0.0.1:8017"), "{server}");
    let server = server.replace("listen 443 ssl;", &format!("listen {listen};"));
    let server = server.replace("http://127.0.0.1:8017", &format!("http://{service}"));
    let directory = directory.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {directory}/{kind};\n"))
        .collect();
    Ok(format!(
        "daemon off;\nmaster_process off;\npid {directory}/pid;\nerror_log stderr;\nevents {{}}\n\
         http {{\naccess_log {directory}/access.log;\n{temporary}{server}}}\n"
    ))
}

/// Sends bytes unchanged, and reads to the end.
async fn raw(address: SocketAddr, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_detail_is_reached_through_the_proxy_of_the_readme() -> Result<()> {
    let mut service = Service::started(&["--trusted-proxy", "127.0.0.1"], &[("docs", "docs.example")]).await?;
    let directory = tempfile::tempdir()?;
    let listen = free_address()?;
    let file = directory.path().join("nginx.conf");
    std::fs::write(&file, configuration(listen, service.address(), directory.path())?)?;
    let arguments = ["-p", &directory.path().display().to_string(), "-c", &file.display().to_string()];
    let arguments = arguments.map(str::to_owned).to_vec();
    let mut nginx = Process::new("nginx", Path::new("nginx"), arguments, directory.path().join("log"));
    nginx.spawn(&[]).context("nginx is missing; scripts/test installs it")?;
    nginx.wait_ready(listen, "/readyz").await?;

    // The operator's view on the separate listener.
    let details = http::get(service.metrics(), "/readyz").await?.json()?;
    let fingerprint = details["key"]["fingerprint"].as_str().context("a fingerprint")?.to_owned();
    let figures = http::get(service.metrics(), "/metrics").await?;
    ensure!(String::from_utf8_lossy(&figures.body).contains("headcount_refused_beacons_total"), "{figures:?}");

    let operator = service.metrics();
    let secrets =
        [fingerprint.as_str(), "fingerprint", "refused_beacons", "nodes_with_another", "headcount_", "projects\""];
    let mut requests = 0;
    for address in [listen, service.address()] {
        for path in
            ["/readyz", "/healthz", "/metrics", "//metrics", "/./metrics", "/v1/../metrics", "/metrics/", "/%6detrics"]
        {
            for target in [path.to_owned(), format!("http://{operator}{path}")] {
                for host in ["stats.example.org".to_owned(), operator.to_string()] {
                    let request = format!(
                        "GET {target} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n\
                         X-Real-IP: 127.0.0.1\r\nConnection: close\r\n\r\n"
                    );
                    let answer = raw(address, &request).await?;
                    ensure!(!answer.is_empty(), "no answer to {request}");
                    for secret in secrets {
                        ensure!(!answer.contains(secret), "{secret} in the answer to {request}:\n{answer}");
                    }
                    requests += 1;
                }
            }
        }
    }
    let ready = http::get(listen, "/readyz").await?;
    ensure!(ready.status == 200 && ready.body == "ready\n", "{ready:?}");
    println!("{requests} requests, through the proxy and without it: no detail in an answer");
    nginx.signal("QUIT")?;
    nginx.ended().await?;
    service.stop().await
}
