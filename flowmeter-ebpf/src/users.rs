//! Which program used a socket last?
//!
//! Asked at every send and receive, so it must cost next to nothing. Socket storage would be exact,
//! but costs a connection two allocations. Here a socket may be forgotten, if two others whose
//! cookies end alike were reported since; then it is reported again at its next use.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;

/// Two sockets and their users, the one reported last first.
#[repr(C)]
pub struct Pair([u64; 2]);

/// Cookies are numbers in sequence: sockets that are there together end differently, mostly.
const PAIRS: usize = 1 << PLACE_BITS;

#[btf_map]
pub static USERS: Array<Pair, PAIRS> = Array::new();

/// Bits of a cookie that say where its word may be, and are not in it.
const PLACE_BITS: u32 = 16;
/// Bits of a thread group's number (Linux, `PID_MAX_LIMIT`).
const PID_BITS: u32 = 22;
/// Bits of what tells programs of one number apart.
const MARK_BITS: u32 = 16;

/// A program of a process that uses sockets.
#[derive(Clone, Copy)]
pub struct User(u64);

impl User {
    /// The program of a thread group. Consecutive ones of a process always differ; those of
    /// processes that have got the same number, but for one in 2^15.
    #[inline(always)]
    pub fn new(pid: u32, start_ns: u64, exec_id: u64) -> Self {
        let start = start_ns ^ start_ns >> 15 ^ start_ns >> 30;
        let mark = start.wrapping_add(exec_id) & (Self::HOLDS - 1);
        Self(u64::from(pid) << MARK_BITS | mark)
    }

    /// The same, which has the socket but has not sent or received by it.
    #[inline(always)]
    pub fn holding(self) -> Self {
        Self(self.0 | Self::HOLDS)
    }

    const HOLDS: u64 = 1 << (MARK_BITS - 1);
}

/// Whether the socket's last user, as reported, was this one. A cookie of 0 is that of a socket that
/// was never reported.
#[inline(always)]
pub fn is_last(cookie: u64, user: User) -> bool {
    let Some(pair) = pair(cookie) else { return false };
    let wanted = word(cookie, user);
    // SAFETY: the pointers are to words in the map, aligned. Another CPU may write them meanwhile,
    // each as a whole.
    let [last, before] = unsafe { [pair.read_volatile(), pair.add(1).read_volatile()] };
    cookie != 0 && (last == wanted || before == wanted)
}

/// Notes that the program uses the socket.
#[inline(always)]
pub fn set_last(cookie: u64, user: User) {
    const USER_BITS: u32 = PID_BITS + MARK_BITS;
    let Some(pair) = pair(cookie) else { return };
    // SAFETY: as in `is_last`. What is lost when two CPUs write is told of again.
    unsafe {
        let last = pair.read_volatile();
        // Another user's of the same socket must not come back.
        if last >> USER_BITS != word(cookie, user) >> USER_BITS {
            pair.add(1).write_volatile(last);
        }
        pair.write_volatile(word(cookie, user));
    }
}

/// Socket and user in a word: 2^42 sockets are more than there will be.
#[inline(always)]
fn word(cookie: u64, user: User) -> u64 {
    cookie >> PLACE_BITS << (PID_BITS + MARK_BITS) | user.0
}

/// Where a socket's word may be: the first of two.
#[inline(always)]
fn pair(cookie: u64) -> Option<*mut u64> {
    USERS.get_ptr_mut(cookie as u32 % PAIRS as u32).map(<*mut Pair>::cast)
}
