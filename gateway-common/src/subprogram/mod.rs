//! Subprograms: the parts of the data path that the verifier checks one by one (BPF global functions).
//!
//! Inlined into one program, the stages would be verified once for each path that leads to them. A global function
//! is verified once, for any argument. In return, it knows nothing that its caller has checked.
//!
//! ```text
//!                      argument (one word)
//!   dispatcher ─────────────────────────────► subprogram: parses the packet, runs stages
//!       ▲                                          │
//!       └──────────────────────────────────────────┘
//!                      Exit (one word): a verdict, or what runs next
//! ```
//!
//! # Invariants
//!
//! - A subprogram hands nothing to the next one but a word. Everything else is in the packet and in the maps, of which
//!   the packet's own memory holds the flow that was prepared.
//! - Each subprogram parses the packet for itself.
//! - A subprogram that exits towards another one has not changed the packet, except that a priority tag may be removed
//!   before anything else is done.

mod exit;
mod hints;

pub use exit::{Exit, ExitKind, Next, StageResult};
pub use hints::SlowPathHints;

/// Calls the macro `$callback` with the list of subprograms. Everything about them is generated from that list: the
/// enum, the entry points and the functions of the XDP program.
///
/// A row has the variant, the function, and the argument with its type. A subprogram that uses no argument must
/// not have one: the compiler would leave the argument's register unset, which the verifier rejects.
#[macro_export]
macro_rules! for_each_subprogram {
    ($callback:ident) => {
        $callback! {
            /// Forwards IPv4 packets of established flows that need no special handling.
            FastPathV4 = fast_path_v4();
            /// Forwards IPv6 packets of established flows that need no special handling.
            FastPathV6 = fast_path_v6();
            /// Processes any other IPv4 packet: replies for local addresses, looks up the flow and updates its state.
            SlowPathV4 = slow_path_v4(hints: SlowPathHints);
            /// Processes any other IPv6 packet: replies for local addresses, looks up the flow and updates its state.
            SlowPathV6 = slow_path_v6(hints: SlowPathHints);
            /// Forwards an IPv4 packet by its flow.
            ForwardV4 = forward_v4(exit: Exit);
            /// Forwards an IPv6 packet by its flow.
            ForwardV6 = forward_v6(exit: Exit);
            /// Forwards an IPv4 packet by a flow whose other side is IPv6.
            ForwardNat46 = forward_nat46(exit: Exit);
            /// Admits an IPv4 packet that matches no flow, and prepares a flow for it.
            OpenFlowV4 = open_flow_v4();
            /// Admits an IPv6 packet that matches no flow, and prepares a flow for it.
            OpenFlowV6 = open_flow_v6();
            /// Inserts the flow that was prepared into the table of IPv4.
            InsertFlowV4 = insert_flow_v4();
            /// Inserts the flow that was prepared into the table of IPv6.
            InsertFlowV6 = insert_flow_v6();
            /// Answers an IPv4 packet with a TCP reset or an ICMP error.
            RejectV4 = reject_v4(exit: Exit);
            /// Answers an IPv6 packet with a TCP reset or an ICMP error.
            RejectV6 = reject_v6(exit: Exit);
            /// Forwards an ICMP error to the sender of the embedded packet.
            IcmpRelatedV4 = icmp_related_v4();
            /// Forwards an ICMPv6 error to the sender of the embedded packet.
            IcmpRelatedV6 = icmp_related_v6();
            /// Looks up the flow of an IPv4 packet whose other side is IPv6.
            Nat46 = nat46();
            /// Processes neighbour discovery messages: solicitations and advertisements.
            NeighbourDiscovery = neighbour_discovery();
            /// Processes frames that carry neither IPv4 nor IPv6, and removes priority tags.
            NonIp = non_ip();
        }
    };
}

macro_rules! define_subprogram {
    ($($(#[$doc:meta])* $variant:ident = $function:ident($($argument:ident: $type:ident)?);)+) => {
        /// A subprogram of the data path.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Subprogram {
            $($(#[$doc])* $variant,)+
        }
    };
}
for_each_subprogram!(define_subprogram);
