//! Opens a flow: both entries are made, the reverse one first, since it reserves the source port.

use crate::{
    Be32, DropReason, Environment, Family, Step, Verdict,
    environment::InsertError,
    flow::{Direction, FlowRef, Seen, Table},
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
pub(super) fn open<F: Family, E: Environment>(
    env: &mut E,
    attachment: &Attachment,
    segment: &Segment<F>,
    admitted: &Admitted,
    chosen: &Chosen<F>,
) -> Step<FlowRef<F>> {
    let link = admitted.address.link;
    let now = env.now().0;
    let key = &segment.key;

    let scratch = F::scratch(env).ok_or(Verdict::Drop(DropReason::FlowTableFull, link))?;
    // SAFETY: the memory is this packet's alone until the verdict, and any bytes are an entry.
    let flow = unsafe { &mut *scratch.as_ptr() };
    flow.source = key.destination;
    flow.destination = key.source;
    flow.source_port = key.destination_port;
    flow.destination_port = key.source_port;
    flow.network = attachment.network;
    flow.egress = attachment.slot;
    flow.backend = 0;
    flow.backend_generation = 0;
    flow.link = link;
    flow.generation = admitted.address.generation;
    flow.mac = Ethernet::at(env, 0).map_or(Mac::default(), Ethernet::source);
    flow.direction = Direction::ToConsumer as u8;
    flow.seen = Seen::NONE.0;
    flow.last_seen = now;
    flow.sequence = Be32::new(0);
    flow.created = now;
    let source = source_nat::reserve(env, attachment, segment, admitted, chosen, flow)?;

    // The same memory serves the other direction.
    flow.source = source.address;
    flow.source_port = source.port;
    flow.destination = chosen.address;
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

    let inserted = F::insert_flow(env, Table::Embryonic, key, flow);
    if inserted.is_err() {
        // Another CPU opened the very same flow in this moment: the client's next packet uses it.
        let reverse = flow.reverse_key(key.protocol);
        F::remove_flow(env, Table::Embryonic, &reverse);
        let reason = match inserted {
            Err(InsertError::Exists) => DropReason::Inconsistent,
            _ => DropReason::FlowTableFull,
        };
        return Err(Verdict::Drop(reason, link));
    }
    env.count_flow(link);
    F::flow(env, Table::Embryonic, key).ok_or(Verdict::Drop(DropReason::FlowTableFull, link))
}
