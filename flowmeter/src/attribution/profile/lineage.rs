//! Which processes is a process from?

use super::{ProcessKey, Profile};

/// Ancestors that are told.
const MOST: usize = 8;

/// Who made a process, who made that one, and so on; of each the same place in the lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// Thread groups.
    pub pids: Vec<u64>,
    /// Names; empty if unknown.
    pub names: Vec<String>,
    /// Executables' paths; empty if unknown.
    pub executables: Vec<String>,
    /// When they started; ms since the epoch, 0 if unknown.
    pub starts_ms: Vec<u64>,
}

impl Lineage {
    /// Of a process that was made by this one.
    pub fn below(maker: ProcessKey, profile: &Profile, name: Option<&str>) -> Self {
        let above = &profile.lineage;
        let path = profile.executable.path.as_deref();
        Self {
            pids: first(u64::from(maker.pid), &above.pids),
            names: first(name.unwrap_or_default().to_owned(), &above.names),
            executables: first(path.unwrap_or_default().to_owned(), &above.executables),
            starts_ms: first(profile.start_ms.unwrap_or_default(), &above.starts_ms),
        }
    }
}

fn first<T: Clone>(one: T, others: &[T]) -> Vec<T> {
    std::iter::once(one).chain(others.iter().take(MOST - 1).cloned()).collect()
}
