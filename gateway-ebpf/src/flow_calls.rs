//! Functions of the flow tables as BPF global functions. They access no packet, so they have no context.

use core::ptr;

use aya_ebpf::programs::XdpContext;
use gateway_common::{V4, V6, flow::FlowCall, pipeline::run_flow_call};

use crate::context::Xdp;

/// Defines the functions of a family, and the function that calls them by name.
macro_rules! define_flow_calls {
    ($family:ty, $call_flow:ident, {
        $($variant:ident = $function:ident($($argument:ident = $index:literal),*);)+
    }) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $function($($argument: u64),*) -> u64 {
                #[allow(unused_mut, reason = "some functions have no arguments")]
                let mut arguments = [0; 5];
                $(arguments[$index] = $argument;)*
                let mut env = Xdp::new(XdpContext::new(ptr::null_mut()));
                run_flow_call::<$family, Xdp>(&mut env, FlowCall::$variant, arguments)
            }
        )+

        /// Calls a function of the family's flow table.
        #[inline(always)]
        pub(crate) fn $call_flow(call: FlowCall, arguments: [u64; 5]) -> u64 {
            match call {
                $(FlowCall::$variant => $function($(arguments[$index]),*),)+
            }
        }
    };
}
define_flow_calls!(V4, call_v4, {
    Lookup = lookup_entry_v4(word0 = 0, word1 = 1);
    Survey = survey_buckets_v4(word0 = 0, word1 = 1);
    Insert = insert_entry_v4();
    Peer = lookup_peer_v4(entry = 0);
    IsDead = is_flow_dead_v4(entry = 0, grace = 1);
    Close = close_flow_v4(entry = 0);
    Remove = remove_flow_v4(entry = 0);
    SetReturnPath = set_return_path_v4(entry = 0, path = 1);
    Restart = restart_flow_v4(entry = 0, next = 1);
    RecordFin = record_fin_v4(entry = 0, end = 1);
    RecordFinAcked = record_fin_acked_v4(entry = 0);
});
define_flow_calls!(V6, call_v6, {
    Lookup = lookup_entry_v6(word0 = 0, word1 = 1, word2 = 2, word3 = 3, word4 = 4);
    Survey = survey_buckets_v6(word0 = 0, word1 = 1, word2 = 2, word3 = 3, word4 = 4);
    Insert = insert_entry_v6();
    Peer = lookup_peer_v6(entry = 0);
    IsDead = is_flow_dead_v6(entry = 0, grace = 1);
    Close = close_flow_v6(entry = 0);
    Remove = remove_flow_v6(entry = 0);
    SetReturnPath = set_return_path_v6(entry = 0, path = 1);
    Restart = restart_flow_v6(entry = 0, next = 1);
    RecordFin = record_fin_v6(entry = 0, end = 1);
    RecordFinAcked = record_fin_acked_v6(entry = 0);
});
