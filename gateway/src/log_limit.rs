//! Rate limit of log lines that peers can cause.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Minimum time between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(60);

/// Rate limit of one kind of log line: one line a minute, with the number of lines that were suppressed.
///
/// Without it unauthenticated peers could fill the disk or displace other lines in the journal.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<LogLimitState>);

#[derive(Debug, Default)]
struct LogLimitState {
    last_written: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// Returns a limit that admits the next line.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(LogLimitState {
            last_written: None,
            suppressed: 0,
        }))
    }

    /// Returns the suffix of a line that may be written now, or `None` if the line is suppressed.
    ///
    /// The suffix is empty, or the number of lines that were suppressed before.
    pub fn admit(&self) -> Option<String> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<String> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |at: Instant| now.duration_since(at) < INTERVAL;
        if state.last_written.is_some_and(recent) {
            state.suppressed += 1;
            return None;
        }
        state.last_written = Some(now);
        Some(match std::mem::take(&mut state.suppressed) {
            0 => String::new(),
            count => format!(" suppressed={count}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_with_the_suppressed_count() {
        let limit = LogLimit::new();
        let start = Instant::now();
        assert_eq!(limit.admit_at(start), Some(String::new()));
        for second in 1..60 {
            assert_eq!(limit.admit_at(start + Duration::from_secs(second)), None);
        }
        let line = limit.admit_at(start + Duration::from_secs(60)).unwrap();
        assert_eq!(line, " suppressed=59");
        assert_eq!(limit.admit_at(start + Duration::from_secs(61)), None);
        let line = limit.admit_at(start + Duration::from_secs(200)).unwrap();
        assert_eq!(line, " suppressed=1");
    }
}
