//! How connections stand, as flows are judged by it: kept in step with the state, change by change, and
//! cheap to copy, since the sweep takes a copy each time. Pure.

use crate::{
    dataplane::expiry::Standing,
    model::{Change, Endpoint, Object, Record, Reference, State},
};

/// By link slot. Copies share what is the same.
#[derive(Clone, Debug, Default)]
pub struct Standings(rpds::HashTrieMapSync<u32, Standing>);

/// Connections that stand otherwise after changes.
#[derive(Debug, Default)]
pub struct Turned {
    /// The slots of those that are gone.
    gone: Vec<u32>,
    endpoints: Vec<Reference>,
    /// All of whose connections do.
    services: Vec<Reference>,
}

impl Turned {
    /// By these changes.
    #[must_use]
    pub fn of(changes: &[Change]) -> Self {
        let mut turned = Self::default();
        for change in changes {
            match change {
                Change::Put(object @ Object::Endpoint(..)) => {
                    turned.endpoints.push(object.reference());
                }
                Change::Delete(Object::Endpoint(_, record)) => {
                    turned.gone.push(record.object.connection.slot);
                }
                Change::Put(object @ Object::Service(..))
                | Change::Delete(object @ Object::Service(..)) => {
                    turned.services.push(object.reference());
                }
                _ => {}
            }
        }
        turned
    }
}

impl Standings {
    /// Of all connections.
    #[must_use]
    pub fn of(state: &State) -> Self {
        let endpoints = state.endpoints.values();
        Self(endpoints.map(|record| standing(state, record)).collect())
    }

    /// Takes in changes that the state has by now. A slot that one gave up another may have got.
    pub fn take_in(&mut self, state: &State, turned: Turned) {
        for slot in turned.gone {
            self.0.remove_mut(&slot);
        }
        let of_services = turned
            .services
            .iter()
            .flat_map(|service| state.endpoints_of_service(service));
        let these = turned
            .endpoints
            .iter()
            .filter_map(|endpoint| state.endpoints.get_key_value(endpoint));
        for (_, record) in these.chain(of_services) {
            let (slot, standing) = standing(state, record);
            self.0.insert_mut(slot, standing);
        }
    }

    /// How the connection in the slot stands, if there is one.
    #[must_use]
    pub fn get(&self, slot: u32) -> Option<&Standing> {
        self.0.get(&slot)
    }
}

/// How a connection stands, with its slot.
fn standing(state: &State, record: &Record<Endpoint>) -> (u32, Standing) {
    let connection = &record.object.connection;
    let service = &record.object.service_identity.reference;
    let service = state.services.get(service);
    let timeouts = service.map(|service| service.object.spec.timeouts);
    let standing = Standing {
        generation: connection.generation,
        timeouts: timeouts.unwrap_or_default(),
    };
    (connection.slot, standing)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Decision, operations::tests::World};

    #[test]
    fn step_by_step_is_the_same_as_from_the_whole() {
        let mut world = World::furnished();
        let mut standings = Standings::of(&world.state);
        let steps: [&dyn Fn(&mut World); 6] = [
            &|world| {
                world
                    .endpoint("consumer/a", "10.0.0.101", "provider/shop")
                    .unwrap()
            },
            &|world| {
                world
                    .decide("provider/shop", "consumer/a", Decision::Approve)
                    .unwrap()
            },
            &|world| {
                world
                    .endpoint("consumer/b", "10.0.0.102", "provider/shop")
                    .unwrap()
            },
            &|world| {
                let timeouts = json!({ "timeouts": { "udp": 30 } });
                world.replace_service("provider/shop", timeouts).unwrap();
            },
            &|world| world.delete_endpoint("consumer/a").unwrap(),
            &|world| {
                world
                    .endpoint("consumer/c", "10.0.0.103", "provider/shop")
                    .unwrap()
            },
        ];
        for step in steps {
            step(&mut world);
            standings.take_in(&world.state, Turned::of(&world.last.1));
            let whole = Standings::of(&world.state);
            for slot in 0..4 {
                assert_eq!(standings.get(slot), whole.get(slot));
            }
        }
        assert_eq!(
            standings.get(0).map(|standing| standing.timeouts.udp),
            Some(30)
        );
    }
}
