//! What is the kernel half set to before it is loaded?

use zerocopy::IntoBytes as _;

use crate::knobs::Knobs;

/// The table of the settings, given to the macro `$each`: documentation, field of [`Globals`], name in
/// the kernel programs, type, and what holds if nothing is set. The programs make a read-only global
/// of each.
#[macro_export]
macro_rules! kernel_settings {
    ($each:ident) => {
        $each! {
            /// See `Knobs::idle_ns`.
            idle_ns, IDLE_NS: u64 = 120_000_000_000;
            /// See `Knobs::active_ns`.
            active_ns, ACTIVE_NS: u64 = 1_800_000_000_000;
            /// See `Knobs::tick_ns`.
            tick_ns, TICK_NS: u64 = 1_000_000;
            /// See `Knobs::accounting`.
            accounting, ACCOUNTING: u32 = 0;
            /// See `Knobs::splt`.
            splt, SPLT_PACKETS: u32 = 0;
            /// See `Knobs::n_dissections`.
            n_dissections, N_DISSECTIONS: u32 = 0;
            /// 1 to forward every packet, each with a [`PacketHead`](crate::event::PacketHead).
            whole, WHOLE: u32 = 0;
            /// 1 for `Knobs::statistics`.
            statistics, STATISTICS: u32 = 0;
            /// 1 for `Knobs::decode_tunnels`.
            decode_tunnels, DECODE_TUNNELS: u32 = 1;
            /// 1 if SPLT slots are in the map that takes memory as flows need it.
            sparse, SPARSE: u32 = 0;
            /// Bytes of a frame that are forwarded to the dissector.
            snapshot, SNAPSHOT: u32 = 4096;
            /// Index of the first interface.
            first_ifindex, FIRST_IFINDEX: u32 = 1;
            /// What the first interface's frames start with, see `next`.
            first_link, FIRST_LINK: u32 = $crate::parse::next::ETHERNET;
            /// 1 if there is more than one interface.
            many, MANY: u32 = 0;
            /// 1 if flows are to know their sockets.
            attribute, ATTRIBUTE: u32 = 0;
            /// The number of the pid namespace that processes' numbers are of; 0 for the first.
            pid_namespace, PID_NAMESPACE: u32 = 0;
        }
    };
}

macro_rules! globals {
    ($($(#[$doc:meta])* $field:ident, $name:ident: $type:ty = $default:expr;)*) => {
        /// The settings of the kernel half, as it reads them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Globals {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl Default for Globals {
            /// What the programs have where nothing is set.
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl Globals {
            /// Each one's name in the programs, and its bytes, for the loader.
            pub fn table(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
                [$((stringify!($name), self.$field.as_bytes()),)*].into_iter()
            }
        }
    };
}

kernel_settings!(globals);

impl From<&Knobs> for Globals {
    /// The meter's options; the rest is as if nothing was set.
    fn from(knobs: &Knobs) -> Self {
        let Knobs {
            idle_ns,
            active_ns,
            accounting,
            tick_ns,
            splt,
            n_dissections,
            statistics,
            decode_tunnels,
        } = *knobs;
        Self {
            idle_ns,
            active_ns,
            accounting: accounting as u32,
            tick_ns,
            splt,
            n_dissections,
            statistics: statistics.into(),
            decode_tunnels: decode_tunnels.into(),
            ..Self::default()
        }
    }
}
