//! Entry points of the subprograms. Each parses the packet and runs the stages of its subprogram.

use crate::{
    family::{V4, V6},
    maps::Attachment,
    pipeline::{
        fast_path,
        forward::send::forward_packet,
        icmp_related::relay_icmp_error,
        ingress::{
            attachment::find_attachment,
            ip_packet::IpPacket,
            parse::{Frame, classify_frame, parse_ipv4, parse_ipv6, parse_ipv6_header},
        },
        local::{arp::reply_arp, ndp, priority_tag::remove_priority_tag},
        open::{create::insert_prepared_flow, open_flow},
        reject, slow_path,
    },
    platform::Platform,
    subprogram::{Exit, SlowPathHints, StageResult, Subprogram},
};

/// Defines [`run_subprogram`].
macro_rules! define_run_subprogram {
    ($($(#[$doc:meta])* $variant:ident = $function:ident($($argument:ident: $type:ident)?);)+) => {
        /// Runs a subprogram. The argument is a word of the type that the list of subprograms names.
        #[inline(always)]
        pub fn run_subprogram<E: Platform>(env: &mut E, subprogram: Subprogram, argument: u64) -> Exit {
            match subprogram {
                $(Subprogram::$variant => $function(env $(, $type::from_bits(argument))?),)+
            }
        }
    };
}
crate::for_each_subprogram!(define_run_subprogram);

#[inline(always)]
fn fast_path_v4<E: Platform>(env: &mut E) -> Exit {
    into_exit(fast_path::run::<V4, E>(env))
}

#[inline(always)]
fn fast_path_v6<E: Platform>(env: &mut E) -> Exit {
    into_exit(fast_path::run::<V6, E>(env))
}

#[inline(always)]
fn slow_path_v4<E: Platform>(env: &mut E, hints: SlowPathHints) -> Exit {
    with_ipv4(env, |env, attachment, packet| {
        slow_path::run(env, attachment, packet, hints)
    })
}

#[inline(always)]
fn slow_path_v6<E: Platform>(env: &mut E, hints: SlowPathHints) -> Exit {
    with_ipv6(env, |env, attachment, packet| {
        slow_path::run_v6(env, attachment, packet, hints)
    })
}

#[inline(always)]
fn forward_v4<E: Platform>(env: &mut E, exit: Exit) -> Exit {
    with_ipv4(env, |env, attachment, packet| {
        forward_packet::<V4, V4, E>(env, attachment, packet, exit.flow())
    })
}

#[inline(always)]
fn forward_v6<E: Platform>(env: &mut E, exit: Exit) -> Exit {
    with_ipv6(env, |env, attachment, packet| {
        forward_packet::<V6, V6, E>(env, attachment, packet, exit.flow())
    })
}

#[inline(always)]
fn forward_nat46<E: Platform>(env: &mut E, exit: Exit) -> Exit {
    with_ipv4(env, |env, attachment, packet| {
        forward_packet::<V4, V6, E>(env, attachment, packet, exit.flow())
    })
}

#[inline(always)]
fn insert_flow_v4<E: Platform>(env: &mut E) -> Exit {
    into_exit(insert_prepared_flow::<V4, E>(env))
}

#[inline(always)]
fn insert_flow_v6<E: Platform>(env: &mut E) -> Exit {
    into_exit(insert_prepared_flow::<V6, E>(env))
}

#[inline(always)]
fn open_flow_v4<E: Platform>(env: &mut E) -> Exit {
    with_ipv4(env, open_flow)
}

#[inline(always)]
fn open_flow_v6<E: Platform>(env: &mut E) -> Exit {
    with_ipv6(env, open_flow)
}

#[inline(always)]
fn reject_v4<E: Platform>(env: &mut E, exit: Exit) -> Exit {
    with_ipv4(env, |env, attachment, packet| {
        reject::run(env, attachment, packet, exit)
    })
}

#[inline(always)]
fn reject_v6<E: Platform>(env: &mut E, exit: Exit) -> Exit {
    with_ipv6(env, |env, attachment, packet| {
        reject::run(env, attachment, packet, exit)
    })
}

#[inline(always)]
fn icmp_related_v4<E: Platform>(env: &mut E) -> Exit {
    with_ipv4(env, relay_icmp_error)
}

#[inline(always)]
fn icmp_related_v6<E: Platform>(env: &mut E) -> Exit {
    with_ipv6(env, relay_icmp_error)
}

#[inline(always)]
fn nat46<E: Platform>(env: &mut E) -> Exit {
    with_ipv4(env, slow_path::run_nat46)
}

#[inline(always)]
fn neighbour_discovery<E: Platform>(env: &mut E) -> Exit {
    // The message follows the header, as the slow path has found.
    into_exit(find_attachment(env).and_then(|attachment| {
        let packet = parse_ipv6_header(env, &attachment)?;
        ndp::process_message(env, &attachment, &packet)
    }))
}

#[inline(always)]
fn non_ip<E: Platform>(env: &mut E) -> Exit {
    into_exit(find_attachment(env).and_then(|attachment| {
        match classify_frame(env, &attachment)? {
            Frame::Arp(arp) => reply_arp(env, &attachment, arp),
            Frame::PriorityTagged => remove_priority_tag(env, &attachment),
            // Unreachable: the dispatcher calls other subprograms for IP.
            Frame::Ip => Ok(Exit::PASS),
        }
    }))
}

#[inline(always)]
fn into_exit(result: StageResult<Exit>) -> Exit {
    match result {
        Ok(exit) | Err(exit) => exit,
    }
}

/// Parses an IPv4 packet and runs a stage on it.
#[inline(always)]
fn with_ipv4<E: Platform>(
    env: &mut E,
    stage: impl FnOnce(&mut E, &Attachment, &IpPacket<V4>) -> StageResult<Exit>,
) -> Exit {
    into_exit(find_attachment(env).and_then(|attachment| {
        let packet = parse_ipv4(env, &attachment)?;
        stage(env, &attachment, &packet)
    }))
}

/// Parses an IPv6 packet and runs a stage on it.
#[inline(always)]
fn with_ipv6<E: Platform>(
    env: &mut E,
    stage: impl FnOnce(&mut E, &Attachment, &IpPacket<V6>) -> StageResult<Exit>,
) -> Exit {
    into_exit(find_attachment(env).and_then(|attachment| {
        let packet = parse_ipv6(env, &attachment)?;
        stage(env, &attachment, &packet)
    }))
}
