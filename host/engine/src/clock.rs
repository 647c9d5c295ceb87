//! The one place that reads the clock; `clippy.toml` forbids it everywhere else.

#![expect(clippy::disallowed_methods, reason = "this is the place")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pointsman_core::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Measures how long something takes.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// A clock that starts now, at the time of the system's clock.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since its start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Wall time that never runs backwards: anchored once, then counted by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    anchor: Instant,
    anchored_at: Timestamp,
}

impl Clock {
    /// A clock anchored to the wall time of this moment.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { anchor: Instant::now(), anchored_at: Timestamp::default() + since_epoch }
    }

    /// Returns the present time, which never goes back.
    pub fn now(&self) -> Timestamp {
        self.anchored_at + self.anchor.elapsed()
    }
}

/// A clock that durations are measured with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// Monotonic time: a client waits.
    #[default]
    Wall,
    /// The thread's own running time, for threads of low priority.
    Running,
}

impl Measure {
    /// The time since an arbitrary beginning.
    pub fn now(self) -> Duration {
        let now = clock_gettime(match self {
            Measure::Wall => ClockId::Monotonic,
            Measure::Running => ClockId::ThreadCPUTime,
        });
        Duration::try_from(now).unwrap_or_default()
    }
}
