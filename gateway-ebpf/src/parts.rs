//! The parts of a packet's way, as global functions: the verifier looks at each by itself, for
//! whatever it is called with, and not once for each way that leads to each call. They hand nothing
//! on but numbers; what a part needs it reads from the packet.

use core::{hint::black_box, ptr};

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_csum_diff, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use aya_log_ebpf::debug;
use gateway_common::stages::{self, Part, Space};

use crate::{
    environment::Xdp,
    maps::{CHUNK, SCRATCH},
};

/// Runs a part of the way.
#[inline(always)]
pub(crate) fn call(ctx: *mut xdp_md, part: Part, argument: u64) -> u64 {
    // SAFETY: the kernel's context.
    unsafe {
        match part {
            Part::ExpressV4 => express_v4(ctx),
            Part::ExpressV6 => express_v6(ctx),
            Part::WayV4 => way_v4(ctx, argument),
            Part::WayV6 => way_v6(ctx, argument),
            Part::OpenV4 => open_v4(ctx),
            Part::OpenV6 => open_v6(ctx),
            Part::AnswerV4 => answer_v4(ctx, argument),
            Part::AnswerV6 => answer_v6(ctx, argument),
            Part::RelayV4 => relay_v4(ctx),
            Part::RelayV6 => relay_v6(ctx),
            Part::TranslateV4 => translate_v4(ctx),
            Part::Other => other(ctx),
        }
    }
}

/// Defines the function of a part.
macro_rules! part {
    ($function:ident($($argument:ident)?), $part:ident) => {
        /// # Safety
        /// `ctx` is the kernel's context.
        #[unsafe(no_mangle)]
        #[inline(never)]
        unsafe extern "C" fn $function(ctx: *mut xdp_md $(, $argument: u64)?) -> u64 {
            let argument = 0 $(+ $argument)?;
            stages::run(&mut Xdp::new(XdpContext::new(ctx)), Part::$part, argument)
        }
    };
}

// An argument that is not used must not be there: the compiler leaves its register unset, which the
// verifier does not allow.
part!(express_v4(), ExpressV4);
part!(express_v6(), ExpressV6);
part!(way_v4(argument), WayV4);
part!(way_v6(argument), WayV6);
part!(open_v4(), OpenV4);
part!(open_v6(), OpenV6);
part!(answer_v4(argument), AnswerV4);
part!(answer_v6(argument), AnswerV6);
part!(relay_v4(), RelayV4);
part!(relay_v6(), RelayV6);
part!(translate_v4(), TranslateV4);
part!(other(), Other);

/// Logs a packet that was dropped, where the agent wants it. It needs more stack than all the rest
/// of the entry point. The log asks for a context and does not use it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn log_drop(reason: u64, link: u64) -> u64 {
    let ctx = XdpContext::new(ptr::null_mut());
    debug!(&ctx, "drop, reason {} link slot {}", reason, link);
    0
}

/// The same for one that was answered with a refusal.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn log_refusal(reason: u64, link: u64) -> u64 {
    let ctx = XdpContext::new(ptr::null_mut());
    debug!(&ctx, "refused, reason {} link slot {}", reason, link);
    0
}

/// Allocates an identification. No packet is looked at, so there is no context.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn allocate(space: u64, bucket: u64) -> u64 {
    let space = match space {
        0 => Space::FragmentsV4,
        1 => Space::WholeV4,
        _ => Space::FragmentsV6,
    };
    let env = Xdp::new(XdpContext::new(ptr::null_mut()));
    stages::allocate(&env, space, bucket as u32)
}

/// Reads the options of a SYN.
///
/// # Safety
/// `ctx` is the kernel's context.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) unsafe extern "C" fn syn_options(ctx: *mut xdp_md, start: u64, length: u64) -> u64 {
    // No header starts as far back as this.
    let start = (start & 0x3fff) as u16;
    let env = Xdp::new(XdpContext::new(ctx));
    u64::from(stages::syn_options(&env, start, length as u16))
}

/// How many chunks are summed at most: 9 KiB and a little, a jumbo frame.
const CHUNKS: usize = 19;

/// The longest frame.
const LONGEST: usize = 65_535 + 14;

/// What [`frame_sum`] says when there is none: no sum is so large.
pub(crate) const NO_SUM: u64 = u64::MAX;

/// The sum over a stretch of the frame.
///
/// # Safety
/// `ctx` is the kernel's context.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) unsafe extern "C" fn frame_sum(ctx: *mut xdp_md, offset: u64, length: u64) -> u64 {
    let (offset, length) = (offset as usize, length as usize);
    if offset > LONGEST || length > LONGEST {
        return NO_SUM;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return NO_SUM;
    };
    let scratch = scratch.cast::<u8>();
    let mut sum = 0u32;
    let mut done = 0;
    for _ in 0..CHUNKS {
        if done == length {
            return u64::from(sum);
        }
        // The compiler must not see through this: the verifier needs the bounds on the very value
        // that the helper gets, and up to Linux 6.2 learns nothing from a comparison with 0.
        const { assert!(CHUNK.is_power_of_two()) };
        let taken = (black_box((length - done).min(CHUNK) - 1) & (CHUNK - 1)) + 1;
        let padded = (taken + 3) & !3;
        let at = (offset + done) as u32;
        // SAFETY: `taken` is at most `CHUNK` and the scratch buffer is four bytes longer; the
        // helpers check the packet's bounds. The buffer is this CPU's alone.
        let result = unsafe {
            if bpf_xdp_load_bytes(ctx, at, scratch.cast(), taken as u32) != 0 {
                return NO_SUM;
            }
            scratch.add(taken).cast::<[u8; 4]>().write_unaligned([0; 4]);
            bpf_csum_diff(ptr::null_mut(), 0, scratch.cast(), padded as u32, sum)
        };
        if result < 0 {
            return NO_SUM;
        }
        sum = result as u32;
        done += taken;
    }
    if done == length {
        u64::from(sum)
    } else {
        NO_SUM
    }
}
