//! What time is it?
//!
//! A meter has one clock, which never steps, and every lifetime is measured by it: live it is the
//! time since boot, sleep included; of a capture it is the time of the packets. What a record holds
//! is the time on the wall, and that is the clock's and an offset. A flow keeps the offset that it
//! began with, so a step of the wall clock neither cuts a flow nor changes how long it took; flows
//! that begin later have the new offset. Of a capture it is 0.

/// Words of the map `CLOCK`, by which kernel and userspace tell each other of time.
pub mod word {
    /// What flows that begin add to the clock, ns: wall clock minus the time since boot. Userspace
    /// writes it.
    pub const WALL_OFFSET: u32 = 0;
    /// The clock when the program `flowmeter_clock` ran last; ns.
    pub const ANSWER: u32 = 1;
    /// How many there are.
    pub const COUNT: usize = 2;
}
