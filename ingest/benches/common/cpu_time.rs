//! A measurement for criterion: processor time of the thread, which other work on the machine does not lengthen.

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use std::time::Duration;

/// Time that the thread ran, rather than time that passed.
pub struct CpuTime;

impl CpuTime {
    fn now() -> Duration {
        let schedstat =
            std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with scheduler statistics");
        let ran_ns =
            schedstat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("begins with the time on the cpu");
        Duration::from_nanos(ran_ns)
    }
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        Self::now()
    }

    fn end(&self, start: Duration) -> Duration {
        Self::now() - start
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}
