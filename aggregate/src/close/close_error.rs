//! Why a close failed.

use schemas::sketch::SketchDecodeError;
use storage::CallError;

/// Why closing a month failed.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// ClickHouse refused or went away.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A stored sketch is invalid.
    #[error("a stored sketch of {project} does not decode: {cause}")]
    Sketch {
        /// The project of the sketch.
        project: String,
        /// Why it does not decode.
        cause: SketchDecodeError,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
}

pub(crate) fn failed(action: &'static str) -> impl FnOnce(clickhouse::error::Error) -> CloseError {
    move |cause| CallError::ClickHouse { action: action.into(), cause }.into()
}
