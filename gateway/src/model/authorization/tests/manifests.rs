//! Permissions of single manifests, and what their problems reveal.

use jiff::Timestamp;

use super::*;

/// Returns the result of a manifest with a new endpoint of `c` and its connection in a state.
fn self_approval(principal: &Principal, state: ConnectionState) -> Result<Vec<Change>, Problem> {
    let start = world();
    let mut run = Run {
        state: start.state,
        revision: 1_000,
        identifiers: Counted::default(),
        policy: Policy::default(),
    };
    let step = Step {
        caller: 0,
        calls: vec![Call::CreateEndpoint(2, 0), Call::Decide(2, state)],
        manifest: true,
        options: ApplyOptions::default(),
    };
    run.carry_out(&step, principal)
}

fn in_tenants(roles: &[(&str, Role)]) -> Principal {
    let roles = roles.iter().map(|(tenant, role)| (name(tenant), *role));
    Principal {
        identity: "token 1".to_owned(),
        name: "somebody".to_owned(),
        from: "192.0.2.1".to_owned(),
        access: Access::Tenants(roles.collect()),
    }
}

#[test]
fn a_consumer_does_not_approve_the_endpoint_that_it_creates() {
    use ConnectionState::{Approved, Disconnected, Pending, Rejected};
    let consumer = in_tenants(&[("c", Role::Admin)]);
    for state in [Approved, Rejected, Disconnected] {
        let problem = self_approval(&consumer, state).unwrap_err();
        assert_eq!(problem.code, ProblemCode::Forbidden, "{state}");
        // A consumer that only knows the alias must not learn the provider.
        assert!(!problem.detail.contains("tenant p"), "{problem}");
    }
    assert!(self_approval(&consumer, Pending).is_ok());
    let viewer = in_tenants(&[("c", Role::Admin), ("p", Role::Viewer)]);
    let problem = self_approval(&viewer, Approved).unwrap_err();
    assert_eq!(problem.code, ProblemCode::Forbidden);
    let both = in_tenants(&[("c", Role::Consumer), ("p", Role::Provider)]);
    assert!(self_approval(&both, Approved).is_ok());
}

#[test]
fn a_decision_does_not_authorize_a_label_change_of_a_viewer() {
    let mut run = Run {
        state: world().state,
        revision: 1_000,
        identifiers: Counted::default(),
        policy: Policy::default(),
    };
    let step = |calls| Step {
        caller: 0,
        calls,
        manifest: true,
        options: ApplyOptions::default(),
    };
    let principal = in_tenants(&[("c", Role::Viewer), ("p", Role::Provider)]);
    let decision = Call::Decide(0, ConnectionState::Approved);
    let both = step(vec![Call::LabelEndpoint(0, 1), decision]);
    let problem = run.carry_out(&both, &principal).unwrap_err();
    assert_eq!(problem.code, ProblemCode::Forbidden);
    assert!(run.carry_out(&step(vec![decision]), &principal).is_ok());
}

#[test]
fn a_manifest_does_not_reveal_invisible_connections() {
    let stranger = in_tenants(&[("q", Role::Admin)]);
    let start = world();
    let ask = |endpoint: &str, state| {
        let manifest = Manifest {
            connections: vec![ConnectionEntry {
                endpoint: reference(endpoint),
                state,
                reason: String::new(),
            }],
            ..Manifest::default()
        };
        let mut identifiers = Counted::default();
        let mut context = OpContext {
            now: Timestamp::UNIX_EPOCH,
            actor: "somebody",
            is_operator: false,
            identifiers: &mut identifiers,
            host: &HostAddresses::default(),
            host_uses: &HostUses::default(),
            event_boundary: crate::model::event_id::EventId::default(),
        };
        let policy = Policy::default();
        apply(
            &start.state,
            &mut context,
            &policy,
            &stranger,
            &manifest,
            ApplyOptions::default(),
        )
    };
    // `c/e1` is Pending, `d/e1` Rejected, and the others do not exist.
    for state in [
        ConnectionState::Pending,
        ConnectionState::Approved,
        ConnectionState::Rejected,
        ConnectionState::Disconnected,
    ] {
        for endpoint in ["c/e1", "d/e1", "c/never", "never/never"] {
            let problem = ask(endpoint, state).unwrap_err();
            assert_eq!(
                problem,
                Problem::not_found(Kind::Endpoint, &endpoint),
                "{state}"
            );
        }
    }
    // The provider sees the requests to its own services.
    assert!(ask("c/e2", ConnectionState::Rejected).is_ok());
}

#[test]
fn a_decision_about_an_own_endpoint_does_not_reveal_the_provider() {
    let mut start = world();
    start.decide("p/open", "c/e1", Decision::Remove).unwrap();
    let consumer = in_tenants(&[("c", Role::Admin)]);
    // The connection is Disconnected and the service is deleted: other problems would name both.
    start.state.services.remove(&reference("p/open"));
    let manifest = Manifest {
        connections: vec![ConnectionEntry {
            endpoint: reference("c/e1"),
            state: ConnectionState::Approved,
            reason: String::new(),
        }],
        ..Manifest::default()
    };
    let problem = applied(&start.state, &consumer, &manifest, ApplyOptions::default()).unwrap_err();
    assert_eq!(problem.code, ProblemCode::Forbidden);
    assert!(!problem.detail.contains("p/open"), "{problem}");
}

#[test]
fn pruning_ignores_tenants_absent_from_the_manifest() {
    let start = world();
    // Another tenant gave the caller a role without its consent.
    let caller = in_tenants(&[("c", Role::Admin), ("q", Role::Viewer)]);
    let exported = Manifest::from_state(&start.state, |tenant| *tenant == name("c"));
    let mut less = exported.clone();
    less.endpoints
        .retain(|entry| entry.request.name != Some(name("e1")));
    less.connections
        .retain(|entry| entry.endpoint != reference("c/e1"));
    let prune = ApplyOptions {
        prune: true,
        force: true,
        replace: false,
    };
    let changes = applied(&start.state, &caller, &less, prune).unwrap();
    let deleted: Vec<String> = changes.iter().map(|c| c.object().path()).collect();
    assert_eq!(deleted, ["c/e1"]);
}

fn applied(
    state: &State,
    principal: &Principal,
    manifest: &Manifest,
    options: ApplyOptions,
) -> Result<Vec<Change>, Problem> {
    let mut identifiers = Counted::default();
    identifiers.skip(10_000);
    let mut context = OpContext {
        now: Timestamp::UNIX_EPOCH,
        actor: "somebody",
        is_operator: false,
        host: &HostAddresses::default(),
        host_uses: &HostUses::default(),
        event_boundary: crate::model::event_id::EventId::default(),
        identifiers: &mut identifiers,
    };
    let policy = Policy::default();
    apply(state, &mut context, &policy, principal, manifest, options).map(|(changes, _)| changes)
}
