//! Next hops of backends: takes over routes and messages of neighbours, and builds the solicitations that are due.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    time::Instant,
};

use anyhow::Result;
use gateway_common::{
    IpAddress,
    maps::{AddressKey, LocalAddress},
    packet::Mac,
};

use crate::{
    agent::{OutgoingFrame, controller::Controller},
    compile::{map_snapshot::MapSnapshot, observed::BackendKey},
    host::{next_hops::NextHopResult, routes::BackendRoute},
    inject::frames,
    model::{Reference, State},
    neighbour::{NeighbourMessage, Sender, Solicitation},
};

/// Number of SNAT addresses that are considered as the sender of a solicitation.
const MAX_CANDIDATES: usize = 64;

impl Controller {
    /// Takes over routes to backends. `is_full` states that there are no other backends.
    pub(in crate::agent) fn observe_routes(
        &mut self,
        routes: &BTreeMap<BackendKey, BackendRoute>,
        is_full: bool,
        now: Instant,
    ) {
        self.observed.next_hops.update(routes, now);
        if is_full {
            self.observed.next_hops.forget_former();
        }
        self.observe_next_hops(routes.keys().cloned().collect());
        self.observed.next_hops_stepped.notify_one();
    }

    /// Handles messages of neighbours, each with the index of the interface that received it. The next
    /// [`Self::step_next_hops`] brings what they change into the maps.
    pub(in crate::agent) fn observe_neighbours(
        &mut self,
        messages: &[(u32, NeighbourMessage)],
        now: Instant,
    ) {
        if messages.is_empty() {
            return;
        }
        let interfaces = self.observed.compiled.interfaces.values();
        let own: HashSet<Mac> = interfaces.map(|interface| interface.mac).collect();
        for (ifindex, message) in messages {
            // A frame of the agent itself, received through another interface of the same network.
            if message.mac.is_some_and(|mac| own.contains(&mac)) {
                continue;
            }
            self.observed.next_hops.on_message(*ifindex, message, now);
        }
    }

    /// Returns the solicitations that are due, and takes over what messages and the time that has passed mean for next
    /// hops.
    ///
    /// The solicitations count as sent even if the kernel refuses a write to a map, which is the second result: they
    /// must be sent in any case.
    pub(in crate::agent) fn step_next_hops(
        &mut self,
        now: Instant,
    ) -> (Vec<OutgoingFrame>, Result<()>) {
        let (state, snapshot) = (&self.desired.state, &self.datapath.map_snapshot);
        let interfaces = self.observed.compiled.interfaces.values();
        let usable: HashSet<u32> = interfaces.map(|interface| interface.ifindex).collect();
        let solicitations = self.observed.next_hops.step(
            now,
            |ifindex| usable.contains(&ifindex),
            |interface, neighbour| snat_address(state, snapshot, interface, neighbour),
        );
        let frames = solicitations
            .iter()
            .filter_map(|solicitation| self.frame_of(solicitation));
        let frames = frames.collect();
        (frames, self.observe_changed_next_hops())
    }

    /// Returns the reason why a backend can't be reached, if it can't.
    #[must_use]
    pub fn backend_problem(&self, key: &BackendKey) -> Option<String> {
        match self.observed.next_hops.result(key) {
            NextHopResult::Unreachable(reason) | NextHopResult::Pending(reason) => Some(reason),
            NextHopResult::Resolved { .. } | NextHopResult::Unused => None,
        }
    }

    /// Returns the backends that can't be reached, each with the reason.
    pub fn unreachable_backends(&self) -> impl Iterator<Item = (&BackendKey, String)> {
        let unreachable = self.observed.host.unreachable.iter();
        unreachable.filter_map(|key| Some((key, self.backend_problem(key)?)))
    }

    fn observe_changed_next_hops(&mut self) -> Result<()> {
        let changed = self.observed.next_hops.take_changed();
        // After a failure the next step tries again.
        if changed.is_empty() && self.in_sync() {
            return Ok(());
        }
        self.observe_next_hops(changed);
        self.reconcile()
    }

    fn observe_next_hops(&mut self, backends: BTreeSet<BackendKey>) {
        for key in backends {
            let result = self.observed.next_hops.result(&key);
            self.observed.host.update_next_hop(&key, &result);
            let hop = match result {
                NextHopResult::Resolved { hop, .. } => Some(hop),
                NextHopResult::Pending(_)
                | NextHopResult::Unreachable(_)
                | NextHopResult::Unused => None,
            };
            self.observe_next_hop(&key, hop);
        }
    }

    fn frame_of(&self, solicitation: &Solicitation) -> Option<OutgoingFrame> {
        let (ifindex, neighbour) = solicitation.neighbour;
        let mut interfaces = self.observed.compiled.interfaces.values();
        let interface = interfaces.find(|interface| interface.ifindex == ifindex)?;
        let sender = match solicitation.sender {
            Sender::Address(address) => Some(address),
            Sender::Unspecified => None,
            Sender::Missing | Sender::UnusableInterface => return None,
        };
        let to = solicitation.destination;
        let frame = frames::solicitation(interface.mac, sender, neighbour, to);
        Some((ifindex, frame))
    }
}

/// Returns a SNAT address of the network that is attached to the interface: one in the same prefix of the network as the
/// neighbour, else one close to it. Only addresses that the data path answers for are considered.
fn snat_address(
    state: &State,
    snapshot: &MapSnapshot,
    interface: &str,
    neighbour: IpAddr,
) -> Option<IpAddr> {
    let reference = state.network_by_interface(interface)?;
    let network = &state.networks.get(reference)?.object;
    let is_in_use = |address: &IpAddr| {
        let key = AddressKey {
            network: network.number,
            address: IpAddress::from(*address),
        };
        let found = snapshot.addresses.get(&key);
        found.is_some_and(|found| found.kind == LocalAddress::NAT)
    };
    let candidates = state.occupancy(reference).nat_addresses_near(neighbour);
    let mut candidates = candidates.take(MAX_CANDIDATES).filter(is_in_use).peekable();
    let first = candidates.peek().copied();
    let prefix = network
        .prefixes
        .iter()
        .find(|prefix| prefix.contains(&neighbour));
    candidates
        .find(|address| prefix.is_none_or(|prefix| prefix.contains(address)))
        .or(first)
}

/// Returns the MAC addresses of backends' next hops in the maps, by interface index and backend: those that the agent
/// before this one has resolved.
pub(super) fn former_next_hops(
    state: &State,
    snapshot: &MapSnapshot,
) -> HashMap<(u32, BackendKey), Mac> {
    let networks = state.networks.iter();
    let networks: HashMap<u32, &Reference> = networks
        .map(|(reference, record)| (record.object.number, reference))
        .collect();
    let backends = snapshot.backends.values();
    let reachable = backends.filter(|backend| backend.resource != 0 && backend.reachable != 0);
    let hops = reachable.filter_map(|backend| {
        let ifindex = *snapshot.tx_ports.get(&backend.egress_slot)?;
        let network = (*networks.get(&backend.network)?).clone();
        let key = (network, IpAddr::from(backend.address));
        Some(((ifindex, key), backend.mac.mac()))
    });
    hops.collect()
}
