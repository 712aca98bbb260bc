//! Which programs used a socket while a flow's packets were sent by it?

use std::collections::VecDeque;
use std::sync::Arc;

use flowmeter_common::owner::{BEGUN, OwnerEvent, RECEIVED, SENT};
use flowmeter_common::packet::Address;
use hashbrown::HashSet;

use super::processes::Process;

/// The programs that had a socket, each from when it was first reported after another.
///
/// The kernel reports a use when the program is another than at the use before, so between two of
/// these there is no third.
#[derive(Default)]
pub(super) struct Uses {
    /// In order of time.
    uses: VecDeque<Use>,
    /// Those before the first were forgotten.
    is_cut: bool,
}

struct Use {
    /// When the kernel first reported it; ns.
    time_ns: u64,
    /// When it reported that the program uses it; the same for one that only holds it.
    used_ns: u64,
    how: How,
    /// When it reported that, the socket had a peer, so all that is sent by it is of one flow.
    has_peer: bool,
    process: Arc<Process>,
}

/// What a program did with a socket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    /// Made, bound or connected it, or peeked; that is no use if another program has used it.
    Held,
    Received,
    /// Sent, as told when the packet had left.
    Sent,
    /// Sent, as told before.
    Begun,
}

/// A packet may leave so long before it is told who sent it; ns.
const LAG_NS: u64 = 20_000_000;

/// Uses of one socket in memory: each of its flows may have to look at all of them.
const MOST: usize = 1024;

/// Other users that are named.
const MOST_OTHERS: usize = 8;

/// Who used a socket in a flow.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Users<'a> {
    /// The first, others by name, at most [`MOST_OTHERS`], and how many others there are.
    Known { first: &'a Arc<Process>, others: Vec<&'a Process>, more: usize },
    /// It was used by more programs than are kept.
    Forgotten,
    /// Nothing is known of that time.
    Unknown,
}

impl Uses {
    /// The first program that had it.
    pub(super) fn new(event: &OwnerEvent, process: Arc<Process>) -> Self {
        let mut uses = VecDeque::with_capacity(1);
        uses.push_back(Use::new(event, process));
        Self { uses, is_cut: false }
    }

    /// The program reported last.
    pub(super) fn last(&self) -> Option<&Arc<Process>> {
        self.uses.back().map(|last| &last.process)
    }

    /// Takes in a use; true if there is one more in memory for it.
    pub(super) fn add(&mut self, event: &OwnerEvent, process: Arc<Process>) -> bool {
        let (time_ns, how) = (event.time_ns, How::of(event.kind));
        // Events of several CPUs may change places.
        let at = self.uses.partition_point(|before| before.time_ns <= time_ns);
        if let Some(before) = at.checked_sub(1).and_then(|before| self.uses.get_mut(before))
            && before.process.is(&process)
        {
            // It has had the socket since; what it is called now is what it used it as.
            let how = before.how.max(how);
            if before.how == How::Held && how != How::Held {
                *before = Use { time_ns: before.time_ns, ..Use::new(event, process) };
            }
            before.how = how;
            return false;
        }
        self.uses.insert(at, Use::new(event, process));
        true
    }

    /// Whether there are more than one socket may have.
    pub(super) fn is_full(&self) -> bool {
        self.uses.len() > MOST
    }

    /// Forgets the first use, if there are others.
    pub(super) fn forget_first(&mut self) -> bool {
        if self.uses.len() < 2 {
            return false;
        }
        self.is_cut = true;
        self.uses.pop_front().is_some()
    }

    /// Who used the socket for a flow whose first and last packet were sent by it at `first_ns` and
    /// `last_ns`: who had used it last when the flow began, and who used it until it ended. If nobody
    /// had, who had it in hand.
    pub(super) fn during(&self, first_ns: u64, last_ns: u64) -> Users<'_> {
        let last_ns = last_ns.max(first_ns);
        let begins = self.uses.partition_point(|u| u.time_ns <= first_ns);
        let ends = self.uses.partition_point(|u| u.time_ns <= last_ns);
        let is_use = |u: &&Use| u.how != How::Held;
        let carried = self.uses.range(..begins).rev().find(is_use);
        if carried.is_none() && self.is_cut {
            return Users::Forgotten;
        }
        let mut users: Vec<&Use> = carried.into_iter().collect();
        users.extend(self.uses.range(begins..ends).filter(is_use));
        let soon = last_ns.saturating_add(LAG_NS);
        // Reported after the packet that it sent, which is not from one reported just now.
        let is_old = carried.is_none_or(|before| before.used_ns.saturating_add(LAG_NS) < first_ns);
        let late = self.uses.range(begins..).find(is_use).filter(|next| {
            is_old && next.how == How::Sent && next.time_ns <= first_ns.saturating_add(LAG_NS)
        });
        if let Some(late) = late {
            users.insert(0, late);
        }
        // Reported of after the last packet: it has sent one, and there is none later.
        let after = self.uses.range(ends..).take_while(|next| next.time_ns <= soon);
        users.extend(after.filter(|next| next.how == How::Sent && next.has_peer));
        if users.is_empty() {
            let soon = self
                .uses
                .range(ends..)
                .find(is_use)
                .filter(|next| next.how != How::Begun && next.time_ns <= soon);
            let held = || self.uses.range(..ends).next_back();
            users.extend(soon.or_else(held));
        }
        let Some((first, rest)) = users.split_first() else { return Users::Unknown };
        let mut seen: HashSet<_> = [first.process.id()].into_iter().collect();
        let mut others = Vec::new();
        for other in rest {
            if seen.insert(other.process.id()) && others.len() < MOST_OTHERS {
                others.push(&*other.process);
            }
        }
        Users::Known { first: &first.process, more: seen.len() - 1, others }
    }
}

impl Use {
    fn new(event: &OwnerEvent, process: Arc<Process>) -> Self {
        let OwnerEvent { time_ns, kind, remote, .. } = *event;
        let has_peer = remote != Address::default();
        Self { time_ns, used_ns: time_ns, how: How::of(kind), has_peer, process }
    }
}

impl How {
    fn of(kind: u8) -> Self {
        match kind {
            BEGUN => Self::Begun,
            SENT => Self::Sent,
            RECEIVED => Self::Received,
            _ => Self::Held,
        }
    }
}

#[cfg(test)]
mod tests {
    use flowmeter_common::owner::{CREATED, HELD};

    use super::*;

    const MS: u64 = 1_000_000;

    fn process(pid: u32) -> Arc<Process> {
        Arc::new(Process { pid, start_ticks: 1, name: format!("p{pid}"), reported: None })
    }

    fn uses(told: &[(u64, u8, u32)]) -> Uses {
        let mut uses = Uses::default();
        for (at, kind, pid) in told {
            uses.add(&event(at * MS, *kind), process(*pid));
        }
        uses
    }

    fn event(time_ns: u64, kind: u8) -> OwnerEvent {
        OwnerEvent { time_ns, kind, ..OwnerEvent::default() }
    }

    /// The first user and the others, by pid.
    fn during(uses: &Uses, first: u64, last: u64) -> (u32, Vec<u32>) {
        match uses.during(first * MS, last * MS) {
            Users::Known { first, others, .. } => {
                (first.pid, others.iter().map(|other| other.pid).collect())
            }
            Users::Forgotten | Users::Unknown => (0, Vec::new()),
        }
    }

    #[test]
    fn each_flow_has_the_user_of_its_time() {
        let uses = uses(&[(10, BEGUN, 1), (2000, BEGUN, 2), (4000, BEGUN, 1)]);
        assert_eq!(during(&uses, 11, 500), (1, vec![]), "who came later does not count");
        assert_eq!(during(&uses, 2000, 2000), (2, vec![]));
        assert_eq!(during(&uses, 3000, 3500), (2, vec![]), "it goes on into it");
        assert_eq!(during(&uses, 11, 5000), (1, vec![2]), "each once");
        assert_eq!(during(&uses, 1, 2), (0, vec![]), "before anybody");
    }

    #[test]
    fn who_has_only_held_it_gives_way_to_who_uses_it() {
        let uses = uses(&[(10, CREATED, 1), (20, HELD, 2), (500, RECEIVED, 3)]);
        assert_eq!(during(&uses, 15, 600), (3, vec![]));
        assert_eq!(during(&uses, 15, 30), (2, vec![]), "who held it last");
        assert_eq!(during(&uses, 15, 17), (1, vec![]));
    }

    #[test]
    fn a_sender_that_is_told_of_after_its_packet_is_the_packets() {
        let first = uses(&[(10, CREATED, 1), (1000, SENT, 2)]);
        assert_eq!(during(&first, 999, 999), (2, vec![]), "nobody had used it");
        let second = uses(&[(10, SENT, 1), (1000, SENT, 2)]);
        assert_eq!(during(&second, 999, 999), (2, vec![1]), "either");
        assert_eq!(during(&second, 500, 500), (1, vec![]));
        let received = uses(&[(10, SENT, 1), (1000, RECEIVED, 2)]);
        assert_eq!(during(&received, 999, 999), (1, vec![]), "who receives has sent nothing");
    }

    #[test]
    fn who_was_told_of_just_now_is_not_taken_for_one_of_before() {
        // It made the socket, sent by it, and became another program.
        let became = uses(&[(1000, CREATED, 1), (1010, SENT, 1), (1012, SENT, 2)]);
        assert_eq!(during(&became, 1009, 1020), (1, vec![2]));
        let begun = uses(&[(10, BEGUN, 1), (1000, BEGUN, 2), (1005, SENT, 1)]);
        assert_eq!(during(&begun, 1001, 1001), (2, vec![]));
    }

    #[test]
    fn who_sent_the_last_packet_to_the_only_peer_is_told_of_after_it() {
        let connected = |kind| OwnerEvent { remote: [1, 0], ..event(1000 * MS, kind) };
        let of_two = |second: &OwnerEvent| {
            let mut uses = uses(&[(10, BEGUN, 1)]);
            uses.add(second, process(2));
            during(&uses, 11, 999)
        };
        assert_eq!(of_two(&connected(SENT)), (1, vec![2]));
        assert_eq!(of_two(&event(1000 * MS, SENT)), (1, vec![]), "it may be to another peer");
        assert_eq!(of_two(&connected(BEGUN)), (1, vec![]), "told before the packet");
        let late = OwnerEvent { time_ns: 1100 * MS, ..connected(SENT) };
        assert_eq!(of_two(&late), (1, vec![]), "that was another flow of the same peer");

        // It had peeked before, and others have meanwhile.
        let mut uses = uses(&[(10, BEGUN, 1), (1000, HELD, 2)]);
        uses.add(&event(1001 * MS, RECEIVED), process(3));
        uses.add(&event(1002 * MS, HELD), process(2));
        uses.add(&OwnerEvent { time_ns: 1003 * MS, ..connected(SENT) }, process(2));
        assert_eq!(during(&uses, 11, 999), (1, vec![2]));
    }

    #[test]
    fn events_that_changed_places_are_put_in_order() {
        let uses = uses(&[(10, BEGUN, 1), (30, BEGUN, 3), (20, BEGUN, 2)]);
        assert_eq!(during(&uses, 25, 25), (2, vec![]));
        assert_eq!(during(&uses, 31, 31), (3, vec![]));
    }

    #[test]
    fn what_is_forgotten_is_nobodys() {
        let mut uses = uses(&[(10, BEGUN, 1), (20, BEGUN, 2), (30, BEGUN, 3)]);
        assert!(uses.forget_first());
        assert_eq!(uses.during(15 * MS, 25 * MS), Users::Forgotten, "the first is not known");
        assert_eq!(during(&uses, 25, 25), (2, vec![]));
        assert!(uses.forget_first() && !uses.forget_first(), "one stays");
    }

    #[test]
    fn a_program_that_uses_it_again_takes_no_memory() {
        let mut uses = uses(&[(10, CREATED, 1)]);
        for at in 0..100 {
            assert!(!uses.add(&event((20 + at) * MS, SENT), process(1)));
        }
        assert_eq!(uses.uses.len(), 1);
    }
}
