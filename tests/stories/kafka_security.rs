//! TLS and SASL: the necessary librdkafka settings are passed on, work with a real broker, and leak no secret.

use anyhow::{Context, Result, ensure};
use harness::kafka::Broker;
use harness::roles::Deployment;
use harness::{clickhouse, http};
use std::path::Path;
use std::process::Command;

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const PASSWORD: &str = "correct-horse-battery";

/// A self-signed certificate of 127.0.0.1, and its key. Returns the path of the certificate, and that of a file with both.
fn identity(directory: &Path) -> Result<(String, std::path::PathBuf)> {
    let (key, certificate) = (directory.join("key.pem"), directory.join("certificate.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .context("openssl, of Debian's package openssl")?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let both = directory.join("identity.pem");
    std::fs::write(&both, [std::fs::read(key)?, std::fs::read(&certificate)?].concat())?;
    Ok((certificate.display().to_string(), both))
}

fn properties(password: &str, authority: &str) -> Vec<String> {
    let values = [
        "security.protocol=SASL_SSL".to_owned(),
        "sasl.mechanism=PLAIN".to_owned(),
        "sasl.username=headcount".to_owned(),
        format!("sasl.password={password}"),
        format!("ssl.ca.location={authority}"),
    ];
    values.into_iter().flat_map(|value| ["--kafka-property".to_owned(), value]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_sasl_pass_through() -> Result<()> {
    let directory = tempfile::TempDir::with_prefix("headcount-story-")?;
    let (authority, both) = identity(directory.path())?;
    let mut broker = Broker::start_secured(&both, "headcount", PASSWORD).await?;
    let bootstrap = format!("127.0.0.1:{}", broker.behind().context("a secured listener")?);
    let mut deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;

    // Without a password, with a wrong one, or with an unknown certificate, the error says which of these it is.
    let other = directory.path().join("other");
    std::fs::create_dir(&other)?;
    let (stranger, _) = identity(&other)?;
    let refusals = [
        (Vec::new(), "security.protocol"),
        (properties("guessed-password", &authority), "uthentication"),
        (properties(PASSWORD, &stranger), "certificate"),
    ];
    for (settings, expected) in refusals {
        deployment.settings = settings;
        let output = deployment.run(&["topic", "ensure"]).await?;
        let complained = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && complained.contains(expected), "expected {expected:?}: {complained}");
        ensure!(!complained.contains("password=") && !complained.contains("guessed"), "a password: {complained}");
    }

    deployment.settings = properties(PASSWORD, &authority);
    let shown = deployment.done(&["config"]).await?;
    ensure!(shown.contains("sasl.username") && !shown.contains(PASSWORD), "{shown}");
    deployment.prepare(2, 1, &[("docs", "docs.example.org")]).await?;
    let (mut ingest, mut aggregate) = (deployment.ingest("ingest", &[])?, deployment.aggregate("aggregate", &[])?);
    ingest.start(&[]).await?;
    aggregate.start(&[]).await?;
    let mut connection = http::Connection::open(ingest.address).await?;
    for number in 0..20 {
        let beacon = format!(r#"{{"project":"docs","url":"https://docs.example.org/{number}"}}"#);
        let answer = connection.send("POST", "/v1/pageview", &[("user-agent", AGENT)], beacon).await?;
        ensure!(answer.status == 202, "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    }
    let audit = deployment.audit(60).await?;
    ensure!(audit["difference_count"] == 0 && audit["records"] == 20, "{audit}");
    for role in [&mut ingest, &mut aggregate] {
        ensure!(!role.process.log().contains(PASSWORD), "{}", role.process.log());
        role.process.stop().await?;
    }
    deployment.drop_database().await?;
    broker.stop().await
}
