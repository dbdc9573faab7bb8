//! The DevTools connection: numbered calls, and every event stored in order of arrival.

use super::PATIENCE;
use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::{SinkExt as _, StreamExt as _, stream::SplitSink};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    net::TcpStream,
    sync::{oneshot, watch},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// One event of one session: `{"method", "params"}`.
pub(super) type Event = Value;

/// One connection for the whole browser; each tab is a session on it.
pub(super) struct Connection {
    sink: tokio::sync::Mutex<SplitSink<Socket, Message>>,
    next_id: AtomicU64,
    heard: Arc<Heard>,
}

#[derive(Default)]
struct Heard {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    events: Mutex<HashMap<String, Vec<Event>>>,
    // Counts events, which wakes the waiting tasks.
    count: watch::Sender<u64>,
}

impl Connection {
    pub(super) async fn open(address: &str) -> Result<Arc<Connection>> {
        let (socket, _) =
            tokio_tungstenite::connect_async(address).await.with_context(|| format!("connect to {address}"))?;
        let (sink, mut stream) = socket.split();
        let heard = Arc::new(Heard::default());
        let listener = Arc::clone(&heard);
        // Ends with the socket, which ends with the browser.
        tokio::spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                let Ok(text) = message.to_text() else {
                    continue;
                };
                let Ok(value) = serde_json::from_str::<Value>(text) else {
                    continue;
                };
                listener.take(value);
            }
            // Tasks that still wait for an answer learn that none will come.
            listener.waiting.lock().unwrap().clear();
        });
        Ok(Arc::new(Connection { sink: sink.into(), next_id: AtomicU64::new(1), heard }))
    }

    /// Calls a method, of the browser or of one session, and returns its result.
    pub(super) async fn call(&self, session: Option<&str>, method: &str, parameters: Value) -> Result<Value> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let (sender, receiver) = oneshot::channel();
        self.heard.waiting.lock().unwrap().insert(id, sender);
        self.sink
            .lock()
            .await
            .send(Message::text(message.to_string()))
            .await
            .with_context(|| format!("send {method}"))?;
        let answer = tokio::time::timeout(PATIENCE, receiver)
            .await
            .map_err(|_| anyhow!("{method} was not answered within {PATIENCE:?}"))?
            .with_context(|| format!("the browser went away during {method}"))?;
        if let Some(error) = answer.get("error") {
            bail!("{method}: {}", error["message"].as_str().unwrap_or("unknown error"));
        }
        Ok(answer["result"].clone())
    }

    /// The events of a session since the `from`th.
    pub(super) fn events(&self, session: &str, from: usize) -> Vec<Event> {
        let events = self.heard.events.lock().unwrap();
        events.get(session).and_then(|events| events.get(from..)).unwrap_or_default().to_vec()
    }

    /// Number of events of a session so far: a position for [`Connection::wait_for`].
    pub(super) fn mark(&self, session: &str) -> usize {
        self.heard.events.lock().unwrap().get(session).map_or(0, Vec::len)
    }

    /// Waits for an event after `mark` for which `found` returns a value.
    pub(super) async fn wait_for<T>(
        &self,
        session: &str,
        mark: usize,
        what: &str,
        found: impl Fn(&Event) -> Option<T>,
    ) -> Result<T> {
        let mut count = self.heard.count.subscribe();
        let search = async {
            loop {
                if let Some(value) = self.events(session, mark).iter().find_map(&found) {
                    return Ok(value);
                }
                count.changed().await.context("the connection is gone")?;
            }
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(result) => result,
            Err(_) => {
                let seen: Vec<_> = self.events(session, mark).iter().map(|event| event["method"].to_string()).collect();
                bail!("waited {PATIENCE:?} for {what}; since then: {}", seen.join(" "))
            }
        }
    }
}

impl Heard {
    fn take(&self, mut message: Value) {
        if let Some(id) = message["id"].as_u64() {
            if let Some(sender) = self.waiting.lock().unwrap().remove(&id) {
                let _ = sender.send(message);
            }
            return;
        }
        if let Value::String(session) = message["sessionId"].take() {
            self.events.lock().unwrap().entry(session).or_default().push(message);
            self.count.send_modify(|count| *count += 1);
        }
    }
}
