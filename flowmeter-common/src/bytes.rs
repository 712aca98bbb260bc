//! How are the bytes of a packet read?

/// The deepest byte of a frame that the parser looks at. Headers beyond it are
/// [`Reject::TooDeep`](crate::packet::Reject::TooDeep).
///
/// Real stacks stay far below: Ethernet, two tags, IPv6 with options, UDP, GTP-U, IPv4 and TCP
/// with options are under 300 bytes. The kernel copies this much for frames that are off the
/// fast path.
pub const MAX_HEADERS: usize = 512;

/// Random access to the bytes of one frame.
///
/// `read` copies out `N` bytes at `offset`, or says that they are not there. There are no packet
/// slices, because the BPF verifier cannot follow them.
pub trait PacketBytes {
    /// The `N` bytes at `offset`, if all of them are available.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
}

/// A frame in host memory, seen as the kernel sees it: up to [`MAX_HEADERS`] bytes.
#[derive(Clone, Copy, Debug)]
pub struct HostBytes<'a>(&'a [u8]);

impl<'a> HostBytes<'a> {
    /// Wraps the captured bytes of a frame.
    #[inline]
    pub fn new(frame: &'a [u8]) -> Self {
        Self(frame.get(..MAX_HEADERS).unwrap_or(frame))
    }
}

impl PacketBytes for HostBytes<'_> {
    #[inline]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.0.get(offset as usize..)?.first_chunk::<N>().copied()
    }
}
