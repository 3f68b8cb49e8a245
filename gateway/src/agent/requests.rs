//! Requests that carry an idempotency key, so that a repeated one is not carried out twice.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use ring::digest::{Context, SHA256};

use crate::{
    model::{Code, Name, Object, Principal, Problem, State, ring::Ring},
    store::{Once, StoreError, Write, keys},
};

/// How long a key is remembered.
const REMEMBER: SignedDuration = SignedDuration::from_hours(24);
/// Keys that are remembered for each tenant, and for the operator. The callers of a tenant share them evenly.
const MOST: usize = 2_000;

/// A request with its key, as hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    key: String,
    request: String,
    caller: String,
    is_operator: bool,
}

impl Attempt {
    /// Returns the attempt of a principal, with the key, to do this. Keys of different principals never meet, however
    /// the principals call themselves.
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
            key: hash(&[principal.identity.as_bytes(), key.as_bytes()]),
            request: hash(&[path.as_bytes(), body]),
            caller: hash(&[principal.identity.as_bytes()]),
            is_operator: principal.is_operator(),
        }
    }
}

/// The requests that were carried out of late.
#[derive(Debug, Default)]
pub struct Requests {
    by_key: HashMap<String, (Once, u64)>,
    by_time: BTreeSet<(Timestamp, String)>,
    /// By the tenant in which something was created, and by caller. None: the operator's.
    by_tenant: HashMap<Option<Name>, Ring<String, (Timestamp, String)>>,
    /// Entries of the store that are forgotten, with their revisions: the next request removes them.
    surplus: BTreeMap<String, u64>,
}

impl Requests {
    /// From what the store has.
    #[must_use]
    pub fn new(stored: Vec<(String, Once, u64)>) -> Self {
        let mut requests = Self::default();
        for (key, once, revision) in stored {
            requests.insert(key, once, revision);
        }
        requests
    }

    /// Whether the request was carried out before: then what it created is there.
    ///
    /// # Errors
    /// The key came with another request, or what was created is gone.
    pub fn is_done(&self, attempt: &Attempt, state: &State) -> Result<bool, Problem> {
        let Some((once, _)) = self.by_key.get(&attempt.key) else {
            return Ok(false);
        };
        if once.request != attempt.request {
            let detail = "this Idempotency-Key came with another request before: take a new one";
            return Err(Problem::invalid("Idempotency-Key", detail));
        }
        let there = state.object(once.kind, &once.reference);
        if there.is_some_and(|object| object.meta().uid == once.uid) {
            return Ok(true);
        }
        Err(Problem::new(
            Code::AlreadyExists,
            format!(
                "this request was carried out before, and the {} that it created is gone since: \
                 take a new Idempotency-Key to create another",
                once.kind
            ),
        ))
    }

    /// What is remembered of an attempt that creates the object.
    #[must_use]
    pub fn remembered(attempt: &Attempt, object: &Object, now: Timestamp) -> Once {
        Once {
            request: attempt.request.clone(),
            caller: attempt.caller.clone(),
            tenant: (!attempt.is_operator).then(|| object.tenant().clone()),
            at: now,
            kind: object.kind(),
            reference: object.reference(),
            uid: object.meta().uid,
        }
    }

    /// Returns the writes that put it into the store, and remove what is forgotten.
    ///
    /// # Errors
    /// When it can't be written down.
    pub fn writes(&self, attempt: &Attempt, once: &Once) -> Result<Vec<Write>, StoreError> {
        let mut writes = vec![Write {
            key: keys::request(&attempt.key),
            // One that is forgotten may come again before the store has forgotten it too.
            expected: self.surplus.get(&attempt.key).copied().unwrap_or(0),
            value: Some(serde_json::to_string(once)?),
        }];
        let expired = self.expired(once.at).map(|key| {
            let revision = self.by_key.get(key).map_or(0, |(_, revision)| *revision);
            (key, revision)
        });
        let surplus = self.surplus.iter().map(|(key, revision)| (key, *revision));
        let forgotten = surplus.filter(|(key, _)| **key != attempt.key);
        writes.extend(forgotten.chain(expired).map(|(key, revision)| Write {
            key: keys::request(key),
            expected: revision,
            value: None,
        }));
        Ok(writes)
    }

    /// Takes in what the store has, after [`Self::writes`].
    pub fn append(&mut self, attempt: Attempt, once: Once, revision: u64) {
        let expired: Vec<String> = self.expired(once.at).cloned().collect();
        for key in expired {
            self.forget(&key);
        }
        self.surplus.clear();
        self.insert(attempt.key, once, revision);
    }

    fn insert(&mut self, key: String, once: Once, revision: u64) {
        let ring = self.by_tenant.entry(once.tenant.clone()).or_default();
        let evicted = ring.insert(once.caller.clone(), (once.at, key.clone()), MOST);
        self.by_time.insert((once.at, key.clone()));
        self.by_key.insert(key, (once, revision));
        if let Some((_, key)) = evicted
            && let Some(revision) = self.forget(&key)
        {
            self.surplus.insert(key, revision);
        }
    }

    /// Forgets a key; returns the revision of its entry in the store.
    fn forget(&mut self, key: &str) -> Option<u64> {
        let (once, revision) = self.by_key.remove(key)?;
        let entry = (once.at, key.to_owned());
        self.by_time.remove(&entry);
        if let Some(ring) = self.by_tenant.get_mut(&once.tenant) {
            ring.remove(&once.caller, &entry);
            if ring.is_empty() {
                self.by_tenant.remove(&once.tenant);
            }
        }
        Some(revision)
    }

    /// Returns the keys that are too old to be remembered.
    fn expired(&self, now: Timestamp) -> impl Iterator<Item = &String> {
        let old = move |at: Timestamp| now.duration_since(at) > REMEMBER;
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

    fn attempt(key: &str, body: &str) -> Attempt {
        let principal = Principal::operator("operator", "socket");
        Attempt::new(&principal, key, "/v1/tenants", body.as_bytes())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn keys_of_principals_that_are_called_alike_do_not_meet() {
        let named = |identity: &str| Principal {
            identity: identity.to_owned(),
            ..Principal::operator("kim", "socket")
        };
        let of = |identity: &str| Attempt::new(&named(identity), "k", "/v1/tenants", b"{}");
        assert_eq!(of("oidc:https://idp#1"), of("oidc:https://idp#1"));
        assert_ne!(of("oidc:https://idp#1"), of("oidc:https://idp#2"));
    }

    #[test]
    fn a_request_is_carried_out_once() {
        let world = World::furnished();
        let reference = "consumer/consumer".parse().unwrap();
        let tenant = world.state.object(Kind::Tenant, &reference).unwrap();
        let mut requests = Requests::default();
        let first = attempt("k", "{}");
        assert_eq!(requests.is_done(&first, &world.state), Ok(false));
        let once = Requests::remembered(&first, &tenant, at(0));
        assert_eq!(requests.writes(&first, &once).unwrap().len(), 1);
        requests.append(first.clone(), once, 5);
        assert_eq!(requests.is_done(&first, &world.state), Ok(true));
        let other = requests.is_done(&attempt("k", "{ }"), &world.state);
        assert_eq!(other.unwrap_err().code, Code::Invalid);
        assert_eq!(
            requests.is_done(&attempt("l", "{}"), &world.state),
            Ok(false)
        );
        let gone = requests.is_done(&first, &State::default());
        assert_eq!(gone.unwrap_err().code, Code::AlreadyExists);
        // A day later it makes room for the next.
        let second = attempt("m", "{}");
        let once = Requests::remembered(&second, &tenant, at(86_401));
        let writes = requests.writes(&second, &once).unwrap();
        assert_eq!((writes.len(), writes[1].expected), (2, 5));
        requests.append(second, once, 6);
        assert_eq!(requests.is_done(&first, &world.state), Ok(false));
    }

    #[test]
    fn one_tenants_keys_push_out_neither_anothers_nor_the_operators() {
        let world = World::furnished();
        let object = |reference: &str| {
            let reference = reference.parse().unwrap();
            world.state.object(Kind::Tenant, &reference).unwrap()
        };
        let of = |tenant: &str, token: &str, key: &str| {
            let principal = Principal {
                name: token.to_owned(),
                identity: token.to_owned(),
                from: "192.0.2.1".to_owned(),
                access: Access::Tenants([(tenant.parse().unwrap(), Role::Consumer)].into()),
            };
            Attempt::new(&principal, key, "/v1", b"{}")
        };
        let mut requests = Requests::default();
        let mut remember = |attempt: &Attempt, reference: &str, second: i64| {
            let once = Requests::remembered(attempt, &object(reference), at(second));
            let writes = requests.writes(attempt, &once).unwrap();
            requests.append(attempt.clone(), once, u64::try_from(second).unwrap());
            writes
        };
        let victim = of("provider", "token provider/x", "k");
        let colleague = of("consumer", "token consumer/quiet", "k");
        remember(&attempt("k", "{}"), "consumer/consumer", 1);
        remember(&victim, "provider/provider", 2);
        remember(&colleague, "consumer/consumer", 3);
        let most = i64::try_from(MOST).unwrap();
        let flood = |number: i64| of("consumer", "token consumer/flood", &number.to_string());
        let mut removed = 0;
        for number in 0..most + 50 {
            let writes = remember(&flood(number), "consumer/consumer", 4 + number);
            removed += writes.iter().filter(|write| write.value.is_none()).count();
        }
        for kept in [&attempt("k", "{}"), &victim, &colleague, &flood(most)] {
            assert_eq!(requests.is_done(kept, &world.state), Ok(true));
        }
        let first = flood(0);
        assert_eq!(requests.is_done(&first, &world.state), Ok(false));
        assert_eq!((removed, requests.surplus.len()), (50, 1));
        assert_eq!(requests.by_key.len(), MOST + 2);
        // What was just forgotten comes again before the store has forgotten it.
        let again = flood(50);
        let once = Requests::remembered(&again, &object("consumer/consumer"), at(9_999));
        let writes = requests.writes(&again, &once).unwrap();
        assert_eq!((writes.len(), writes[0].expected), (1, 54));
    }
}
