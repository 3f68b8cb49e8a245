//! Opens a flow: both entries are made, the reverse one first, since it reserves the source port.

use crate::{
    DropReason, Environment, Step, Verdict,
    environment::InsertError,
    flow::{Direction, Flow, FlowRef, Seen, Table},
    maps::Attachment,
    packet::{Ethernet, Mac},
    stages::{
        admission::Admitted,
        backend::Chosen,
        parse::{Segment, Transport},
        source_nat::{self, backend_port},
    },
};

/// Inserts the flow's entries and returns the consumer's.
#[inline(always)]
pub(super) fn open<E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    segment: &Segment,
    admitted: &Admitted,
    chosen: &Chosen,
) -> Step<FlowRef> {
    let link = admitted.address.link;
    let now = env.now().0;
    let key = &segment.key;

    let mut flow = Flow {
        source: key.destination,
        destination: key.source,
        source_port: key.destination_port,
        destination_port: key.source_port,
        network: attachment.network,
        egress: attachment.slot,
        link,
        generation: admitted.address.generation,
        mac: Ethernet::at(env, 0).map_or(Mac::default(), Ethernet::source),
        direction: Direction::ToConsumer as u8,
        last_seen: now,
        created: now,
        ..Flow::default()
    };
    let source = source_nat::reserve(env, attachment, segment, admitted, chosen, &mut flow)?;

    // The same memory serves the other direction: an eBPF stack is small.
    flow.source = source.address;
    flow.source_port = source.port;
    flow.destination = chosen.backend.address;
    flow.destination_port = backend_port(&admitted.port, segment);
    flow.network = admitted.port.network;
    flow.egress = chosen.backend.egress;
    flow.backend = chosen.slot;
    flow.backend_generation = chosen.backend.generation;
    flow.mac = Mac::default();
    flow.direction = Direction::ToService as u8;
    flow.seen = match segment.transport {
        Transport::Tcp(tcp) => Seen::NONE.after(tcp.flags()).0,
        Transport::Udp(_) => Seen::ACK.0,
    };
    flow.complete(key);

    let inserted = env.insert_flow(Table::Embryonic, key, &flow);
    if inserted.is_err() {
        // Another CPU opened the very same flow in this moment: the client's next packet uses it.
        let reverse = flow.reverse_key(key.protocol);
        env.remove_flow(Table::Embryonic, &reverse);
        let reason = match inserted {
            Err(InsertError::Exists) => DropReason::Inconsistent,
            _ => DropReason::FlowTableFull,
        };
        return Err(Verdict::Drop(reason, link));
    }
    env.count_flow(link);
    env.flow(Table::Embryonic, key)
        .ok_or(Verdict::Drop(DropReason::FlowTableFull, link))
}
