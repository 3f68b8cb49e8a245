//! Index of connections by slot, with the generation and timeouts that flow GC judges flows by. Updated change by
//! change. A clone is cheap (persistent map), because each collection takes one. Pure.

use crate::{
    compile::flow_expiry::FlowPolicy,
    model::{Change, Endpoint, Object, Record, Reference, State},
};

/// Flow policies by connection slot. Clones share their entries.
#[derive(Clone, Debug, Default)]
pub struct ConnectionIndex(rpds::HashTrieMapSync<u32, FlowPolicy>);

/// Connections whose flow policy may differ after changes.
#[derive(Debug, Default)]
pub struct ConnectionDelta {
    /// Slots of deleted connections.
    removed_slots: Vec<u32>,
    endpoints: Vec<Reference>,
    /// Services, all of whose connections are affected.
    services: Vec<Reference>,
}

impl ConnectionDelta {
    /// Returns the connections that the changes affect.
    #[must_use]
    pub fn from_changes(changes: &[Change]) -> Self {
        let mut delta = Self::default();
        for change in changes {
            match change {
                Change::Put(object @ Object::Endpoint(..)) => {
                    delta.endpoints.push(object.reference());
                }
                Change::Delete(Object::Endpoint(_, record)) => {
                    delta.removed_slots.push(record.object.connection.slot);
                }
                Change::Put(object @ Object::Service(..))
                | Change::Delete(object @ Object::Service(..)) => {
                    delta.services.push(object.reference());
                }
                _ => {}
            }
        }
        delta
    }
}

impl ConnectionIndex {
    /// Builds the index of all connections.
    #[must_use]
    pub fn from_state(state: &State) -> Self {
        let endpoints = state.endpoints.values();
        Self(endpoints.map(|record| flow_policy(state, record)).collect())
    }

    /// Applies a delta whose changes the state already contains. Slots are removed first, because another connection of
    /// the same changes may have got one of them.
    pub fn apply(&mut self, state: &State, delta: ConnectionDelta) {
        for slot in delta.removed_slots {
            self.0.remove_mut(&slot);
        }
        let of_services = delta
            .services
            .iter()
            .flat_map(|service| state.endpoints_of_service(service));
        let changed = delta
            .endpoints
            .iter()
            .filter_map(|endpoint| state.endpoints.get_key_value(endpoint));
        for (_, record) in changed.chain(of_services) {
            let (slot, policy) = flow_policy(state, record);
            self.0.insert_mut(slot, policy);
        }
    }

    /// Returns the policy of the connection in the slot, if there is one.
    #[must_use]
    pub fn get(&self, slot: u32) -> Option<&FlowPolicy> {
        self.0.get(&slot)
    }
}

/// Returns the slot and the flow policy of an endpoint's connection.
fn flow_policy(state: &State, record: &Record<Endpoint>) -> (u32, FlowPolicy) {
    let connection = &record.object.connection;
    let service = &record.object.service_identity.reference;
    let service = state.services.get(service);
    let timeouts = service.map(|service| service.object.spec.timeouts);
    let policy = FlowPolicy {
        generation: connection.generation,
        timeouts: timeouts.unwrap_or_default(),
    };
    (connection.slot, policy)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Decision, operations::tests::World};

    #[test]
    fn incremental_index_equals_a_rebuilt_one() {
        let mut world = World::furnished();
        let mut index = ConnectionIndex::from_state(&world.state);
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
            index.apply(&world.state, ConnectionDelta::from_changes(&world.last.1));
            let whole = ConnectionIndex::from_state(&world.state);
            for slot in 0..4 {
                assert_eq!(index.get(slot), whole.get(slot));
            }
        }
        assert_eq!(index.get(0).map(|policy| policy.timeouts.udp), Some(30));
    }
}
