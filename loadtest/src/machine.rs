//! The machine of a measurement, without which a figure means little.

use serde::Serialize;

/// The machine that measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Machine {
    /// Processors that this process may use.
    pub processors: usize,
    /// Their name.
    pub model: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The kernel.
    pub kernel: String,
    /// Of this program.
    pub version: String,
    /// Whether this program was built with optimisation; figures of an unoptimised build mean nothing.
    pub optimised: bool,
}

impl Machine {
    /// This machine, as far as the system describes it.
    #[must_use]
    pub fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.trim_end_matches("kB").trim().parse().unwrap_or(0);
        Self {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            model: field(&read("/proc/cpuinfo"), "model name"),
            memory_bytes: kib * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            optimised: !cfg!(debug_assertions),
        }
    }

    /// As one line.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "{} processors ({}), {:.0} GiB of memory, Linux {}, headcount {}{}",
            self.processors,
            if self.model.is_empty() { "unknown" } else { &self.model },
            self.memory_bytes as f64 / f64::from(1 << 30),
            self.kernel,
            self.version,
            if self.optimised { "" } else { ", NOT OPTIMISED: its figures mean nothing" }
        )
    }
}
