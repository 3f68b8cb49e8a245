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
#[derive(Debug)]
pub struct LogLimit(Mutex<LogLimitState>);

#[derive(Debug)]
struct LogLimitState {
    /// Number of lines that may be written in an interval.
    burst: u32,
    /// Time of the first line of the present interval.
    started: Option<Instant>,
    /// Number of lines that were written in the present interval.
    written: u32,
    suppressed: u64,
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

impl LogLimit {
    /// Returns a limit that admits the next line.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_burst(1)
    }

    /// Returns a limit that admits so many lines a minute, for lines that each tell of another object.
    #[must_use]
    pub const fn with_burst(burst: u32) -> Self {
        Self(Mutex::new(LogLimitState {
            burst,
            started: None,
            written: 0,
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
        if !state.started.is_some_and(recent) {
            state.started = Some(now);
            state.written = 0;
        }
        if state.written >= state.burst {
            state.suppressed += 1;
            return None;
        }
        state.written += 1;
        Some(match std::mem::take(&mut state.suppressed) {
            0 => String::new(),
            count => format!(" suppressed={count}"),
        })
    }

    /// Returns true if the limit suppresses nothing now, and has nothing to report.
    pub fn is_idle(&self) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |at: Instant| at.elapsed() < INTERVAL;
        state.suppressed == 0 && !state.started.is_some_and(recent)
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

    #[test]
    fn burst_is_admitted_each_minute() {
        let limit = LogLimit::with_burst(3);
        let start = Instant::now();
        for _ in 0..2 {
            assert_eq!(limit.admit_at(start), Some(String::new()));
        }
        let later = start + Duration::from_secs(59);
        assert_eq!(limit.admit_at(later), Some(String::new()));
        assert_eq!(limit.admit_at(later), None);
        let line = limit.admit_at(start + INTERVAL).unwrap();
        assert_eq!(line, " suppressed=1");
        assert!(!limit.is_idle());
    }
}
