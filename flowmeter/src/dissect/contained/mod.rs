//! How does a dissector run that may crash, hang or be taken over?
//!
//! In a child process: this program, started again, which gives up every right before the first
//! packet (`sandbox`) and then answers batches from its standard input ([`child`]). The parent
//! keeps the batch until it is answered, kills a child that works on it for too long (`watch`),
//! replaces one that is gone, and knows which flows that one had ([`process`]).

pub mod child;
pub mod process;
mod sandbox;
mod watch;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use sandbox::Landlock;

/// What the child says of itself before the first batch.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Hello {
    magic: u32,
    /// 0: ready. Else the bytes of a message that follows, which says why not.
    error_bytes: u32,
    /// [`Landlock`] as a number.
    landlock: u32,
    reserved: u32,
}

/// Says that it is our child, of the same build.
const MAGIC: u32 = 0x666d_6401;

/// At most this many bytes of the child's message.
const MAX_ERROR: usize = 1024;
