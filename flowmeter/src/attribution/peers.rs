//! Which container is at the other end of an interface?
//!
//! A container's virtual cable ends in its network namespace. That namespace is known by its
//! processes, and those by their cgroups.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flowmeter_common::owner::OwnerEvent;
use procfs::{FromRead as _, ProcessCGroups};

use super::profile::Place;
use super::{Conversation, Hooked, Options, Owners};
use crate::capture::kernel::{Clock, FarEnd};

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
    /// The namespace that was there at the start, by its number, and its sockets.
    sockets: Option<(u64, Hooked)>,
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
    /// Looks what is there now, which takes `CAP_SYS_ADMIN` to know the sockets too.
    pub fn new(ends: impl IntoIterator<Item = FarEnd>, options: Options, clock: Clock) -> Self {
        let known = ends.into_iter().map(|end| {
            let found = find(&end);
            let sockets = found.as_ref().and_then(|(peer, namespace)| {
                let netns = end.namespace_of(namespace.as_fd())?;
                Some((peer.netns, Hooked::elsewhere(options, netns, clock)))
            });
            let peer = found.map(|(peer, _)| Arc::new(peer));
            Known { end, sockets, next: Instant::now() + KEPT, peer }
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

impl Peers {
    /// Takes in what has happened to a socket, wherever that is.
    pub fn hear(&mut self, event: &OwnerEvent) {
        for (_, hooked) in self.known.iter_mut().filter_map(|known| known.sockets.as_mut()) {
            hooked.overhear(event);
        }
    }

    /// Takes in how many events have been lost. See [`Hooked::lost`].
    pub fn lost(&mut self, lost: u64) {
        for (_, hooked) in self.known.iter_mut().filter_map(|known| known.sockets.as_mut()) {
            hooked.lost(lost);
        }
    }

    /// Who had the ends of a flow of an interface, among the processes at its other end.
    pub fn owners(
        &mut self,
        interface: usize,
        conversation: &Conversation,
        first_ns: u64,
        last_ns: u64,
    ) -> Owners {
        let Some(peer) = self.of(interface) else { return Owners::default() };
        match self.known.get_mut(interface).and_then(|known| known.sockets.as_mut()) {
            Some((netns, hooked)) if *netns == peer.netns => {
                let mut owners = hooked.owners_by_address(conversation, first_ns, last_ns);
                for owner in [&mut owners.src, &mut owners.dst].into_iter().flatten() {
                    owner.is_peers = true;
                }
                owners
            }
            _ => Owners::default(),
        }
    }
}

impl Known {
    fn look(&mut self) {
        self.peer = find(&self.end).map(|(peer, _)| Arc::new(peer));
        self.next = Instant::now() + if self.peer.is_some() { KEPT } else { MISSED };
    }
}

/// Looks for the processes of the namespace at the other end; gives that namespace too.
fn find(end: &FarEnd) -> Option<(Peer, File)> {
    let wanted = end.namespace()?;
    let mut others = BTreeSet::new();
    let mut found: Option<(u64, File)> = None;
    let mut places: Vec<Place> = Vec::new();
    for process in fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path()) {
        let namespace = process.join("ns/net");
        // Neither are there folders of processes alone, nor are all to be looked at.
        let Ok(number) = fs::metadata(&namespace).map(|metadata| metadata.ino()) else { continue };
        if others.contains(&number) {
            continue;
        }
        if found.is_none() {
            // The number may be another namespace's by now: the file counts.
            let Ok(file) = File::open(&namespace) else { continue };
            if end.number(file.as_fd()) != Some(wanted) {
                others.insert(number);
                continue;
            }
            found = file.metadata().ok().map(|metadata| (metadata.ino(), file));
        }
        if found.as_ref().is_some_and(|(netns, _)| *netns == number) {
            places.extend(place(&process));
        }
    }
    let (netns, namespace) = found?;
    let one = |what: fn(&Place) -> Option<&str>| {
        let all: BTreeSet<_> = places.iter().filter_map(what).collect();
        if all.len() == 1 { all.first().map(|one| (*one).to_owned()) } else { None }
    };
    let container = one(|place| place.container.as_deref());
    let its = places.iter().find(|place| place.container == container && container.is_some());
    let runtime = its.and_then(|place| place.runtime);
    let pod = one(|place| place.pod.as_deref());
    Some((Peer { netns, runtime, container, pod }, namespace))
}

/// What a process's cgroups say, in the first hierarchy that names a container.
fn place(process: &Path) -> Option<Place> {
    let ProcessCGroups(groups) = ProcessCGroups::from_file(process.join("cgroup")).ok()?;
    let mut places = groups.iter().map(|group| Place::of(&group.pathname));
    places.find(|place| place.container.is_some())
}
