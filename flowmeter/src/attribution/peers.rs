//! Which container is at the other end of an interface?
//!
//! A container's virtual cable ends in its network namespace. That namespace is known by its
//! processes, and those by their cgroups.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use procfs::{FromRead as _, ProcessCGroups};

use super::profile::Place;
use crate::capture::kernel::FarEnd;

/// What is known of the network namespace at the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its number, which `lsns` shows.
    pub netns: u64,
    /// The engine of the container that has it; none if several have.
    pub runtime: Option<&'static str>,
    /// The container's id, likewise.
    pub container: Option<String>,
    /// The uid of the Kubernetes pod, whose containers share it.
    pub pod: Option<String>,
}

/// The namespaces at the other ends of the interfaces.
pub struct Peers {
    /// By the interfaces' numbers.
    known: Vec<Known>,
    /// When something may be looked for again.
    next: Instant,
}

struct Known {
    end: FarEnd,
    /// When it is to be looked for again.
    next: Instant,
    peer: Option<Arc<Peer>>,
}

/// What was found is looked at again after this time: a pod gets further containers.
const KEPT: Duration = Duration::from_secs(10);
/// What was not found is looked for again after this time: the cable is there before the container.
const MISSED: Duration = Duration::from_millis(100);
/// Nothing is looked for in this many times as long as it took to look.
const REST: u32 = 20;

impl Peers {
    /// Looks what is there now.
    pub fn new(ends: impl IntoIterator<Item = FarEnd>) -> Self {
        let known = ends.into_iter().map(|end| {
            let mut known = Known { end, next: Instant::now(), peer: None };
            known.look();
            known
        });
        Self { known: known.collect(), next: Instant::now() }
    }

    /// What is at the other end of an interface, by its number; none if that is no cable, or ends in
    /// a namespace of no process. Looks through all processes now and then, a twentieth of the time at
    /// most.
    pub fn of(&mut self, interface: usize) -> Option<Arc<Peer>> {
        let known = self.known.get_mut(interface)?;
        let now = Instant::now();
        // What there was stays true of the flows of a cable that is gone.
        if now >= known.next && now >= self.next && known.end.is_there() {
            known.look();
            self.next = now + now.elapsed() * (REST + 1);
        }
        known.peer.clone()
    }
}

impl Known {
    fn look(&mut self) {
        self.peer = find(&self.end).map(Arc::new);
        self.next = Instant::now() + if self.peer.is_some() { KEPT } else { MISSED };
    }
}

/// Looks for the processes of the namespace at the other end.
fn find(end: &FarEnd) -> Option<Peer> {
    let wanted = end.namespace()?;
    let mut others = BTreeSet::new();
    let mut netns = None;
    let mut places: Vec<Place> = Vec::new();
    for process in fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path()) {
        let namespace = process.join("ns/net");
        // Neither are there folders of processes alone, nor are all to be looked at.
        let Ok(number) = fs::metadata(&namespace).map(|metadata| metadata.ino()) else { continue };
        if others.contains(&number) {
            continue;
        }
        if netns.is_none() {
            // The number may be another namespace's by now: the file counts.
            let Ok(file) = File::open(&namespace) else { continue };
            if end.number(file.as_fd()) != Some(wanted) {
                others.insert(number);
                continue;
            }
            netns = file.metadata().ok().map(|metadata| metadata.ino());
        }
        if netns == Some(number) {
            places.extend(place(process));
        }
    }
    let netns = netns?;
    let one = |what: fn(&Place) -> Option<&str>| {
        let all: BTreeSet<_> = places.iter().filter_map(what).collect();
        if all.len() == 1 { all.first().map(|one| (*one).to_owned()) } else { None }
    };
    let container = one(|place| place.container.as_deref());
    let its = places.iter().find(|place| place.container == container && container.is_some());
    Some(Peer {
        netns,
        runtime: its.and_then(|place| place.runtime),
        pod: one(|place| place.pod.as_deref()),
        container,
    })
}

/// What a process's cgroups say, in the first hierarchy that names a container.
fn place(process: PathBuf) -> Option<Place> {
    let ProcessCGroups(groups) = ProcessCGroups::from_file(process.join("cgroup")).ok()?;
    let mut places = groups.iter().map(|group| Place::of(&group.pathname));
    places.find(|place| place.container.is_some())
}
