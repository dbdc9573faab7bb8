//! A connection's stream with limits that hyper does not have.
//!
//! hyper answers pipelined requests while it gets bytes to read. After a request with a body it reads the next one before it has written the
//! response, and collects the responses in memory. So this stream returns no bytes while output is pending, and few at a time: the responses to one
//! read fit within a few KiB. The connection of a client that does not read its responses is closed ([`super::pace`]).

use super::pace::Pace;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// Maximum bytes that one read returns. A request of 65 bytes gets a response of some 300, so the responses to one read fit within 20 KiB.
const READ_BYTES: u64 = 4 << 10;

/// See the module.
pub(super) struct BoundedStream {
    /// `Take` bounds each read.
    stream: Take<TcpStream>,
    /// Set while output is pending.
    pace: Option<Pace>,
    /// Wakes the connection's task when `pace` is to be checked.
    alarm: Option<Pin<Box<Sleep>>>,
    /// A read was refused because output is pending.
    reader_waits: bool,
    shut_down: bool,
    caught_up: CaughtUp,
}

/// Whether hyper has read from the socket since the last request. If not, the next request arrived together with it.
#[derive(Clone)]
pub(super) struct CaughtUp(Arc<AtomicBool>);

impl CaughtUp {
    pub(super) fn new() -> Self {
        CaughtUp(Arc::new(AtomicBool::new(true)))
    }

    /// Records a request. Returns false for one that the client sent together with the previous one.
    pub(super) fn next_request(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl BoundedStream {
    pub(super) fn new(stream: TcpStream, caught_up: CaughtUp) -> Self {
        BoundedStream {
            stream: stream.take(READ_BYTES),
            pace: None,
            alarm: None,
            reader_waits: false,
            shut_down: false,
            caught_up,
        }
    }

    /// Whether output was pending at the last write.
    pub(super) fn is_pending(&self) -> bool {
        self.pace.is_some()
    }

    /// Whether hyper has shut the output down: it sends nothing more, and no other code may either.
    pub(super) fn is_shut_down(&self) -> bool {
        self.shut_down
    }

    /// The stream itself.
    pub(super) fn into_inner(self) -> TcpStream {
        self.stream.into_inner()
    }

    /// Tracks one write: a pending one starts the clock, and a connection that is too slow gets an error.
    fn paced(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &outcome {
            Poll::Ready(Ok(written)) => {
                if let Some(pace) = &mut self.pace {
                    pace.progress(Instant::now(), *written);
                }
                return outcome;
            }
            Poll::Ready(Err(_)) => return outcome,
            Poll::Pending => {}
        }
        let now = Instant::now();
        let Some(next) = self.pace.get_or_insert_with(|| Pace::new(now)).check(now) else {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client reads its answers too slowly",
            )));
        };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(next)));
        alarm.as_mut().reset(next);
        if alarm.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.pace.is_some() {
            // The pending write, or its alarm, wakes this task; `poll_flush` wakes it once more for the pending read.
            this.reader_waits = true;
            return Poll::Pending;
        }
        this.stream.set_limit(READ_BYTES);
        this.caught_up.0.store(true, Ordering::Relaxed);
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(this.stream.get_mut()).poll_write(cx, buf);
        this.paced(cx, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(this.stream.get_mut()).poll_write_vectored(cx, bufs);
        this.paced(cx, outcome)
    }

    /// hyper writes a head and its body in one call only if this is true; otherwise it copies each body.
    fn is_write_vectored(&self) -> bool {
        self.stream.get_ref().is_write_vectored()
    }

    /// hyper flushes when its buffer is empty: nothing is pending any more.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.pace.take().is_some() {
            this.alarm = None;
            if std::mem::take(&mut this.reader_waits) {
                cx.waker().wake_by_ref();
            }
        }
        Pin::new(this.stream.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.shut_down = true;
        Pin::new(this.stream.get_mut()).poll_shutdown(cx)
    }
}
