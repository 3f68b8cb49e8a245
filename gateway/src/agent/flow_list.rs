//! Lists of flows. They are read from the mapped flow tables, without the controller's lock.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use gateway_common::{
    Be16, Family, V4, V6,
    flow::{CoarseTime, Direction, FlowRef, PlaceState, TcpState},
};

use crate::{
    bpf::{
        flow_tables::{FlowTable, FlowTableSet, HasFlowTable},
        maps,
    },
    compile::flow_expiry::{FlowEntry, FlowPair},
};

/// Flow of either address family.
#[derive(Clone, Copy, Debug)]
pub struct ListedFlow {
    /// Protocol number: 6 (TCP) or 17 (UDP).
    pub protocol: u8,
    /// Client address and port in the consumer's network.
    pub client: SocketAddr,
    /// Address and port of the endpoint.
    pub destination: SocketAddr,
    /// SNAT address and port, which are the source in the provider's network.
    pub nat: SocketAddr,
    /// Address and port of the backend.
    pub backend: SocketAddr,
    /// Link id of the connection.
    pub link_id: u32,
    /// TCP state; `None` for UDP.
    pub tcp_state: Option<TcpState>,
    /// True if the backend has sent a packet.
    pub answered: bool,
    /// Time at which the flow was opened.
    pub created: CoarseTime,
    /// Time of the last packet in either direction.
    pub last_seen: CoarseTime,
    /// State of the flow's place.
    pub state: PlaceState,
}

/// Selection of flows.
#[derive(Clone, Debug, Default)]
pub struct FlowFilter {
    /// Slots of connections; `None` for all.
    pub connections: Option<HashSet<u32>>,
    /// Address of the client.
    pub client: Option<IpAddr>,
    /// Address of the backend.
    pub backend: Option<IpAddr>,
}

/// Position in the list of all flows: the family's number in the upper half, and a place of its table in the lower.
pub type FlowPosition = u64;

/// Number of the first position of IPv6 flows.
const FIRST_V6: FlowPosition = 1 << 32;

/// Returns at most `limit` flows from a position on, and the position behind them, if the list goes on.
///
/// The list has flows that the data path carries. Entries of flows that have ended stay for a while, so that their
/// peers' packets are rejected with the reason; they are left out.
#[must_use]
pub fn list_flows(
    tables: &FlowTableSet,
    filter: &FlowFilter,
    from: FlowPosition,
    limit: usize,
) -> (Vec<ListedFlow>, Option<FlowPosition>) {
    let mut flows = Vec::new();
    let next = match u32::try_from(from) {
        Ok(first) => match add_flows::<V4>(tables, filter, first, limit, &mut flows) {
            Some(index) => Some(FlowPosition::from(index)),
            None => add_flows::<V6>(tables, filter, 0, limit, &mut flows)
                .map(|index| FIRST_V6 | FlowPosition::from(index)),
        },
        Err(_) => u32::try_from(from - FIRST_V6)
            .ok()
            .and_then(|first| add_flows::<V6>(tables, filter, first, limit, &mut flows))
            .map(|index| FIRST_V6 | FlowPosition::from(index)),
    };
    (flows, next)
}

/// Numbers of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Flows that both sides have confirmed.
    pub established: u64,
    /// Flows that are not confirmed.
    pub half_open: u64,
}

/// Counts the flows of both families.
#[must_use]
pub fn count_flows(tables: &FlowTableSet) -> FlowCounts {
    let mut counts = FlowCounts::default();
    count_table::<V4>(tables, &mut counts);
    count_table::<V6>(tables, &mut counts);
    counts
}

fn count_table<F: HasFlowTable>(tables: &FlowTableSet, counts: &mut FlowCounts) {
    for found in F::flow_table(tables).entries(0) {
        if found.entry().direction() == Direction::ToService {
            counts.established += u64::from(found.control.is_confirmed());
            counts.half_open += u64::from(found.control.is(PlaceState::HalfOpen));
        }
    }
}

/// Adds flows of a family from a place on. Returns the first place that was not looked at, if there is one.
fn add_flows<F: HasFlowTable>(
    tables: &FlowTableSet,
    filter: &FlowFilter,
    first: u32,
    limit: usize,
    flows: &mut Vec<ListedFlow>,
) -> Option<u32> {
    let (table, now) = (F::flow_table(tables), maps::now());
    for found in table.entries(first) {
        if found.entry().direction() == Direction::ToConsumer || !filter.selects(&found) {
            continue;
        }
        if flows.len() >= limit {
            return Some(found.index);
        }
        flows.extend(listed_flow(tables, table, &found, now));
    }
    None
}

impl FlowFilter {
    fn selects<F: Family>(&self, found: &FlowRef<F>) -> bool {
        let (key, entry) = (found.key(), found.entry());
        let connections = self.connections.as_ref();
        connections.is_none_or(|slots| slots.contains(&entry.connection_slot()))
            && self
                .client
                .is_none_or(|client| IpAddr::from(F::to_mapped(key.source)) == client)
            && self
                .backend
                .is_none_or(|backend| IpAddr::from(F::to_mapped(entry.destination)) == backend)
    }
}

/// Returns the flow of an entry towards the service, unless it has ended or is incomplete.
fn listed_flow<F: HasFlowTable>(
    tables: &FlowTableSet,
    table: &FlowTable<F>,
    found: &FlowRef<F>,
    now: CoarseTime,
) -> Option<ListedFlow> {
    let peer = table.peer(found)?;
    let pair = FlowPair::copy(found, &peer)?;
    let link_id = tables.link_id(&pair.to_service.flow)?;
    let socket =
        |address: F::Address, port: Be16| SocketAddr::new(F::to_mapped(address).into(), port.get());
    let FlowEntry { key, flow, control } = pair.to_service;
    Some(ListedFlow {
        protocol: pair.protocol(),
        client: socket(key.source, key.ports.source()),
        destination: socket(key.destination, key.ports.destination()),
        nat: socket(flow.source, flow.ports.source()),
        backend: socket(flow.destination, flow.ports.destination()),
        link_id,
        tcp_state: pair.tcp_state(),
        answered: pair.to_consumer.control.flags_seen().0 != 0,
        created: flow.created_at(now),
        last_seen: pair.last_seen(),
        state: control.state(),
    })
}
