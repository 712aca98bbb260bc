//! How are ended flows taken out of the map, when a packet may come at any moment?
//!
//! `LOOKUP_AND_DELETE` loses a packet in a few thousand deletions: it comes between copy and
//! deletion. Here the record is taken under its lock and marked as gone, so that a packet that
//! still holds the element looks its flow up anew.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::{bpf_spin_lock, bpf_spin_unlock};
use aya_ebpf::programs::XdpContext;
use flowmeter_common::bytes::PacketBytes;
use flowmeter_common::event::{KIND_RECORD, MAX_REAP, RecordEvent};
use flowmeter_common::key::FlowKey;
use flowmeter_common::lifetime::{self, EndReason};

use crate::maps::{FLOWS, GONE, Globals, LIVE, REAPING, RECORDS, Scratch};
use crate::meter::copy_record;
use crate::packet::opaque;

#[inline(always)]
fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: it is this CPU's, and the reaper's alone, of which userspace runs one at a time.
    REAPING.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}

/// Reaps the flows that the "packet", a [`ReapRequest`](flowmeter_common::event::ReapRequest) and
/// keys, names. Returns how many keys are dealt with: fewer than asked if the ring is full.
#[inline(always)]
pub fn reap(ctx: &XdpContext) -> Option<u32> {
    let scratch = scratch()?;
    let request = Keys { data: ctx.data(), end: ctx.data_end() };
    let head = request.read::<16>(0)?;
    let [n0, n1, n2, n3, n4, n5, n6, n7, f0, f1, f2, f3, c0, c1, c2, c3] = head;
    scratch.now = u64::from_ne_bytes([n0, n1, n2, n3, n4, n5, n6, n7]);
    scratch.force = u32::from_ne_bytes([f0, f1, f2, f3]);
    let count = u32::from_ne_bytes([c0, c1, c2, c3]);
    let mut done = 0;
    for i in 0..MAX_REAP as u32 {
        if i >= count {
            break;
        }
        let key = request.read::<{ size_of::<FlowKey>() }>(16 + i * size_of::<FlowKey>() as u32)?;
        // SAFETY: a key is plain data of that size.
        scratch.key = unsafe { core::mem::transmute::<[u8; 48], FlowKey>(key) };
        if flowmeter_reap_one() == RING_FULL {
            break;
        }
        done = i + 1;
    }
    Some(done)
}

const RING_FULL: u32 = 1;

/// Reaps the flow whose key is in this CPU's scratch, if it has ended or must. A global function,
/// so that the verifier looks at it once and not once a key.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flowmeter_reap_one() -> u32 {
    let Some(scratch) = scratch() else {
        return RING_FULL;
    };
    let Some(mut entry) = RECORDS.reserve_untyped::<RecordEvent>(0) else {
        return RING_FULL;
    };
    let event = entry.as_mut_ptr();
    let mut reason = 0;
    if let Some(flow) = FLOWS.get_ptr_mut(&scratch.key) {
        // SAFETY: the element is the map's, and it is this program's between lock and unlock;
        // the event is this program's until it is submitted or discarded.
        unsafe {
            bpf_spin_lock(&raw mut (*flow).lock);
            if (*flow).state == LIVE && (*flow).record.key.same(&scratch.key) {
                // A flow past its active timeout ends with its next packet, or becomes idle.
                if lifetime::is_idle(&(*flow).record, scratch.now, &Globals) {
                    reason = EndReason::Idle as u32;
                } else if scratch.force != 0 {
                    reason = EndReason::Forced as u32;
                }
                if reason != 0 {
                    (*flow).state = GONE;
                }
            }
            bpf_spin_unlock(&raw mut (*flow).lock);
            if reason != 0 {
                // The record is nobody else's any more.
                copy_record(&raw mut (*event).record, &(*flow).record);
            }
        }
    }
    if reason == 0 {
        entry.discard(u64::from(BPF_RB_NO_WAKEUP));
        return 0;
    }
    // SAFETY: the event is this program's until it is submitted.
    unsafe {
        (*event).kind = KIND_RECORD;
        (*event).reason = reason;
    }
    let _ = FLOWS.remove(&scratch.key);
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    0
}

/// The request's bytes, which are more than a packet's headers.
struct Keys {
    data: usize,
    end: usize,
}

impl PacketBytes for Keys {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let offset = opaque(u64::from(offset)) as usize;
        if offset > 4096 {
            return None;
        }
        let past = opaque((self.data + offset + N) as u64) as usize;
        if past > self.end {
            return None;
        }
        // SAFETY: [past - N, past) was compared with data_end above.
        Some(unsafe { core::ptr::read_unaligned((past - N) as *const [u8; N]) })
    }
}
