//! Schedule of health checks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use crate::{
    compile::observed::HealthCheckKey,
    model::{Name, Reference},
};

/// Times at which backends are checked next.
#[derive(Debug, Default)]
pub(super) struct ProbeSchedule {
    due: BTreeMap<HealthCheckKey, Instant>,
    by_time: BTreeSet<(Instant, HealthCheckKey)>,
}

impl ProbeSchedule {
    pub(super) fn set(&mut self, key: HealthCheckKey, at: Instant) {
        if let Some(before) = self.due.insert(key.clone(), at) {
            self.by_time.remove(&(before, key.clone()));
        }
        self.by_time.insert((at, key));
    }

    /// Schedules exactly these backends of the service, at once.
    pub(super) fn set_service(
        &mut self,
        service: &Reference,
        keys: &BTreeSet<HealthCheckKey>,
        now: Instant,
    ) {
        for key in keys_of_service(&self.due, service) {
            if let Some(before) = self.due.remove(&key) {
                self.by_time.remove(&(before, key));
            }
        }
        for key in keys {
            self.set(key.clone(), now);
        }
    }

    /// Removes and returns a backend whose check is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<HealthCheckKey> {
        if self.by_time.first()?.0 > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.due.remove(&key);
        Some(key)
    }
}

/// Returns the keys that belong to a service.
pub(super) fn keys_of_service<T>(
    known: &BTreeMap<HealthCheckKey, T>,
    service: &Reference,
) -> Vec<HealthCheckKey> {
    let first = (service.clone(), Name::min(), IpAddr::from([0, 0, 0, 0]));
    known
        .range(first..)
        .map(|(key, _)| key)
        .take_while(|key| key.0 == *service)
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn schedule_holds_each_key_once_and_drops_those_of_a_removed_service() {
        let key = |service: &str, last: u8| -> HealthCheckKey {
            let service = service.parse().unwrap();
            (
                service,
                "default".parse().unwrap(),
                IpAddr::from([10, 1, 0, last]),
            )
        };
        let mut schedule = ProbeSchedule::default();
        let start = Instant::now();
        let later = start + Duration::from_secs(5);
        let shop: Reference = "p/shop".parse().unwrap();
        let both = BTreeSet::from([key("p/shop", 1), key("p/shop", 2)]);
        schedule.set_service(&shop, &both, start);
        schedule.set(key("p/other", 3), later);
        schedule.set(key("p/shop", 2), later);
        assert_eq!(schedule.take_due(start), Some(key("p/shop", 1)));
        assert_eq!(schedule.take_due(start), None);
        assert_eq!(schedule.by_time.len(), 2);
        schedule.set_service(&shop, &BTreeSet::new(), start);
        assert_eq!(schedule.take_due(later), Some(key("p/other", 3)));
        assert_eq!(schedule.take_due(later), None);
        assert!(schedule.due.is_empty() && schedule.by_time.is_empty());
    }
}
