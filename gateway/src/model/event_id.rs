//! Identifiers of events, and the event clock that their time is taken from.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::{Builder, Uuid, Variant};

/// Identifier of an event: a UUID of version 7 (RFC 9562, section 5.7). Later events have higher identifiers. An
/// identifier reveals only the event's time, which the event shows anyway. A counter would reveal to a tenant how many
/// events other tenants cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct EventId(Uuid);

/// Error of parsing an event identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an event identifier: use the `id` of an event, a UUID")]
pub struct InvalidEventId;

/// Ticks in a millisecond: the range of the twelve bits after the milliseconds (RFC 9562, section 6.2, method 3).
const TICKS_PER_MILLISECOND: u64 = 1 << 12;

/// Latest time of an event: the beginning of the year 2200.
const MAX_TICKS: u64 = 7_258_118_400_000 * TICKS_PER_MILLISECOND;

impl EventId {
    /// Creates an identifier from a time in ticks and random bits, of which 62 are used.
    #[must_use]
    pub fn new(ticks: u64, random: u128) -> Self {
        let mut bytes = [0; 10];
        let [high, low] = u16::try_from(ticks % TICKS_PER_MILLISECOND)
            .unwrap_or(0)
            .to_be_bytes();
        bytes[0] = high;
        bytes[1] = low;
        bytes[2..].copy_from_slice(&random.to_be_bytes()[..8]);
        Self(Builder::from_unix_timestamp_millis(ticks / TICKS_PER_MILLISECOND, &bytes).into_uuid())
    }

    /// Converts the number that an earlier version gave to an event. The result is less than every UUID of version 7.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(Uuid::from_u128(number as u128))
    }

    /// Returns the number of an event of an earlier version, or `None` for a UUID.
    #[must_use]
    pub fn number(self) -> Option<u64> {
        u64::try_from(self.0.as_u128()).ok()
    }

    /// Returns true if the event clock can continue after this identifier. A well-formed identifier can be so late
    /// that no later one exists.
    #[must_use]
    pub fn is_usable(self) -> bool {
        let is_v7 = self.0.get_version_num() == 7 && self.0.get_variant() == Variant::RFC4122;
        self.number().is_some() || (is_v7 && self.ticks() <= MAX_TICKS)
    }

    /// Returns the time of the identifier, in ticks.
    #[must_use]
    pub fn ticks(self) -> u64 {
        if self.0.get_variant() != Variant::RFC4122 {
            return 0;
        }
        let (millis, fraction) = (self.0.as_u128() >> 80, self.0.as_u128() >> 64 & 0xfff);
        u64::try_from(millis << 12 | fraction).unwrap_or(0)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        text.parse().map(Self).map_err(|_| InvalidEventId)
    }
}

// Stores of earlier versions have numbers.
impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum SerializedEventId {
            Number(u64),
            Text(String),
        }
        match SerializedEventId::deserialize(deserializer)? {
            SerializedEventId::Number(number) => Ok(Self::from_number(number)),
            SerializedEventId::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// Event clock. It is strictly monotonic, even if the host's clock is set back. It advances with real time rather than
/// with each event: otherwise, after the host's clock is set back, identifiers would reveal how many events other
/// tenants cause.
#[derive(Debug)]
pub struct EventClock {
    start_ticks: u64,
    started_at: Instant,
    last_ticks: u64,
}

impl EventClock {
    /// Starts the clock after the last event.
    #[must_use]
    pub fn new(last: EventId) -> Self {
        Self {
            start_ticks: ticks_now().max(last.ticks() + 1),
            started_at: Instant::now(),
            last_ticks: last.ticks(),
        }
    }

    /// Returns the time in ticks, greater than every earlier result.
    pub fn next_ticks(&mut self) -> u64 {
        let elapsed = self
            .start_ticks
            .saturating_add(duration_to_ticks(self.started_at.elapsed()));
        self.last_ticks = ticks_now().max(elapsed).max(self.last_ticks + 1);
        self.last_ticks
    }
}

fn duration_to_ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos() * u128::from(TICKS_PER_MILLISECOND) / 1_000_000)
        .unwrap_or(u64::MAX)
}

fn ticks_now() -> u64 {
    let nanoseconds = Timestamp::now().as_nanosecond().max(0);
    let nanoseconds = u128::try_from(nanoseconds).unwrap_or(0);
    u64::try_from(nanoseconds * u128::from(TICKS_PER_MILLISECOND) / 1_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_uuids_ordered_by_time() {
        let early = EventId::new(1_700_000_000_000 * TICKS_PER_MILLISECOND + 5, u128::MAX);
        let late = EventId::new(1_700_000_000_000 * TICKS_PER_MILLISECOND + 6, 0);
        assert!(early < late && EventId::from_number(u64::MAX) < early);
        assert_eq!(early.0.get_version_num(), 7);
        assert_eq!(early.ticks(), 1_700_000_000_000 * TICKS_PER_MILLISECOND + 5);
        assert!(early.is_usable() && EventId::from_number(7).is_usable());
        assert!(!EventId::new(MAX_TICKS + 1, 0).is_usable());
        assert!(!EventId(Uuid::max()).is_usable());
        assert_eq!(early.to_string().parse(), Ok(early));
        assert_eq!(
            (early.number(), EventId::from_number(7).number()),
            (None, Some(7))
        );
    }

    #[test]
    fn numbers_of_earlier_versions_deserialize() {
        let read = |text: &str| serde_json::from_str::<EventId>(text).ok();
        assert_eq!(read("12"), Some(EventId::from_number(12)));
        let new = EventId::new(TICKS_PER_MILLISECOND, 1);
        assert_eq!(read(&format!("\"{new}\"")), Some(new));
        assert_eq!(read("\"x\""), None);
    }

    #[test]
    fn a_clock_behind_the_last_event_continues_monotonically() {
        let ahead = EventId::new(ticks_now() + 3_600_000 * TICKS_PER_MILLISECOND, 0);
        let mut clock = EventClock::new(ahead);
        let first = clock.next_ticks();
        assert!(first > ahead.ticks());
        assert!(clock.next_ticks() > first);
    }
}
