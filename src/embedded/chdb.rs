//! ClickHouse as a library: the only module with unsafe Rust.
//!
//! One C function is enough: `query_stable_v2(argc, argv)` takes the arguments of `clickhouse local` and returns when the query has finished. Our
//! query finishes when standard input closes. The library is loaded at run time, not linked, so that a service that uses an existing ClickHouse
//! server never needs its half gigabyte.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_double, c_int, c_void};
use std::path::{Path, PathBuf};

use libloading::Library;

/// Why the engine could not run, or how it ended.
#[derive(Debug, thiserror::Error)]
pub enum ChdbError {
    /// The loader refused the file: wrong architecture, a missing dependency, a truncated download.
    #[error("loading the ClickHouse library {path}: {cause}")]
    Load {
        /// The path of the library.
        path: PathBuf,
        /// The loader's message.
        cause: libloading::Error,
    },
    /// An argument contains a NUL byte, which C strings cannot contain.
    #[error("an argument for the engine contains a NUL byte")]
    Argument(#[from] std::ffi::NulError),
    /// The engine stopped with an error.
    #[error("{0}")]
    Engine(String),
}

/// The head of `struct local_result_v2` in chdb.h, as far as this module reads it.
#[repr(C)]
struct LocalResultV2 {
    buf: *mut c_char,
    len: usize,
    vec: *mut c_void,
    elapsed: c_double,
    rows_read: u64,
    bytes_read: u64,
    error_message: *const c_char,
}

type QueryStableV2 = unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut LocalResultV2;

/// Runs `clickhouse local` with `arguments` (the program's name first) on this thread until its query finishes.
///
/// # Errors
/// [`ChdbError`]; an error of the engine carries its text, such as `Code: 210. DB::NetException: …`.
pub fn run(library: &Path, arguments: &[String]) -> Result<(), ChdbError> {
    let load = |cause| ChdbError::Load { path: library.to_owned(), cause };
    let arguments = arguments.iter().map(|argument| CString::new(argument.as_str())).collect::<Result<Vec<_>, _>>()?;
    let mut argv: Vec<*mut c_char> = arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    let argc = c_int::try_from(argv.len()).expect("a handful of arguments");
    argv.push(std::ptr::null_mut());

    // SAFETY: loading runs the library's initialisers, as is intended for a ClickHouse build. The operator named the file, or put it at a documented
    // path.
    let library = unsafe { Library::new(library) }.map_err(load)?;
    // SAFETY: the signature is chdb.h's `struct local_result_v2 *query_stable_v2(int argc, char **argv)`.
    let query = unsafe { library.get::<QueryStableV2>(b"query_stable_v2\0") }.map_err(load)?;
    // SAFETY: argv holds argc valid C strings and a terminating NULL, all of which outlive the call.
    let result = unsafe { query(argc, argv.as_mut_ptr()) };
    // SAFETY: the function returns NULL or a result that this code owns; the process ends soon, so it is never freed.
    let message = unsafe { result.as_ref() }.and_then(|result| {
        // SAFETY: error_message is NULL or a C string that lives as long as the result.
        (!result.error_message.is_null()).then(|| unsafe { CStr::from_ptr(result.error_message) })
    });
    let outcome = match message {
        Some(message) if !message.is_empty() => Err(ChdbError::Engine(message.to_string_lossy().into_owned())),
        _ => Ok(()),
    };
    // Never unloaded: threads of the engine may still be running in its code.
    std::mem::forget(library);
    outcome
}

/// Ignores SIGINT, SIGTERM and SIGHUP in this process, and in a program that it becomes.
pub fn ignore_polite_signals() {
    unsafe extern "C" {
        fn signal(number: c_int, handler: usize) -> usize;
    }
    const SIG_IGN: usize = 1;
    for number in [1, 2, 15] {
        // SAFETY: signal(2) with SIG_IGN installs no code of ours; the numbers are the same on Linux and macOS.
        unsafe { signal(number, SIG_IGN) };
    }
}
