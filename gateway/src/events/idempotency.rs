//! Idempotency keys: a repeated request with the same key is not carried out twice.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use ring::digest::{Context, SHA256};

use crate::{
    model::{Name, Object, Principal, Problem, ProblemCode, State, eviction_index::EvictionIndex},
    store::{IdempotencyRecord, StoreError, Write, keys},
};

/// Time for which a key is retained.
const RETENTION: SignedDuration = SignedDuration::from_hours(24);
/// Number of keys that are retained for each tenant and for the operator. The callers of a tenant share them evenly.
const MAX_KEYS: usize = 2_000;

/// Hashes of an idempotency key, its request and its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    key_hash: String,
    request_hash: String,
    caller_hash: String,
    is_operator: bool,
}

impl IdempotencyKey {
    /// Returns the hashes for a principal's request with a key. The identity of the principal is part of the hash, so
    /// keys of different principals never collide, even if their names are equal.
    #[must_use]
    pub fn new(principal: &Principal, key: &str, path: &str, body: &[u8]) -> Self {
        let hash = |parts: &[&[u8]]| {
            let mut context = Context::new(&SHA256);
            for part in parts {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
            URL_SAFE_NO_PAD.encode(context.finish())
        };
        Self {
            key_hash: hash(&[principal.identity.as_bytes(), key.as_bytes()]),
            request_hash: hash(&[path.as_bytes(), body]),
            caller_hash: hash(&[principal.identity.as_bytes()]),
            is_operator: principal.is_operator(),
        }
    }
}

/// Recently completed requests, by idempotency key.
#[derive(Debug, Default)]
pub struct IdempotencyCache {
    by_key: HashMap<String, (IdempotencyRecord, u64)>,
    by_time: BTreeSet<(Timestamp, String)>,
    /// Keys by the tenant in which an object was created, and by caller. `None`: the operator's keys.
    by_tenant: HashMap<Option<Name>, EvictionIndex<String, (Timestamp, String)>>,
    /// Stored keys that were evicted, with their revisions. The next request deletes them.
    evicted: BTreeMap<String, u64>,
}

impl IdempotencyCache {
    /// Returns the cache of the stored records.
    #[must_use]
    pub fn new(stored: Vec<(String, IdempotencyRecord, u64)>) -> Self {
        let mut cache = Self::default();
        for (key, record, revision) in stored {
            cache.insert(key, record, revision);
        }
        cache
    }

    /// Returns true if the request was carried out before, and the object that it created still exists.
    ///
    /// # Errors
    /// When the key was used by another request, or the created object is gone.
    pub fn is_replay(
        &self,
        idempotency_key: &IdempotencyKey,
        state: &State,
    ) -> Result<bool, Problem> {
        let Some((record, _)) = self.by_key.get(&idempotency_key.key_hash) else {
            return Ok(false);
        };
        if record.request != idempotency_key.request_hash {
            let detail = "this key was used by another request: use a new one";
            return Err(Problem::invalid("Idempotency-Key", detail));
        }
        let created = state.object(record.kind, &record.reference);
        if created.is_some_and(|object| object.meta().uid == record.uid) {
            return Ok(true);
        }
        Err(Problem::new(
            ProblemCode::AlreadyExists,
            format!(
                "this request was carried out before, and the {} that it created is gone: use a new \
                 Idempotency-Key to create another",
                record.kind
            ),
        ))
    }

    /// Returns the record of a request that creates the object.
    #[must_use]
    pub fn new_record(
        idempotency_key: &IdempotencyKey,
        object: &Object,
        now: Timestamp,
    ) -> IdempotencyRecord {
        IdempotencyRecord {
            request: idempotency_key.request_hash.clone(),
            caller: idempotency_key.caller_hash.clone(),
            tenant: (!idempotency_key.is_operator).then(|| object.tenant().clone()),
            at: now,
            kind: object.kind(),
            reference: object.reference(),
            uid: object.meta().uid,
        }
    }

    /// Returns the writes that store a record, and delete evicted and expired ones.
    ///
    /// # Errors
    /// When the record can't be serialized.
    pub fn writes(
        &self,
        idempotency_key: &IdempotencyKey,
        record: &IdempotencyRecord,
    ) -> Result<Vec<Write>, StoreError> {
        let mut writes = vec![Write {
            key: keys::idempotency(&idempotency_key.key_hash),
            // An evicted key may be used again before its stored record is deleted.
            expected: self
                .evicted
                .get(&idempotency_key.key_hash)
                .copied()
                .unwrap_or(0),
            value: Some(serde_json::to_string(record)?),
        }];
        let expired = self.expired(record.at).map(|key| {
            let revision = self.by_key.get(key).map_or(0, |(_, revision)| *revision);
            (key, revision)
        });
        let surplus = self.evicted.iter().map(|(key, revision)| (key, *revision));
        let evicted = surplus.filter(|(key, _)| **key != idempotency_key.key_hash);
        writes.extend(evicted.chain(expired).map(|(key, revision)| Write {
            key: keys::idempotency(key),
            expected: revision,
            value: None,
        }));
        Ok(writes)
    }

    /// Adds a record that was stored by [`Self::writes`].
    pub fn append(
        &mut self,
        idempotency_key: IdempotencyKey,
        record: IdempotencyRecord,
        revision: u64,
    ) {
        let expired: Vec<String> = self.expired(record.at).cloned().collect();
        for key in expired {
            self.remove(&key);
        }
        self.evicted.clear();
        self.insert(idempotency_key.key_hash, record, revision);
    }

    fn insert(&mut self, key: String, record: IdempotencyRecord, revision: u64) {
        let ring = self.by_tenant.entry(record.tenant.clone()).or_default();
        let evicted = ring.insert(record.caller.clone(), (record.at, key.clone()), MAX_KEYS);
        self.by_time.insert((record.at, key.clone()));
        self.by_key.insert(key, (record, revision));
        if let Some((_, key)) = evicted
            && let Some(revision) = self.remove(&key)
        {
            self.evicted.insert(key, revision);
        }
    }

    /// Removes a key. Returns the revision of its stored record.
    fn remove(&mut self, key: &str) -> Option<u64> {
        let (record, revision) = self.by_key.remove(key)?;
        let entry = (record.at, key.to_owned());
        self.by_time.remove(&entry);
        if let Some(ring) = self.by_tenant.get_mut(&record.tenant) {
            ring.remove(&record.caller, &entry);
            if ring.is_empty() {
                self.by_tenant.remove(&record.tenant);
            }
        }
        Some(revision)
    }

    /// Returns the keys that are older than [`RETENTION`].
    fn expired(&self, now: Timestamp) -> impl Iterator<Item = &String> {
        let old = move |at: Timestamp| now.duration_since(at) > RETENTION;
        self.by_time
            .iter()
            .take_while(move |(at, _)| old(*at))
            .map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Access, Kind, Role, operations::tests::World};

    fn idempotency_key(key: &str, body: &str) -> IdempotencyKey {
        let principal = Principal::operator("operator", "socket");
        IdempotencyKey::new(&principal, key, "/v1/tenants", body.as_bytes())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn keys_are_scoped_to_the_identity_of_the_principal() {
        let named = |identity: &str| Principal {
            identity: identity.to_owned(),
            ..Principal::operator("kim", "socket")
        };
        let key_of =
            |identity: &str| IdempotencyKey::new(&named(identity), "k", "/v1/tenants", b"{}");
        assert_eq!(key_of("oidc:https://idp#1"), key_of("oidc:https://idp#1"));
        assert_ne!(key_of("oidc:https://idp#1"), key_of("oidc:https://idp#2"));
    }

    #[test]
    fn replayed_request_is_carried_out_once() {
        let world = World::furnished();
        let reference = "consumer/consumer".parse().unwrap();
        let tenant = world.state.object(Kind::Tenant, &reference).unwrap();
        let mut cache = IdempotencyCache::default();
        let first = idempotency_key("k", "{}");
        assert_eq!(cache.is_replay(&first, &world.state), Ok(false));
        let record = IdempotencyCache::new_record(&first, &tenant, at(0));
        assert_eq!(cache.writes(&first, &record).unwrap().len(), 1);
        cache.append(first.clone(), record, 5);
        assert_eq!(cache.is_replay(&first, &world.state), Ok(true));
        let other = cache.is_replay(&idempotency_key("k", "{ }"), &world.state);
        assert_eq!(other.unwrap_err().code, ProblemCode::Invalid);
        assert_eq!(
            cache.is_replay(&idempotency_key("l", "{}"), &world.state),
            Ok(false)
        );
        let after_deletion = cache.is_replay(&first, &State::default());
        assert_eq!(after_deletion.unwrap_err().code, ProblemCode::AlreadyExists);
        // A day later, the key has expired.
        let second = idempotency_key("m", "{}");
        let record = IdempotencyCache::new_record(&second, &tenant, at(86_401));
        let writes = cache.writes(&second, &record).unwrap();
        assert_eq!((writes.len(), writes[1].expected), (2, 5));
        cache.append(second, record, 6);
        assert_eq!(cache.is_replay(&first, &world.state), Ok(false));
    }

    #[test]
    fn keys_of_one_tenant_evict_neither_another_tenants_nor_the_operators() {
        let world = World::furnished();
        let object = |reference: &str| {
            let reference = reference.parse().unwrap();
            world.state.object(Kind::Tenant, &reference).unwrap()
        };
        let key_of = |tenant: &str, token: &str, key: &str| {
            let principal = Principal {
                name: token.to_owned(),
                identity: token.to_owned(),
                from: "192.0.2.1".to_owned(),
                access: Access::Tenants([(tenant.parse().unwrap(), Role::Consumer)].into()),
            };
            IdempotencyKey::new(&principal, key, "/v1", b"{}")
        };
        let mut cache = IdempotencyCache::default();
        let mut remember = |idempotency_key: &IdempotencyKey, reference: &str, second: i64| {
            let record =
                IdempotencyCache::new_record(idempotency_key, &object(reference), at(second));
            let writes = cache.writes(idempotency_key, &record).unwrap();
            cache.append(
                idempotency_key.clone(),
                record,
                u64::try_from(second).unwrap(),
            );
            writes
        };
        let victim = key_of("provider", "token provider/x", "k");
        let colleague = key_of("consumer", "token consumer/quiet", "k");
        remember(&idempotency_key("k", "{}"), "consumer/consumer", 1);
        remember(&victim, "provider/provider", 2);
        remember(&colleague, "consumer/consumer", 3);
        let max_keys = i64::try_from(MAX_KEYS).unwrap();
        let flood = |number: i64| key_of("consumer", "token consumer/flood", &number.to_string());
        let mut removed = 0;
        for number in 0..max_keys + 50 {
            let writes = remember(&flood(number), "consumer/consumer", 4 + number);
            removed += writes.iter().filter(|write| write.value.is_none()).count();
        }
        for retained in [
            &idempotency_key("k", "{}"),
            &victim,
            &colleague,
            &flood(max_keys),
        ] {
            assert_eq!(cache.is_replay(retained, &world.state), Ok(true));
        }
        let first = flood(0);
        assert_eq!(cache.is_replay(&first, &world.state), Ok(false));
        assert_eq!((removed, cache.evicted.len()), (50, 1));
        assert_eq!(cache.by_key.len(), MAX_KEYS + 2);
        // A key that was just evicted is used again before its stored record is deleted.
        let repeated = flood(50);
        let record =
            IdempotencyCache::new_record(&repeated, &object("consumer/consumer"), at(9_999));
        let writes = cache.writes(&repeated, &record).unwrap();
        assert_eq!((writes.len(), writes[0].expected), (1, 54));
    }
}
