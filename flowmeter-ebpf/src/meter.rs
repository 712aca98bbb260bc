//! What happens to a packet?
//!
//! It is parsed, counted in its flow's record under the record's lock, and passed on. A record
//! whose timeout has passed is handed to userspace first and begun anew; a packet that finds no
//! room is handed to userspace as such. Whatever happens is counted.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_map_update_elem, bpf_ringbuf_output, bpf_spin_lock,
    bpf_spin_unlock,
};
use aya_log_ebpf::debug;
use flowmeter_common::counter::{Counter, Counters};
use flowmeter_common::event::{
    KIND_OVERFLOW, KIND_RECORD, MAX_SNAPSHOT, OverflowEvent, PacketEvent, PacketHead, RecordEvent,
    settled_place,
};
use flowmeter_common::fragment::{self, Datagrams, FragmentKey, Ports};
use flowmeter_common::lifetime;
use flowmeter_common::packet::{FRAGMENT_NONE, Reject};
use flowmeter_common::record::{Record, mark};
use flowmeter_common::segment;
use flowmeter_common::splt::{Added, CHUNK_SLOTS, Slot};

use crate::clock;
use crate::maps::{
    ATTRIBUTE, COUNTERS, FLOWS, FRAGMENTS, Flow, Globals, LIVE, LockedSet, N_DISSECTIONS, PACKETS,
    RECORDS, SETTLED, SNAPSHOT, SPARSE, SPLT, SPLT_SPARSE, Scratch, WHOLE, interface,
};
use crate::packet::{Frame, at_most, opaque};
use crate::parse;

/// How often a packet looks its flow up anew after the record went to somebody else.
const MAX_TRIES: u32 = 4;

/// Meters one packet.
#[inline(always)]
pub fn meter<F: Frame>(frame: &F) -> Option<()> {
    let interface = interface(frame.ifindex())?;
    let scratch = parse::scratch()?;
    scratch.now = clock::now();
    scratch.interface = interface.number;
    scratch.hook = F::HOOK;
    let length = frame.length();

    let verdict = parse::parse(frame, interface.link, length, scratch);
    if let Some(offload) = frame.offload() {
        segment::split(&mut scratch.walk.packet, offload);
    }
    if let Some(tag) = frame.tag() {
        add_tag(scratch, tag);
    }
    if let Err(why) = verdict {
        ignore(scratch, why);
        debug!(
            frame.context(),
            "hook {}: {} bytes ignored, reason {}",
            F::HOOK,
            length,
            why as u32
        );
        return None;
    }
    // What else the scratch says of a flow may be the packet's before, unless this names it.
    let to_do = flowmeter_update();
    if F::HOOK == 1
        && ATTRIBUTE.load() != 0
        && to_do & OWN != 0
        && let Some(cookie) = frame.cookie()
    {
        scratch.cookie = cookie;
        flowmeter_own();
    }
    if to_do & BEGUN != 0 {
        let p = &scratch.walk.packet;
        debug!(
            frame.context(),
            "hook {}: flow {} begun, protocol {}, ports {} to {}",
            F::HOOK,
            scratch.uid,
            p.protocol,
            p.src_port,
            p.dst_port
        );
    }
    if to_do & FORWARD != 0 {
        forward(frame, scratch, length);
    }
    Some(())
}

/// Counts a packet that is not metered.
#[inline(always)]
fn ignore(scratch: &Scratch, why: Reject) -> Option<()> {
    let packets = u64::from(scratch.walk.packet.segments);
    let counters = counters(scratch)?;
    counters.add(Counter::Seen, packets);
    counters.add(Counter::SeenBytes, scratch.walk.packet.link_bytes());
    let index = opaque(Counter::from(why) as u64) as usize;
    // "R8 max value is outside of the allowed memory range": LLVM knows the enum's range, the
    // verifier does not, so the bound is written out on a hidden value.
    if let Some(value) = counters.values.get_mut(index) {
        *value = value.wrapping_add(packets);
    }
    Some(())
}

/// What is to be done with a packet that was counted in its flow, in bits. One that was not has
/// none of them: then `uid` and `effect` in the scratch are another packet's.
///
/// It has begun the flow, which is logged.
const BEGUN: u32 = 1 << 0;
/// The flow wants to know the packet's socket.
const OWN: u32 = 1 << 1;
/// The dissector wants the packet.
const FORWARD: u32 = 1 << 2;

/// Counts the packet in this CPU's scratch in its flow and says what else is [to do](BEGUN) with
/// it. A global function, so that the verifier does not multiply the ways through the parser with
/// the ways through here.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowmeter_update() -> u32 {
    let Some(scratch) = parse::scratch() else {
        return 0;
    };
    count(scratch).unwrap_or(0)
}

#[inline(always)]
fn count(scratch: &mut Scratch) -> Option<u32> {
    let packets = u64::from(scratch.walk.packet.segments);
    let counters = counters(scratch)?;
    counters.add(Counter::Seen, packets);
    counters.add(Counter::SeenBytes, scratch.walk.packet.link_bytes());
    if scratch.walk.packet.fragment != FRAGMENT_NONE && flowmeter_join() == 0 {
        counters.add(Counter::OrphanFragment, packets);
        return None;
    }
    scratch.from_high = u32::from(scratch.key.set(&scratch.walk.packet, scratch.interface as u8));
    if update(scratch) != DONE {
        let counter = if overflow(scratch) { Counter::Overflowed } else { Counter::Lost };
        counters.add(counter, packets);
        return None;
    }
    counters.add(Counter::Metered, packets);
    if scratch.effect.splt.count != 0 {
        flowmeter_write_splt();
    }
    let number = scratch.effect.number;
    let mut to_do = 0;
    if number == 1 {
        to_do |= BEGUN;
    }
    if scratch.effect.wants_socket != 0 {
        to_do |= OWN;
    }
    let wanted = wanted(scratch);
    if wanted == 0 {
        return Some(to_do);
    }
    if WHOLE.load() == 0 && is_settled(scratch.uid) {
        counters.add(Counter::Withheld, wanted.into());
        return Some(to_do);
    }
    Some(to_do | FORWARD)
}

/// How many of the packets that this is on the wire are to be forwarded: those that are among the
/// first of their flow, if not all.
#[inline(always)]
fn wanted(scratch: &Scratch) -> u32 {
    if WHOLE.load() != 0 {
        return scratch.walk.packet.segments;
    }
    let before = scratch.effect.number.saturating_sub(1);
    let left = u64::from(N_DISSECTIONS.load()).saturating_sub(before);
    left.min(scratch.walk.packet.segments.into()) as u32
}

/// Whether the dissector has said that it is done with a flow.
#[inline(always)]
fn is_settled(uid: u64) -> bool {
    // SAFETY: the element is the map's. Userspace writes whole words.
    SETTLED.get_ptr(settled_place(uid)).is_some_and(|place| unsafe { place.read_volatile() } == uid)
}

/// The counters of the packet's interface and direction.
#[inline(always)]
fn counters(scratch: &Scratch) -> Option<&'static mut Counters> {
    // SAFETY: the counters are this CPU's alone.
    COUNTERS.get_ptr_mut(scratch.interface * 2 + scratch.hook).map(|c| unsafe { &mut *c })
}

/// Adds the VLAN tag that the kernel keeps beside the packet: the outermost, with its 4 bytes.
#[inline(always)]
fn add_tag(scratch: &mut Scratch, tag: u16) {
    let p = &mut scratch.walk.packet;
    let id = tag & 0x0fff;
    if id != 0 {
        if p.vlan == 0 {
            p.vlan = id;
        } else {
            p.outer_vlan = id;
        }
    }
    p.sizes[0] += 4;
    if p.segments > 1 {
        p.segment_sizes[0] += 4;
    }
}

/// [`fragment::join`] on the packet in this CPU's scratch: 0 if a later fragment's ports are not
/// known.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowmeter_join() -> u32 {
    let Some(scratch) = parse::scratch() else {
        return 0;
    };
    let (key, p) = (&mut scratch.fragment_key, &mut scratch.walk.packet);
    let is_known = fragment::join(&mut Shared, key, p, scratch.interface as u8, scratch.now);
    u32::from(is_known)
}

/// The datagrams in [`FRAGMENTS`].
struct Shared;

impl Shared {
    #[inline(always)]
    fn set(key: &FragmentKey) -> Option<*mut LockedSet> {
        FRAGMENTS.get_ptr_mut(key.set_number())
    }
}

impl Datagrams for Shared {
    #[inline(always)]
    fn get(&mut self, key: &FragmentKey) -> Option<Ports> {
        let shared = Self::set(key)?;
        // SAFETY: the element is the map's, and it is this program's between lock and unlock.
        unsafe {
            bpf_spin_lock(&raw mut (*shared).lock);
            let ports = (*shared).set.get(key);
            bpf_spin_unlock(&raw mut (*shared).lock);
            ports
        }
    }

    #[inline(always)]
    fn insert(&mut self, key: &FragmentKey, ports: Ports) {
        let Some(shared) = Self::set(key) else { return };
        // SAFETY: the element is the map's, and it is this program's between lock and unlock.
        unsafe {
            bpf_spin_lock(&raw mut (*shared).lock);
            (*shared).set.insert(key, ports);
            bpf_spin_unlock(&raw mut (*shared).lock);
        }
    }
}

/// The packet is counted in its flow.
const DONE: u32 = 0;
/// The flow changed hands meanwhile: look it up anew.
const RETRY: u32 = 1;
/// There is no room for another flow.
const NO_ROOM: u32 = 2;

/// Counts the packet in its flow, which it may begin.
#[inline(always)]
fn update(scratch: &mut Scratch) -> u32 {
    let mut outcome = RETRY;
    for _ in 0..MAX_TRIES {
        outcome = match FLOWS.get_ptr_mut(&scratch.key) {
            // SAFETY: the element is the map's. Read without the lock this is a guess, to be made
            // sure under it. Since a record's last time only grows, "not ended" needs no second
            // look.
            Some(flow) => {
                match lifetime::ended(unsafe { &(*flow).record }, scratch.now, &Globals) {
                    None => add(flow, scratch, 0),
                    Some(_) => flowmeter_expire(),
                }
            }
            None => flowmeter_begin(),
        };
        if outcome != RETRY {
            break;
        }
    }
    outcome
}

/// Begins a flow with the packet in this CPU's scratch.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowmeter_begin() -> u32 {
    let Some(scratch) = parse::scratch() else {
        return NO_ROOM;
    };
    let uid = next_uid(scratch);
    let from_high = scratch.from_high != 0;
    let new = &mut scratch.new;
    new.lock = 0;
    new.state = LIVE;
    new.record.begin(&scratch.key, uid, clock::wall_offset(), &scratch.walk.packet, from_high);
    new.record.add(&scratch.walk.packet, from_high, scratch.now, &Globals, &mut scratch.effect);
    scratch.uid = uid;
    // SAFETY: key and value are of the map's types; `NewFlow` has `Flow`'s layout.
    let failed = unsafe {
        bpf_map_update_elem(
            (&raw const FLOWS).cast_mut().cast(),
            (&raw const scratch.key).cast(),
            (&raw const *new).cast(),
            u64::from(BPF_NOEXIST),
        )
    };
    match failed {
        0 => {
            if let Some(counters) = counters(scratch) {
                counters.add(Counter::FlowsBegun, 1);
            }
            DONE
        }
        EEXIST | EBUSY => RETRY,
        _ => NO_ROOM,
    }
}

const EEXIST: i64 = -17;
const EBUSY: i64 = -16;

/// A number that no other record has: the CPU's and a count on it.
#[inline(always)]
fn next_uid(scratch: &mut Scratch) -> u64 {
    scratch.begun += 1;
    // SAFETY: has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    u64::from(cpu) << 48 | scratch.begun & 0xffff_ffff_ffff
}

/// Counts the packet in the record, if that is still the flow's.
#[inline(always)]
fn add(flow: *mut Flow, scratch: &mut Scratch, marks: u8) -> u32 {
    let mut outcome = RETRY;
    // SAFETY: the element is the map's, and it is this program's between lock and unlock.
    unsafe {
        bpf_spin_lock(&raw mut (*flow).lock);
        let record = &mut (*flow).record;
        if (*flow).state == LIVE && record.key.same(&scratch.key) {
            record.marks |= marks;
            let from_high = scratch.from_high != 0;
            record.add(&scratch.walk.packet, from_high, scratch.now, &Globals, &mut scratch.effect);
            scratch.uid = record.uid;
            outcome = DONE;
        }
        bpf_spin_unlock(&raw mut (*flow).lock);
    }
    outcome
}

/// Hands the ended record of the packet in this CPU's scratch to userspace and begins the next
/// one in its place with this packet. Where the ring is full, the record goes on, marked.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowmeter_expire() -> u32 {
    let Some(scratch) = parse::scratch() else {
        return RETRY;
    };
    let Some(counters) = counters(scratch) else {
        return RETRY;
    };
    let Some(mut entry) = RECORDS.reserve_untyped::<RecordEvent>(0) else {
        counters.add(Counter::ExpiryLate, 1);
        let Some(flow) = FLOWS.get_ptr_mut(&scratch.key) else {
            return RETRY;
        };
        return add(flow, scratch, mark::LATE_EXPIRY);
    };
    let event = entry.as_mut_ptr();
    let Some(flow) = FLOWS.get_ptr_mut(&scratch.key) else {
        entry.discard(u64::from(BPF_RB_NO_WAKEUP));
        return RETRY;
    };
    let (uid, wall_offset) = (next_uid(scratch), clock::wall_offset());
    let from_high = scratch.from_high != 0;
    let mut reason = 0;
    let mut outcome = RETRY;
    // SAFETY: the element is the map's, and it is this program's between lock and unlock; the
    // event is this program's until it is submitted or discarded.
    unsafe {
        bpf_spin_lock(&raw mut (*flow).lock);
        let record = &mut (*flow).record;
        if (*flow).state == LIVE && record.key.same(&scratch.key) {
            if let Some(why) = lifetime::ended(record, scratch.now, &Globals) {
                reason = why as u32;
                copy_record(&raw mut (*event).record, record);
                record.begin(&scratch.key, uid, wall_offset, &scratch.walk.packet, from_high);
            }
            record.add(&scratch.walk.packet, from_high, scratch.now, &Globals, &mut scratch.effect);
            scratch.uid = record.uid;
            outcome = DONE;
        }
        bpf_spin_unlock(&raw mut (*flow).lock);
        if reason == 0 {
            entry.discard(u64::from(BPF_RB_NO_WAKEUP));
        } else {
            (*event).kind = KIND_RECORD;
            (*event).reason = reason;
            entry.submit(u64::from(BPF_RB_NO_WAKEUP));
            counters.add(Counter::RecordsOut, 1);
            counters.add(Counter::FlowsBegun, 1);
        }
    }
    outcome
}

/// Hands the packet to userspace, to be metered there.
#[inline(always)]
fn overflow(scratch: &Scratch) -> bool {
    let Some(mut entry) = RECORDS.reserve_untyped::<OverflowEvent>(0) else {
        return false;
    };
    // SAFETY: the event is this program's until it is submitted; all of it is written.
    unsafe {
        let event = entry.as_mut_ptr();
        (*event).kind = KIND_OVERFLOW;
        (*event).interface = scratch.interface;
        (*event).clock_ns = scratch.now;
        (*event).wall_offset = clock::wall_offset();
        (*event).packet = scratch.walk.packet;
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    true
}

/// Writes the SPLT slots of the packet in this CPU's scratch. They are this packet's alone, so no
/// lock is needed.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowmeter_write_splt() -> u32 {
    let Some(scratch) = parse::scratch() else {
        return 0;
    };
    let Added { index, count, slots: [first, second] } = scratch.effect.splt;
    let mut lost = u32::from(!write_slot(scratch, index, first));
    if count > 1 {
        lost |= u32::from(!write_slot(scratch, index + 1, second));
    }
    if lost != 0 {
        if let Some(counters) = counters(scratch) {
            counters.add(Counter::SpltLost, 1);
        }
        scratch.marks = u32::from(mark::SPLT_LOST);
        flowmeter_mark();
    }
    lost
}

#[inline(always)]
fn write_slot(scratch: &mut Scratch, index: u32, slot: Slot) -> bool {
    let position = index as usize % CHUNK_SLOTS;
    scratch.chunk_key.uid = scratch.uid;
    scratch.chunk_key.chunk = index / CHUNK_SLOTS as u32;
    let chunk = if SPARSE.load() != 0 {
        SPLT_SPARSE.get_ptr_mut(&scratch.chunk_key)
    } else {
        SPLT.get_ptr_mut(&scratch.chunk_key)
    };
    if let Some(chunk) = chunk {
        // SAFETY: the element is the map's; position is below CHUNK_SLOTS.
        unsafe { *(&raw mut (*chunk).slots).cast::<Slot>().add(position) = slot };
        return true;
    }
    // Other slots of a new chunk are zero: not written.
    // SAFETY: position is below CHUNK_SLOTS.
    let place = unsafe { (&raw mut scratch.chunk.slots).cast::<Slot>().add(position) };
    // SAFETY: as above.
    unsafe { *place = slot };
    let inserted = if SPARSE.load() != 0 {
        SPLT_SPARSE.insert(&scratch.chunk_key, &scratch.chunk, u64::from(BPF_NOEXIST))
    } else {
        SPLT.insert(&scratch.chunk_key, &scratch.chunk, u64::from(BPF_NOEXIST))
    };
    // SAFETY: as above.
    unsafe { *place = Slot::default() };
    inserted.is_ok()
}

/// Sets the marks in this CPU's scratch on the record of its packet.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowmeter_mark() -> u32 {
    let Some(scratch) = parse::scratch() else {
        return 0;
    };
    let Some(flow) = FLOWS.get_ptr_mut(&scratch.key) else {
        return 0;
    };
    // SAFETY: the element is the map's, and it is this program's between lock and unlock.
    unsafe {
        bpf_spin_lock(&raw mut (*flow).lock);
        if (*flow).state == LIVE && (*flow).record.uid == scratch.uid {
            (*flow).record.marks |= scratch.marks as u8;
        }
        bpf_spin_unlock(&raw mut (*flow).lock);
    }
    0
}

/// Notes the socket that sent the packet in this CPU's scratch, or that none did, on its record.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowmeter_own() -> u32 {
    let Some(scratch) = parse::scratch() else {
        return 0;
    };
    let Some(flow) = FLOWS.get_ptr_mut(&scratch.key) else {
        return 0;
    };
    // SAFETY: the element is the map's, and it is this program's between lock and unlock.
    unsafe {
        bpf_spin_lock(&raw mut (*flow).lock);
        if (*flow).state == LIVE && (*flow).record.uid == scratch.uid {
            let [forward, backward] = &mut (*flow).record.directions;
            let sender = if scratch.effect.direction == 0 { forward } else { backward };
            if scratch.cookie != 0 {
                sender.cookie = scratch.cookie;
                sender.is_kernels = u8::from(scratch.walk.packet.is_kernels());
            } else if sender.cookie == 0 {
                sender.socketless = 1;
            }
        }
        bpf_spin_unlock(&raw mut (*flow).lock);
    }
    0
}

/// Copies a record, in words: `memcpy` is a loop over bytes here.
///
/// # Safety
/// `to` must be valid for writes.
#[inline(always)]
pub unsafe fn copy_record(to: *mut Record, from: &Record) {
    let (to, from) = (to.cast::<u64>(), (&raw const *from).cast::<u64>());
    for i in 0..size_of::<Record>() / 8 {
        // SAFETY: both are a record long. Volatile, or LLVM makes a memcpy of it.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
    }
}

/// Sends the packet to the dissector, from its innermost IP header on; of a super-packet as many
/// of its first segments as are wanted.
#[inline(always)]
fn forward<F: Frame>(frame: &F, scratch: &mut Scratch, length: u32) -> Option<()> {
    let counters = counters(scratch)?;
    let wanted = wanted(scratch);
    let p = &scratch.walk.packet;
    let offset = u32::from(p.network_offset);
    let there = length.saturating_sub(offset);
    let limit = SNAPSHOT.load().saturating_sub(offset).max(1);
    let extent = segment::extent(p, wanted, limit);
    let n = at_most::<MAX_SNAPSHOT>(extent.bytes.min(there))?;
    let [_, last_ip_bytes, ..] = p.sizes;
    let [_, full_ip_bytes, _, full] = p.segment_sizes;
    scratch.event = PacketEvent {
        uid: scratch.uid,
        time_ns: scratch.effect.time_ns,
        number: scratch.effect.number as u32,
        // What the header states of a single packet may be more than there is.
        ip_bytes: if p.segments > 1 { full_ip_bytes } else { last_ip_bytes.min(there) },
        last_ip_bytes,
        segments: p.segments,
        forwarded: extent.segments as u16,
        captured: n as u16,
        header: full_ip_bytes.saturating_sub(full) as u16,
        limit: limit.min(MAX_SNAPSHOT as u32) as u16,
    };
    let (start, before): (*mut c_void, usize) = if WHOLE.load() != 0 {
        scratch.head = PacketHead { packet: *p, interface: scratch.interface, reserved: 0 };
        ((&raw mut scratch.head).cast(), size_of::<PacketHead>() + size_of::<PacketEvent>())
    } else {
        ((&raw mut scratch.event).cast(), size_of::<PacketEvent>())
    };
    // SAFETY: n is within 1 and MAX_SNAPSHOT; `bytes` stands right behind `event`, and that behind
    // `head`; all are in one map value, so the ring takes them in one piece.
    let sent = unsafe {
        frame.copy(offset, scratch.bytes.as_mut_ptr(), n)
            && bpf_ringbuf_output(
                (&raw const PACKETS).cast_mut().cast(),
                start,
                u64::from(n) + before as u64,
                u64::from(BPF_RB_NO_WAKEUP),
            ) == 0
    };
    if sent {
        counters.add(Counter::Forwarded, extent.segments.into());
        counters.add(Counter::Withheld, wanted.saturating_sub(extent.segments).into());
    } else {
        counters.add(Counter::DissectionLost, wanted.into());
        scratch.marks = u32::from(mark::DISSECTION_LOST);
        flowmeter_mark();
    }
    Some(())
}
