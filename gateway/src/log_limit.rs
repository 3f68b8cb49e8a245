//! A limit on log lines whose number others decide.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Time between two lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// A kind of log line that is written once a minute at most, with the number of lines that it stands for.
///
/// Peers that did not authenticate must not fill the disk, nor push other lines out of the journal.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<LogLimitState>);

#[derive(Debug, Default)]
struct LogLimitState {
    last_written: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// Makes one that has let nothing through yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(LogLimitState {
            last_written: None,
            suppressed: 0,
        }))
    }

    /// Returns the end of a line that may be written now: empty, or how many were left out before it.
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
            count => format!(" ({count} like it in the minutes before were left out)"),
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
        assert!(line.contains("59 like it"), "{line}");
        assert_eq!(limit.admit_at(start + Duration::from_secs(61)), None);
        let line = limit.admit_at(start + Duration::from_secs(200)).unwrap();
        assert!(line.contains("1 like it"), "{line}");
    }
}
