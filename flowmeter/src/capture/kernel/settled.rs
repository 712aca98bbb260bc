//! How does the kernel learn which flows need no more dissection?
//!
//! From memory that both see. Each flow has a place by its number, and is settled if its number
//! stands there. A later flow may take the place: then packets are forwarded needlessly, no more.

use std::sync::atomic::Ordering;

use aya::Ebpf;
use flowmeter_common::event::{SETTLED_FLOWS, settled_place};

use super::Error;
use super::words::Words;

/// The flows that the dissector is done with, as far as there is room.
#[derive(Debug)]
pub struct SettledFlows(Words);

impl SettledFlows {
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self, Error> {
        Words::of(ebpf, "SETTLED", SETTLED_FLOWS).map(Self)
    }

    /// Notes that the record with this number is settled.
    pub fn add(&self, uid: u64) {
        if let Some(place) = self.0.get(settled_place(uid)) {
            place.store(uid, Ordering::Relaxed);
        }
    }
}
