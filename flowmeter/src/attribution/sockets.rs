//! Which sockets are there, and which process has each?

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Endpoint;

/// A socket that a process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// IP protocol number: TCP or UDP.
    pub protocol: u8,
    /// The own end.
    pub local: Endpoint,
    /// The other end, if the socket is connected.
    pub remote: Option<Endpoint>,
    /// Its process.
    pub process: Process,
}

/// A process: a pid is used again, a pid with its start time is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// When it began, in the kernel's ticks since boot (proc(5), field 22 of `stat`).
    pub start: u64,
    /// Its name.
    pub name: String,
}

/// Looks sockets up, remembering which process has which.
#[derive(Debug, Default)]
pub struct Lookup {
    owners: HashMap<u64, Process>,
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Files of sockets, and their protocols.
const TABLES: [(&str, u8); 4] = [
    ("/proc/self/net/tcp", TCP),
    ("/proc/self/net/tcp6", TCP),
    ("/proc/self/net/udp", UDP),
    ("/proc/self/net/udp6", UDP),
];

impl Lookup {
    /// The sockets of this network namespace that have a process.
    pub fn poll(&mut self) -> Vec<Socket> {
        let mut found = Vec::new();
        for (file, protocol) in TABLES {
            // A kernel without IPv6 has no such file.
            let text = fs::read_to_string(file).unwrap_or_default();
            found.extend(text.lines().skip(1).filter_map(|line| entry(line, protocol)));
        }
        let inodes: HashSet<u64> = found.iter().map(|entry| entry.inode).collect();
        self.owners.retain(|inode, _| inodes.contains(inode));
        if inodes.iter().any(|inode| !self.owners.contains_key(inode)) {
            self.scan(&inodes);
        }
        found
            .into_iter()
            .filter_map(|entry| {
                let process = self.owners.get(&entry.inode)?.clone();
                let (local, remote) = (entry.local, entry.remote);
                Some(Socket { protocol: entry.protocol, local, remote, process })
            })
            .collect()
    }

    /// Goes through the descriptors of all processes for those sockets that have no owner yet. A
    /// process that goes meanwhile is passed over.
    fn scan(&mut self, inodes: &HashSet<u64>) {
        let Ok(processes) = fs::read_dir("/proc") else { return };
        for entry in processes.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
                continue;
            };
            let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
            let mut process = None;
            for descriptor in descriptors.flatten() {
                let Some(inode) = fs::read_link(descriptor.path())
                    .ok()
                    .and_then(|target| socket_inode(target.to_str()?))
                else {
                    continue;
                };
                if !inodes.contains(&inode) || self.owners.contains_key(&inode) {
                    continue;
                }
                let process = process.get_or_insert_with(|| identify(pid));
                if let Some(process) = process {
                    self.owners.insert(inode, process.clone());
                }
            }
        }
    }
}

/// The inode in `socket:[12345]`.
fn socket_inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Name and start time from `/proc/PID/stat`, whose second field may have spaces and brackets.
fn identify(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (open, close) = (stat.find('(')?, stat.rfind(')')?);
    let name = stat.get(open + 1..close)?.to_owned();
    let start = stat.get(close + 2..)?.split(' ').nth(19)?.parse().ok()?;
    Some(Process { pid, start, name })
}

struct Entry {
    protocol: u8,
    local: Endpoint,
    remote: Option<Endpoint>,
    inode: u64,
}

/// A line of `/proc/net/tcp` and its like (proc(5)).
fn entry(line: &str, protocol: u8) -> Option<Entry> {
    let mut words = line.split_ascii_whitespace();
    let local = endpoint(words.nth(1)?)?;
    let remote = endpoint(words.next()?)?;
    let inode: u64 = words.nth(6)?.parse().ok()?;
    let remote = (remote.1 != 0).then_some(remote);
    // A closed connection's socket (TIME-WAIT) has no inode, and no process.
    (inode != 0).then_some(Entry { protocol, local, remote, inode })
}

/// `0100007F:0016`: the address in words of the host's order, the port.
fn endpoint(text: &str) -> Option<Endpoint> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |i: usize| {
        let digits = address.get(i * 8..i * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (i, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(i)?);
            }
            // A dual-stack socket has IPv4 peers as ::ffff:a.b.c.d.
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some((ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let line = "   0: 0100007F:1F90 0200007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0 20 4 30 10 -1";
        let e = entry(line, TCP).expect("the line is sound");
        assert_eq!(e.local, ([127, 0, 0, 1].into(), 8080));
        assert_eq!(e.remote, Some(([127, 0, 0, 2].into(), 50000)));
        assert_eq!(e.inode, 12345);
    }

    #[test]
    fn mapped_addresses_become_ipv4() {
        let mapped = endpoint("0000000000000000FFFF00000100007F:0016");
        assert_eq!(mapped, Some(([127, 0, 0, 1].into(), 22)));
    }

    #[test]
    fn nonsense_is_passed_over() {
        for line in ["", "a b c", "0: 01:1 02:2 01 0 0 0 0 0 0", "0: é0000000:0016 x y z"] {
            assert!(entry(line, TCP).is_none());
        }
    }
}
