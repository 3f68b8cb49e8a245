//! References to places of a flow table in shared memory, which other CPUs read and write as well.

use core::ptr::NonNull;

use bytemuck::Pod;

use crate::{
    atomic,
    byte_order::{Be16, Be32},
    family::Family,
    flow::{
        Bucket, CoarseTime, Control, Flow, FlowEntry, FlowKey, ReturnPath, TcpFlagsSeen, WAYS,
        memory::Place, table::Found,
    },
};

/// A pointer to a bucket of a flow table.
#[derive(Clone, Copy, Debug)]
pub struct BucketPtr<F: Family>(NonNull<Bucket<F>>);

impl<F: Family> BucketPtr<F> {
    /// Wraps a pointer that a map returned.
    ///
    /// # Safety
    /// `bucket` points to an aligned bucket that stays allocated while the pointer is used (in eBPF: until the program
    /// returns), and is written only through [`PlacePtr`]s and [`FlowRef`]s.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn new(bucket: NonNull<Bucket<F>>) -> Self {
        Self(bucket)
    }

    /// Returns a place of the bucket. Only the last bits of `way` count.
    #[inline(always)]
    #[must_use]
    pub fn place(self, way: u32) -> PlacePtr<F> {
        const { assert!(WAYS.is_power_of_two()) };
        let way = (way & (WAYS - 1)) as usize;
        // SAFETY: within the bucket, since the mask bounds the way.
        PlacePtr(unsafe { self.0.cast::<FlowEntry<F>>().add(way) })
    }
}

/// A pointer to a place of a flow table.
#[derive(Clone, Copy, Debug)]
pub struct PlacePtr<F: Family>(NonNull<FlowEntry<F>>);

/// A reference to an entry that a look-up found.
pub type FlowRef<F> = Found<PlacePtr<F>>;

/// Returns a pointer to a field of a place.
macro_rules! field {
    ($place:expr, $($field:tt)+) => {{
        let place: *mut FlowEntry<F> = $place.0.as_ptr();
        // SAFETY: `BucketPtr::new` demands that the place is allocated.
        #[allow(unused_unsafe, reason = "the macro is also used within unsafe blocks")]
        unsafe {
            &raw mut (*place).$($field)+
        }
    }};
}

impl<F: Family> PlacePtr<F> {
    #[inline(always)]
    fn control_ptr(self) -> NonNull<u32> {
        self.0.cast()
    }

    /// Returns the key. Another CPU may be replacing the entry: it is valid only if the control word is the same
    /// before and afterwards.
    #[inline(always)]
    #[must_use]
    pub fn key(self) -> FlowKey<F> {
        // SAFETY: in bounds of an allocated place, of plain old data; volatile, since other CPUs may write it.
        unsafe { field!(self, key).read_volatile() }
    }

    /// Returns the entry. As for [`PlacePtr::key`].
    #[inline(always)]
    #[must_use]
    pub fn flow(self) -> Flow<F> {
        // SAFETY: as for `key`.
        let mut flow = unsafe { field!(self, flow).read_volatile() };
        flow.set_return_path(self.return_path());
        flow
    }

    /// Returns a pointer to the word of the return path.
    #[inline(always)]
    fn return_path_ptr(self) -> NonNull<u64> {
        // SAFETY: a field of an allocated place is not null. The assertions of `Flow` show that it is aligned.
        unsafe { NonNull::new_unchecked(field!(self, flow.egress_and_flags).cast()) }
    }

    /// Returns the return path, whole.
    #[inline(always)]
    pub(crate) fn return_path(self) -> ReturnPath {
        // SAFETY: in bounds of an allocated place, and aligned.
        ReturnPath::from_raw(unsafe { atomic::load_word(self.return_path_ptr()) })
    }

    /// Returns a pointer to the entry.
    #[inline(always)]
    pub(crate) fn flow_ptr(self) -> NonNull<Flow<F>> {
        // SAFETY: a field of an allocated place is not null.
        unsafe { NonNull::new_unchecked(field!(self, flow)) }
    }

    /// Returns a 64-bit word of both addresses in the key, as loaded.
    #[inline(always)]
    fn address_pair(self, index: usize) -> u64 {
        // SAFETY: as for `key`. The addresses begin at the eighth byte of the place, and are read up to their end.
        unsafe { self.0.cast::<u64>().as_ptr().add(1 + index).read_volatile() }
    }
}

impl<F: Family> Place<F> for PlacePtr<F> {
    #[inline(always)]
    fn control(self) -> Control {
        // SAFETY: the first field of an allocated place, which is written only by compare-and-exchange.
        Control::from_bits(unsafe { atomic::load_acquire(self.control_ptr()) })
    }

    #[inline(always)]
    fn control_after(self) -> Control {
        // SAFETY: as for `control`.
        Control::from_bits(unsafe { atomic::load_after(self.control_ptr()) })
    }

    #[inline(always)]
    fn compare_exchange(self, current: Control, new: Control) -> Control {
        // SAFETY: as for `control`.
        Control::from_bits(unsafe {
            atomic::compare_exchange(self.control_ptr(), current.to_bits(), new.to_bits())
        })
    }

    #[inline(always)]
    fn unpin(self) {
        let pin = Control::NEVER_USED.pinned().to_bits();
        // SAFETY: as for `control`. The pin is set, so the subtraction clears it and changes nothing else.
        unsafe { atomic::subtract(self.control_ptr(), pin) }
    }

    #[inline(always)]
    fn matches(self, key: &FlowKey<F>) -> bool {
        // SAFETY: as for `key`.
        (0..F::ADDRESS_WORDS).all(|index| self.address_pair(index) == key.address_pair(index))
            && unsafe {
                field!(self, key.ports).read_volatile() == key.ports
                    && field!(self, key.network_proto).read_volatile() == key.network_proto
            }
    }

    #[inline(always)]
    fn write(self, key: &FlowKey<F>, flow: &Flow<F>) {
        // SAFETY: as for `key`. No other CPU writes it, since the place is reserved.
        unsafe {
            copy_words(key, field!(self, key));
            copy_words(flow, field!(self, flow));
        }
    }

    #[inline(always)]
    fn peer(self) -> u32 {
        // SAFETY: as for `key`.
        unsafe { field!(self, flow.peer).read_volatile() }
    }

    #[inline(always)]
    fn set_peer(self, index: u32) {
        // SAFETY: as for `key`.
        unsafe { field!(self, flow.peer).write_volatile(index) }
    }

    #[inline(always)]
    fn last_seen(self) -> CoarseTime {
        // SAFETY: as for `key`.
        let word = unsafe { field!(self, flow.last_seen_and_scale).read_volatile() };
        CoarseTime(Flow::<F>::last_seen_word(0, CoarseTime(word)))
    }

    #[inline(always)]
    fn is_reverse_of(self, other: Self) -> bool {
        // SAFETY: in bounds of an allocated place. A concurrent replacement gives a wrong answer, which the caller
        // detects by the control words.
        unsafe {
            self.flow_ptr()
                .as_ref()
                .is_reverse_of(&other.0.as_ref().key)
        }
    }
}

/// Copies a value of 32-bit words, without a copy of it on the stack.
///
/// # Safety
/// `to` is in bounds of live memory and aligned. Other CPUs may read it.
#[inline(always)]
unsafe fn copy_words<T: Pod>(from: &T, to: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(4) && align_of::<T>() == 4) };
    let from = core::ptr::from_ref(from).cast::<u32>();
    for word in 0..size_of::<T>() / 4 {
        // SAFETY: the caller's promise. All words of plain old data without padding are initialised.
        unsafe {
            to.cast::<u32>()
                .add(word)
                .write_volatile(from.add(word).read())
        };
    }
}

impl<F: Family> FlowRef<F> {
    /// Returns the entry, for its immutable fields.
    ///
    /// Another CPU may replace the entry while it is used. Whoever acts on it checks [`Found::is_current`] afterwards,
    /// and undoes or drops what was done if the answer is false.
    #[inline(always)]
    #[must_use]
    pub fn entry(&self) -> &Flow<F> {
        // SAFETY: `BucketPtr::new` demands that the place stays allocated. All bytes are valid fields.
        unsafe { self.place.flow_ptr().as_ref() }
    }

    /// Returns the key under which the entry was found.
    #[inline(always)]
    #[must_use]
    pub fn key(&self) -> &FlowKey<F> {
        // SAFETY: as for `entry`.
        unsafe { &self.place.0.as_ref().key }
    }

    /// Returns the TCP flags seen in this direction when the entry was found.
    #[inline(always)]
    #[must_use]
    pub fn flags_seen(&self) -> TcpFlagsSeen {
        self.control.flags_seen()
    }

    /// Records that a packet is forwarded now. Writes only if the coarse time has changed.
    #[inline(always)]
    pub fn touch(&self, now: CoarseTime) {
        let word = field!(self.place, flow.last_seen_and_scale);
        // SAFETY: in bounds of an allocated place; volatile, since other CPUs may write it. All CPUs in a race write
        // the same time. In the successor of a replaced entry the time is true as well.
        unsafe {
            let old = word.read_volatile();
            let new = Flow::<F>::last_seen_word(old, now);
            if old != new {
                word.write_volatile(new);
            }
        }
    }

    /// Records the acknowledgement number and the window of a segment, unless a newer number is recorded already.
    /// `is_first_ack` is true if none was recorded before.
    #[inline(always)]
    pub fn record_ack(&self, acknowledgement: Be32, window: Be16, is_first_ack: bool) {
        let last_ack = field!(self.place, flow.last_ack);
        let last_window = field!(self.place, flow.window);
        let [window, _] = window.get().to_be_bytes();
        // SAFETY: as for `touch`. A lost race leaves an older number, which the next segment updates. So does a write
        // to the successor of a replaced entry, whose own next segment records its number.
        unsafe {
            let advance = acknowledgement
                .get()
                .wrapping_sub(last_ack.read_volatile().get());
            if is_first_ack || (advance != 0 && advance < 1 << 31) {
                last_ack.write_volatile(acknowledgement);
            } else if advance != 0 {
                return;
            }
            if last_window.read_volatile() != window {
                last_window.write_volatile(window);
            }
        }
    }

    /// Returns the newest acknowledgement number of this direction, or what stands for it: see
    /// [`Flow::last_ack`].
    #[inline(always)]
    #[must_use]
    pub fn last_ack(&self) -> Be32 {
        // SAFETY: as for `touch`.
        unsafe { field!(self.place, flow.last_ack).read_volatile() }
    }

    /// Sets the number that [`FlowRef::last_ack`] returns.
    #[inline(always)]
    pub fn set_last_ack(&self, number: Be32) {
        // SAFETY: as for `touch`.
        unsafe { field!(self.place, flow.last_ack).write_volatile(number) }
    }

    /// Returns the neighbour that packets come from or are returned to, whole.
    #[inline(always)]
    #[must_use]
    pub fn return_path(&self) -> ReturnPath {
        self.place.return_path()
    }

    /// Sets the return path. The caller has pinned the entry.
    #[inline(always)]
    pub(crate) fn set_return_path(&self, path: ReturnPath) {
        // SAFETY: in bounds of an allocated place, and aligned.
        unsafe { atomic::store_word(self.place.return_path_ptr(), path.to_raw()) }
    }

    /// Records the window of a segment.
    #[inline(always)]
    pub fn set_window(&self, window: Be16) {
        let [window, _] = window.get().to_be_bytes();
        // SAFETY: as for `touch`.
        unsafe { field!(self.place, flow.window).write_volatile(window) }
    }

    /// Records the window scale of this direction.
    #[inline(always)]
    pub fn set_window_scale(&self, scale: u8) {
        let word = field!(self.place, flow.last_seen_and_scale);
        // SAFETY: as for `touch`.
        unsafe { word.write_volatile(Flow::<F>::scale_word(word.read_volatile(), scale)) }
    }

    /// Returns true if a segment of the other direction with this sequence number is in the window that the sender
    /// of this direction has opened (RFC 9293, section 3.10.7.4; RFC 5961, section 3).
    #[inline(always)]
    #[must_use]
    pub fn is_in_window(&self, sequence: Be32) -> bool {
        // SAFETY: as for `touch`.
        let (window, word) = unsafe {
            (
                field!(self.place, flow.window).read_volatile(),
                field!(self.place, flow.last_seen_and_scale).read_volatile(),
            )
        };
        let size = Flow::<F>::window_len(window, word);
        let distance = sequence.get().wrapping_sub(self.last_ack().get());
        // The number is the end of the other direction's FIN until that is acknowledged: the window lies before it.
        let awaits_fin_ack = self.control.is(crate::flow::PlaceState::FinUnacked);
        distance <= size || (awaits_fin_ack && distance.wrapping_neg() <= size)
    }
}
