//! A cached answer: its bytes, plain and compressed, and how old they are.

use super::clock;
use crate::api::format::validator;
use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::time::Instant;

/// Smaller bodies are not compressed.
const GZIP_MIN_BYTES: usize = 1_024;

/// Time between a failed refresh and the next one.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Time for which an entry counts ClickHouse as away after a failure. Then a request computes the answer again.
const FAILURE_MAX_AGE: Duration = Duration::from_secs(10);

/// A rendered answer.
pub(crate) struct Rendered {
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
    /// Further headers.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Name under which a browser saves it.
    pub(crate) file_name: Option<String>,
    /// False for a report without views: its page waits for the first one.
    pub(crate) is_cacheable: bool,
}

/// A body with its validator.
#[derive(Clone)]
pub(crate) struct Form {
    pub(crate) body: Bytes,
    pub(crate) tag: String,
}

impl Form {
    pub(crate) fn plain(body: Bytes) -> Self {
        Form { tag: validator(&body), body }
    }

    /// Compressed, if the body is large enough.
    fn gzip(body: &[u8]) -> Option<Self> {
        if body.len() < GZIP_MIN_BYTES {
            return None;
        }
        let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
        encoder.write_all(body).ok()?;
        encoder.finish().ok().map(|compressed| Form::plain(exact(compressed)))
    }
}

/// The bytes without spare capacity, which the cache's bound does not count.
fn exact(bytes: Vec<u8>) -> Bytes {
    bytes.into_boxed_slice().into()
}

/// State of an entry's refresh.
#[derive(Default)]
struct Refresh {
    is_running: bool,
    /// Time of the last failure of ClickHouse, if that was after the entry was computed.
    failed: Option<Instant>,
}

/// A stored answer.
pub(crate) struct Entry {
    pub(crate) content_type: &'static str,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) file_name: Option<String>,
    pub(crate) plain: Form,
    pub(crate) gzip: Option<Form>,
    pub(crate) is_cacheable: bool,
    /// The generation in which its computation started.
    pub(crate) generation: u64,
    /// When its computation started: the figures are as of then.
    pub(crate) computed: Instant,
    refresh: Mutex<Refresh>,
}

impl Entry {
    pub(crate) fn new(rendered: Rendered, generation: u64, computed: Instant) -> Self {
        let Rendered { content_type, body, headers, file_name, is_cacheable } = rendered;
        let gzip = Form::gzip(&body);
        let plain = Form::plain(exact(body));
        let refresh = Mutex::default();
        Entry { content_type, headers, file_name, plain, gzip, is_cacheable, generation, computed, refresh }
    }

    pub(crate) fn age(&self) -> Duration {
        clock::since(self.computed)
    }

    /// Approximate size in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Entry>() + self.plain.body.len() + self.gzip.as_ref().map_or(0, |gzip| gzip.body.len())
    }

    /// Whether ClickHouse failed to answer at the last refresh, a moment ago.
    pub(crate) fn storage_fails(&self) -> bool {
        self.lock().failed.is_some_and(|failed| clock::since(failed) < FAILURE_MAX_AGE)
    }

    pub(crate) fn note_storage_failure(&self) {
        self.lock().failed = Some(clock::now());
    }

    /// Whether a refresh may start; marks it as running if so.
    pub(crate) fn start_refresh(&self) -> bool {
        let mut refresh = self.lock();
        let may = !refresh.is_running && refresh.failed.is_none_or(|failed| clock::since(failed) >= RETRY_INTERVAL);
        refresh.is_running |= may;
        may
    }

    pub(crate) fn end_refresh(&self) {
        self.lock().is_running = false;
    }

    fn lock(&self) -> MutexGuard<'_, Refresh> {
        self.refresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
