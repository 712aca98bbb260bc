//! What can be set, in the kernel and on the host?

use crate::packet::Layer;

/// The meter's options, read one by one where they are used: in the kernel each is a read-only
/// global, set before the programs are loaded, so that the verifier removes what is off.
/// [`Knobs`] says what each means.
pub trait Settings {
    /// See [`Knobs::idle_ns`].
    fn idle_ns(&self) -> u64;
    /// See [`Knobs::active_ns`].
    fn active_ns(&self) -> u64;
    /// See [`Knobs::accounting`].
    fn accounting(&self) -> u32;
    /// See [`Knobs::tick_ns`]. Not 0.
    fn tick_ns(&self) -> u64;
    /// See [`Knobs::splt`].
    fn splt(&self) -> u32;
    /// See [`Knobs::statistics`].
    fn statistics(&self) -> bool;
}

impl Settings for Knobs {
    #[inline]
    fn idle_ns(&self) -> u64 {
        self.idle_ns
    }

    #[inline]
    fn active_ns(&self) -> u64 {
        self.active_ns
    }

    #[inline]
    fn accounting(&self) -> u32 {
        self.accounting as u32
    }

    #[inline]
    fn tick_ns(&self) -> u64 {
        self.tick_ns
    }

    #[inline]
    fn splt(&self) -> u32 {
        self.splt
    }

    #[inline]
    fn statistics(&self) -> bool {
        self.statistics
    }
}

/// The meter's options on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// A flow without a packet for this long has ended; ns, 0 = one flow a packet.
    pub idle_ns: u64,
    /// A flow is cut at this age; ns.
    pub active_ns: u64,
    /// The layer of sizes and of the `bytes` columns.
    pub accounting: Layer,
    /// Length of the unit in which inter-arrival times are counted; ns, not 0. `NFStream`'s is 1 ms.
    pub tick_ns: u64,
    /// Packets of a flow whose direction, size and inter-arrival time are kept; 0 = none.
    pub splt: u32,
    /// First packets of a flow that are dissected; 0 = none.
    pub n_dissections: u32,
    /// Whether the 48 statistics' inputs are kept.
    pub statistics: bool,
    /// Whether UDP tunnels and GRE are looked into.
    pub decode_tunnels: bool,
}

/// One millisecond, in ns.
pub const MILLISECOND: u64 = 1_000_000;

impl Default for Knobs {
    /// `NFStream`'s defaults.
    fn default() -> Self {
        Self {
            idle_ns: 120_000 * MILLISECOND,
            active_ns: 1_800_000 * MILLISECOND,
            accounting: Layer::Link,
            tick_ns: MILLISECOND,
            splt: 0,
            n_dissections: 20,
            statistics: false,
            decode_tunnels: true,
        }
    }
}
