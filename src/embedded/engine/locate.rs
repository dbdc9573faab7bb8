//! Chooses ClickHouse: a configured server, a binary on the PATH, or the library.

use std::env;
use std::path::{Path, PathBuf};

use super::{EngineConfig, EngineError, EngineKind};

/// The library's file name, on every system.
const LIBRARY: &str = "libchdb.so";

/// Chooses in the documented order; an explicit library that is missing is an error, and the search stops.
pub(super) fn locate(config: &EngineConfig) -> Result<EngineKind, EngineError> {
    if let Some(url) = &config.clickhouse_url {
        return if url.starts_with("http://") || url.starts_with("https://") {
            Ok(EngineKind::External)
        } else {
            Err(EngineError::Url { url: url.clone() })
        };
    }
    if let Some(path) = &config.library {
        return if path.is_file() {
            Ok(EngineKind::Library(path.clone()))
        } else {
            Err(EngineError::NotFound { looked: format!("  {} (named explicitly)", path.display()) })
        };
    }
    let on_path: Vec<PathBuf> = env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    if let Some(binary) = on_path.iter().map(|dir| dir.join("clickhouse")).find(|path| is_executable(path)) {
        return Ok(EngineKind::Binary(binary));
    }
    let places = library_places();
    if let Some(library) = places.iter().find(|path| path.is_file()) {
        return Ok(EngineKind::Library(library.clone()));
    }
    let mut looked = String::from("  a server named by HEADCOUNT_CLICKHOUSE_URL\n  a program `clickhouse` on the PATH");
    for place in places {
        looked.push_str(&format!("\n  {}", place.display()));
    }
    Err(EngineError::NotFound { looked })
}

/// Beside the executable, in the user's cache, then in the directories that packages use.
fn library_places() -> Vec<PathBuf> {
    let beside = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let cache = env::var_os("XDG_CACHE_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .map(|cache| cache.join("headcount"));
    let system = ["/usr/local/lib", "/usr/lib"].map(PathBuf::from);
    beside.into_iter().chain(cache).chain(system).map(|dir| dir.join(LIBRARY)).collect()
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
