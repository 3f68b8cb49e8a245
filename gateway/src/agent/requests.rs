//! Requests that carry an idempotency key, so that a repeated one is not carried out twice.

use std::collections::{BTreeSet, HashMap};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use ring::digest::{Context, SHA256};

use crate::{
    model::{Code, Object, Principal, Problem, State},
    store::{Once, StoreError, Write, keys},
};

/// How long a key is remembered.
const REMEMBER: SignedDuration = SignedDuration::from_hours(24);
/// How many are.
const MOST: usize = 10_000;

/// A request with its key, as hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    key: String,
    request: String,
}

impl Attempt {
    /// Returns the attempt of a principal, with the key, to do this. Keys of different principals never meet, however
    /// the principals call themselves.
    #[must_use]
    pub fn new(principal: &Principal, key: &str, path: &str, body: &[u8]) -> Self {
        let hash = |parts: [&[u8]; 2]| {
            let mut context = Context::new(&SHA256);
            for part in parts {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
            URL_SAFE_NO_PAD.encode(context.finish())
        };
        Self {
            key: hash([principal.identity.as_bytes(), key.as_bytes()]),
            request: hash([path.as_bytes(), body]),
        }
    }
}

/// The requests that were carried out of late.
#[derive(Debug, Default)]
pub struct Requests {
    by_key: HashMap<String, (Once, u64)>,
    by_time: BTreeSet<(Timestamp, String)>,
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
            at: now,
            kind: object.kind(),
            reference: object.reference(),
            uid: object.meta().uid,
        }
    }

    /// The writes that put it into the store, and take out what is forgotten.
    ///
    /// # Errors
    /// When it can't be written down.
    pub fn writes(&self, attempt: &Attempt, once: &Once) -> Result<Vec<Write>, StoreError> {
        let mut writes = vec![Write {
            key: keys::request(&attempt.key),
            expected: 0,
            value: Some(serde_json::to_string(once)?),
        }];
        for key in self.forgotten(once.at) {
            writes.push(Write {
                key: keys::request(key),
                expected: self.by_key.get(key).map_or(0, |(_, revision)| *revision),
                value: None,
            });
        }
        Ok(writes)
    }

    /// Takes in what the store has.
    pub fn append(&mut self, attempt: Attempt, once: Once, revision: u64) {
        let forgotten: Vec<String> = self.forgotten(once.at).cloned().collect();
        for key in forgotten {
            if let Some((old, _)) = self.by_key.remove(&key) {
                self.by_time.remove(&(old.at, key));
            }
        }
        self.insert(attempt.key, once, revision);
    }

    fn insert(&mut self, key: String, once: Once, revision: u64) {
        self.by_time.insert((once.at, key.clone()));
        self.by_key.insert(key, (once, revision));
    }

    fn forgotten(&self, now: Timestamp) -> impl Iterator<Item = &String> {
        let too_many = (self.by_time.len() + 1).saturating_sub(MOST);
        let old = move |at: Timestamp| now.duration_since(at) > REMEMBER;
        self.by_time
            .iter()
            .enumerate()
            .take_while(move |(place, (at, _))| *place < too_many || old(*at))
            .map(|(_, (_, key))| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, operations::tests::World};

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
}
