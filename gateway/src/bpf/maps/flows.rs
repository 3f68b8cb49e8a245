//! Records of fragmented datagrams, identifications, and the clock by which flows are stamped.

use aya::maps::MapError;
use gateway_common::{
    Family, V4, V6,
    flow::{CoarseTime, DatagramKey, FragmentRecord},
    maps::IdentificationState,
};

use crate::bpf::{
    flow_tables::FlowTableSet,
    maps::handles::{HashOf, Maps, PodWrapper, ignore_not_found},
};

/// An address family whose fragment records are in [`Maps`].
pub trait HasFragmentRecords: Family {
    /// Returns the family's fragment records.
    fn fragments_mut(maps: &mut Maps) -> &mut FragmentRecords<Self>;
}

/// Fragment records of one address family.
pub struct FragmentRecords<F: Family>(pub(super) HashOf<DatagramKey<F>, FragmentRecord>);

impl HasFragmentRecords for V4 {
    fn fragments_mut(maps: &mut Maps) -> &mut FragmentRecords<Self> {
        &mut maps.fragments_v4
    }
}

impl HasFragmentRecords for V6 {
    fn fragments_mut(maps: &mut Maps) -> &mut FragmentRecords<Self> {
        &mut maps.fragments_v6
    }
}

impl Maps {
    /// Returns the flow tables.
    #[must_use]
    pub const fn flow_tables(&self) -> &FlowTableSet {
        &self.flow_tables
    }

    /// Deletes the records of all fragmented datagrams, so that later fragments match none.
    ///
    /// # Errors
    /// Fails if the kernel refuses a deletion.
    pub fn clear_fragments<F: HasFragmentRecords>(&mut self) -> Result<(), MapError> {
        let FragmentRecords(fragments) = F::fragments_mut(self);
        let keys: Vec<_> = fragments.keys().collect::<Result<_, _>>()?;
        for key in keys {
            ignore_not_found(fragments.remove(&key))?;
        }
        Ok(())
    }

    /// Sets the allocation state of the identifications in a bucket.
    ///
    /// # Errors
    /// Fails if the kernel refuses the write.
    pub fn set_identifications(
        &mut self,
        bucket: u32,
        state: IdentificationState,
    ) -> Result<(), MapError> {
        self.identifications.set(bucket, PodWrapper(state), 0)
    }
}

/// Returns the present time of the clock by which flow entries are stamped.
#[must_use]
pub fn now() -> CoarseTime {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes the struct, which outlives the call. CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let nanoseconds = time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned();
    CoarseTime::from_nanoseconds(nanoseconds)
}
