//! Random callers make random sequences of calls. Each successful step must be allowed by the table of roles.

use std::{collections::BTreeMap, ops::Range};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::*;

fn index(of: usize) -> Range<usize> {
    0..of
}

fn call() -> impl Strategy<Value = Call> {
    use ConnectionState::{Approved, Disconnected, Pending, Rejected};
    let states = [Pending, Approved, Approved, Rejected, Disconnected];
    let endpoint = || index(ENDPOINTS.len());
    let service = || index(SERVICES.len());
    prop_oneof![
        3 => (endpoint(), service()).prop_map(|(e, s)| Call::CreateEndpoint(e, s)),
        1 => (endpoint(), 0u8..3).prop_map(|(e, l)| Call::LabelEndpoint(e, l)),
        1 => endpoint().prop_map(Call::DeleteEndpoint),
        2 => (endpoint(), service()).prop_map(|(e, s)| Call::Reconnect(e, s)),
        4 => (endpoint(), index(states.len())).prop_map(move |(e, s)| Call::Decide(e, states[s])),
        2 => (service(), 0u8..3, 0u8..3).prop_map(|(s, a, l)| Call::Service(s, a, l)),
        1 => service().prop_map(Call::DeleteService),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let flags = (
        any::<bool>(),
        prop::bool::weighted(0.1),
        any::<bool>(),
        any::<bool>(),
    );
    (any::<u16>(), vec(call(), 1..4), flags).prop_map(
        |(caller, calls, (manifest, prune, force, replace))| Step {
            caller,
            calls,
            manifest,
            options: ApplyOptions {
                prune,
                force,
                replace,
            },
        },
    )
}

/// Returns a caller with a role or none in each tenant. One of 32 callers is the operator.
fn caller(bits: u16) -> Principal {
    if bits >> 11 == 0 {
        return Principal::operator("operator", "socket");
    }
    let roles: BTreeMap<Name, Role> = TENANTS
        .iter()
        .enumerate()
        .filter_map(|(position, tenant)| {
            let role = match bits >> (position * 3) & 7 {
                0 => Role::Viewer,
                1 => Role::Consumer,
                2 => Role::Provider,
                3 => Role::Admin,
                _ => return None,
            };
            Some((name(tenant), role))
        })
        .collect();
    Principal {
        identity: "token 1".to_owned(),
        name: "somebody".to_owned(),
        from: "192.0.2.1".to_owned(),
        access: Access::Tenants(roles),
    }
}

/// Number of sequences.
const CASES: u32 = 100_000;

/// Runs a part of the sequences, with a fixed seed. A test for each part lets all processors be used.
fn nobody_exceeds_the_roles(part: u8, parts: u32) {
    let config = Config {
        cases: CASES / parts,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[part; 32]);
    let start = world();
    let approved = std::cell::Cell::new([0u32; 3]);
    let result = TestRunner::new_with_rng(config, rng).run(&vec(step(), 1..5), |steps| {
        let mut run = Run {
            state: start.state.clone(),
            revision: 1_000,
            identifiers: Counted::default(),
            policy: Policy::default(),
        };
        // The identifiers of the initial state are not used again.
        run.identifiers.skip(10_000);
        for step in &steps {
            let principal = caller(step.caller);
            let Ok(changes) = run.carry_out(step, &principal) else {
                continue;
            };
            let before = run.state.clone();
            run.revision += 1;
            run.state.apply(changes, run.revision);
            check_permissions(&before, &run.state, &principal)?;
            let mut counts = approved.get();
            counts[0] += 1;
            counts[1] += u32::from(step.manifest);
            let is_approved = |state: &State| {
                let connections = state.endpoints.values().map(|e| &e.object.connection);
                connections
                    .filter(|c| c.state == ConnectionState::Approved)
                    .count()
            };
            counts[2] += u32::from(is_approved(&run.state) > is_approved(&before));
            approved.set(counts);
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    // A run in which nearly every step is refused would prove nothing.
    let [done, manifests, approvals] = approved.get();
    assert!(done > CASES / parts / 4, "{done} steps succeeded");
    assert!(manifests > done / 10, "{manifests} manifests of {done}");
    assert!(approvals > done / 100, "{approvals} approvals of {done}");
}

#[test]
fn nobody_exceeds_the_roles_in_the_first_half_of_the_sequences() {
    nobody_exceeds_the_roles(1, 2);
}

#[test]
fn nobody_exceeds_the_roles_in_the_second_half_of_the_sequences() {
    nobody_exceeds_the_roles(2, 2);
}
