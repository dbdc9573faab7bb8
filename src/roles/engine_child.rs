//! `headcount engine`: runs the embedded ClickHouse alone, for roles and Kafka on one machine.

use crate::config::store::StoreSettings;
use crate::embedded::engine::Engine;
use crate::say;
use crate::shell::{open_data_directory, signal};
use anyhow::bail;
use std::io::Read;

/// Runs until SIGTERM or SIGINT, until the end of standard input (if `until_eof`), or until the engine ends by itself.
pub async fn run(store: &StoreSettings, port: Option<u16>, until_eof: bool) -> anyhow::Result<()> {
    let _lock = open_data_directory(store.data())?;
    let mut engine = store.engine();
    if engine.clickhouse_url.take().is_some() {
        bail!("a ClickHouse is named (`clickhouse_url`), so there is none to be run; leave the setting out");
    }
    engine.port = port;
    let mut engine = Engine::start(&engine).await?;
    // For the process that started this one. The URL is a password, so it is not logged.
    say!("ClickHouse at {}", engine.url());
    tokio::select! {
        signal = signal() => signal?,
        () = end_of_input(), if until_eof => {}
        status = engine.died() => bail!("ClickHouse ended by itself ({status}); its last words: {}", engine.last_words()),
    }
    engine.stop().await?;
    Ok(())
}

/// Reads on a separate thread: a read on the runtime's threads would keep the process from ending until there is input.
async fn end_of_input() {
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while std::io::stdin().read(&mut bytes).is_ok_and(|read| read > 0) {}
        drop(tell);
    });
    let _ = told.await;
}
