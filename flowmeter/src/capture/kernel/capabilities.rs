//! Which capabilities does metering need?

use caps::{CapSet, Capability};
use thiserror::Error;

/// Loading, running the reaper, reading maps and detaching, also where the kernel lets only the
/// privileged use `bpf()` at all; see capabilities(7).
pub const METERING: &[Capability] =
    &[Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

/// Capabilities without which nothing can be metered.
#[derive(Debug, Error)]
#[error(
    "{} missing, needed to load and attach the kernel programs; run as root, or grant what is \
     missing (`AmbientCapabilities=` in a unit, `setcap cap_bpf,cap_net_admin,cap_perfmon=ep`)",
    self.0.join(", ")
)]
pub struct Missing(pub Vec<String>);

/// Fails if capabilities are missing. Whoever tries without them gets the verifier's complaints
/// about programs that are right, or half of what there is to attach.
pub fn check() -> Result<(), Missing> {
    // If they cannot be read, the kernel decides.
    let Ok(has) = caps::read(None, CapSet::Effective) else { return Ok(()) };
    // It stands in for those that were split from it in Linux 5.8.
    let is_admin = has.contains(&Capability::CAP_SYS_ADMIN);
    let is_missing = |wanted: &&Capability| {
        let is_implied = is_admin && **wanted != Capability::CAP_NET_ADMIN;
        !has.contains(*wanted) && !is_implied
    };
    let missing: Vec<String> =
        METERING.iter().filter(is_missing).map(ToString::to_string).collect();
    if missing.is_empty() { Ok(()) } else { Err(Missing(missing)) }
}
