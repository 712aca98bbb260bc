//! The packet parser and the flow update of flowmeter.
//!
//! This crate is compiled twice from the same source: for `bpfel-unknown-none`, into the XDP and
//! tc programs, and for the host, where it meters captures and the packets that the kernel could
//! not keep. Live and offline cannot disagree because there is nothing to disagree with.
//!
//! It is `no_std`, allocates nothing, panics nowhere and holds no `unsafe` of its own (zerocopy's
//! derives assert layouts). Arithmetic is on integers only: means and deviations are userspace's
//! work.
//!
//! Reading order: [`bytes`] → [`packet`] → [`link`] → [`network`] → [`transport`] → [`tunnel`] →
//! [`parse`] give a [`packet::Packet`]; [`fragment`] → [`key`] → [`tcp`] → [`record`] → [`lifetime`]
//! make flows of them; [`event`], [`clock`], [`knobs`], [`globals`] and [`counter`] are what the two
//! halves tell each other.

#![no_std]
#![expect(
    clippy::inline_always,
    reason = "the verifier follows inlined code; across calls it forgets bounds"
)]
#![deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used, clippy::unwrap_used)]

pub mod bytes;
pub mod clock;
pub mod counter;
pub mod event;
pub mod fragment;
pub mod globals;
pub mod key;
pub mod knobs;
pub mod lifetime;
pub mod link;
pub mod network;
pub mod owner;
pub mod packet;
pub mod parse;
pub mod record;
pub mod segment;
pub mod splt;
pub mod tcp;
pub mod transport;
pub mod tunnel;
