//! Subprograms as BPF global functions. The verifier checks each once, for any argument, and not once for each path to
//! each call. Subprograms pass only numbers to each other, and read everything else from the packet.

use core::{hint::black_box, ptr};

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_csum_diff, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use gateway_common::{Exit, Subprogram, for_each_subprogram, maps::IdentificationSpace, pipeline};

use crate::{
    context::Xdp,
    maps::{CSUM_BUFFER, CSUM_CHUNK_LEN},
};

/// Expands to the second argument.
macro_rules! second {
    ($first:ident, $second:ident) => {
        $second
    };
}

/// Defines the function of each subprogram, and the function that calls them by name.
macro_rules! define_subprograms {
    ($($(#[$doc:meta])* $variant:ident = $function:ident($($argument:ident: $type:ident)?);)+) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// `ctx` is the kernel's context.
            #[unsafe(no_mangle)]
            #[inline(never)]
            unsafe extern "C" fn $function(ctx: *mut xdp_md $(, $argument: u64)?) -> u64 {
                let argument = 0 $(+ $argument)?;
                let mut env = Xdp::new(XdpContext::new(ctx));
                pipeline::run_subprogram(&mut env, Subprogram::$variant, argument).to_bits()
            }
        )+

        /// Calls a subprogram and returns its exit.
        #[inline(always)]
        pub(crate) fn call_subprogram(
            ctx: *mut xdp_md,
            subprogram: Subprogram,
            argument: u64,
        ) -> Exit {
            // SAFETY: the kernel's context.
            Exit::from_bits(unsafe {
                match subprogram {
                    $(Subprogram::$variant => $function(ctx $(, second!($argument, argument))?),)+
                }
            })
        }
    };
}
for_each_subprogram!(define_subprograms);

/// Allocates an identification. It accesses no packet, so it has no context.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn allocate_identification(space: u64, bucket: u64) -> u64 {
    let space = match space {
        0 => IdentificationSpace::FragmentsV4,
        1 => IdentificationSpace::UnfragmentedV4,
        _ => IdentificationSpace::FragmentsV6,
    };
    let env = Xdp::new(XdpContext::new(ptr::null_mut()));
    pipeline::allocate_identification(&env, space, bucket as u32)
}

/// Reads the TCP options of a SYN.
///
/// # Safety
/// `ctx` is the kernel's context.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) unsafe extern "C" fn parse_syn_options(
    ctx: *mut xdp_md,
    start: u64,
    length: u64,
) -> u64 {
    // No header starts behind this mask.
    let start = (start & 0x3fff) as u16;
    let env = Xdp::new(XdpContext::new(ctx));
    u64::from(pipeline::parse_syn_options(&env, start, length as u16))
}

/// Maximum number of chunks that are summed up: 9 KiB and more, which covers a jumbo frame.
const MAX_CHUNKS: usize = 19;

/// Maximum length of a frame.
const MAX_FRAME_LEN: usize = 65_535 + 14;

/// The result of [`partial_checksum`] if there is no sum. No sum is that large.
pub(crate) const NO_CHECKSUM: u64 = u64::MAX;

/// Returns the one's complement sum over `length` bytes of the frame at `offset`, or [`NO_CHECKSUM`].
///
/// # Safety
/// `ctx` is the kernel's context.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) unsafe extern "C" fn partial_checksum(
    ctx: *mut xdp_md,
    offset: u64,
    length: u64,
) -> u64 {
    let (offset, length) = (offset as usize, length as usize);
    if offset > MAX_FRAME_LEN || length > MAX_FRAME_LEN {
        return NO_CHECKSUM;
    }
    let Some(scratch) = CSUM_BUFFER.get_ptr_mut(0) else {
        return NO_CHECKSUM;
    };
    let scratch = scratch.cast::<u8>();
    let mut sum = 0u32;
    let mut summed = 0;
    for _ in 0..MAX_CHUNKS {
        if summed == length {
            return u64::from(sum);
        }
        // `black_box` keeps the compiler from removing the mask: the verifier needs the bounds on the very value that
        // the helper gets, and up to Linux 6.2 it learns nothing from a comparison with 0.
        const { assert!(CSUM_CHUNK_LEN.is_power_of_two()) };
        let chunk_len =
            (black_box((length - summed).min(CSUM_CHUNK_LEN) - 1) & (CSUM_CHUNK_LEN - 1)) + 1;
        let padded_len = (chunk_len + 3) & !3;
        let at = (offset + summed) as u32;
        // SAFETY: `chunk_len` is at most `CSUM_CHUNK_LEN`, and the scratch buffer is four bytes longer. The helpers
        // check the packet's bounds. The buffer belongs to this CPU alone.
        let result = unsafe {
            if bpf_xdp_load_bytes(ctx, at, scratch.cast(), chunk_len as u32) != 0 {
                return NO_CHECKSUM;
            }
            scratch
                .add(chunk_len)
                .cast::<[u8; 4]>()
                .write_unaligned([0; 4]);
            bpf_csum_diff(ptr::null_mut(), 0, scratch.cast(), padded_len as u32, sum)
        };
        if result < 0 {
            return NO_CHECKSUM;
        }
        sum = result as u32;
        summed += chunk_len;
    }
    if summed == length {
        u64::from(sum)
    } else {
        NO_CHECKSUM
    }
}
