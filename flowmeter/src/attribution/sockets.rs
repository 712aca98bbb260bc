//! Which TCP and UDP sockets does a network namespace have?

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::{End, Error};

/// IP's number for TCP.
pub(super) const TCP: u8 = 6;
/// IP's number for UDP.
pub(super) const UDP: u8 = 17;

/// What a packet must match to be a socket's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub protocol: u8,
    /// The bound address, unspecified if to all, and port.
    pub local: End,
    /// The peer. `None` if the socket takes any: a TCP listener, an unconnected UDP socket.
    pub remote: Option<End>,
}

/// One socket as procfs lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Socket {
    pub key: Key,
    /// Never 0. One inode is one socket, whatever it is bound or connected to over its life.
    pub inode: u64,
}

/// What was read in one go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub sockets: Vec<Socket>,
    /// Lines that made no sense.
    pub malformed: u64,
    /// Sockets left out because `limit` had been reached.
    pub beyond_limit: u64,
}

impl Listing {
    /// Reads `tcp`, `tcp6`, `udp` and `udp6` in `net`, a directory like `/proc/thread-self/net`;
    /// without IPv6 in the kernel the latter of each do not exist, which is no error.
    ///
    /// The kernel gives no snapshot: a socket may be missing, or listed twice, when others come
    /// and go meanwhile.
    pub(super) fn read(net: &Path, limit: usize) -> Result<Self, Error> {
        let mut listing = Self::default();
        for (file, protocol) in [("tcp", TCP), ("tcp6", TCP), ("udp", UDP), ("udp6", UDP)] {
            let path = net.join(file);
            let result = File::open(&path).and_then(|file| {
                listing.add(BufReader::with_capacity(1 << 16, file), protocol, limit)
            });
            match result {
                Ok(()) => {}
                Err(e) if file.ends_with('6') && e.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Read { path, source }),
            }
        }
        Ok(listing)
    }

    fn add(&mut self, mut text: impl BufRead, protocol: u8, limit: usize) -> io::Result<()> {
        let mut line = Vec::with_capacity(256);
        let mut heading = true;
        loop {
            line.clear();
            if text.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if heading {
                heading = false;
                continue;
            }
            match parse(&line, protocol) {
                Some(Socket { inode: 0, .. }) => {}
                Some(_) if self.sockets.len() >= limit => self.beyond_limit += 1,
                Some(socket) => self.sockets.push(socket),
                None => self.malformed += 1,
            }
        }
    }
}

/// A line of `/proc/net/{tcp,udp}{,6}`. The inode is 0 for what no process holds: TIME-WAIT,
/// connections not yet accepted, and those that outlive their process to send its last bytes.
///
/// Not by the procfs crate, though it takes no longer: it gives a whole file, however many sockets
/// that has, in memory, or nothing if a line displeases it.
fn parse(line: &[u8], protocol: u8) -> Option<Socket> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace().skip(1);
    let local = end(words.next()?)?;
    let remote = end(words.next()?)?;
    // After the state: queues, timer, retransmissions, uid, probes.
    let inode = words.nth(6)?.parse().ok()?;
    Some(Socket { key: Key { protocol, local, remote: (remote.1 != 0).then_some(remote) }, inode })
}

/// `0100007F:0035`: words in the host's byte order of an address in the network's, and a port.
fn end(text: &str) -> Option<End> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |i: usize| {
        let digits = ip.get(8 * i..8 * i + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (i, place) in bytes.chunks_exact_mut(4).enumerate() {
                place.copy_from_slice(&word(i)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    // A dual-stack socket talks IPv4 as ::ffff:a.b.c.d; its packets say a.b.c.d.
    Some((ip.to_canonical(), port))
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    const TCP4: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 20112 1 ffff8f0c8abc0000 100 0 0 10 5
   1: 0F02000A:D431 2203A8C0:01BB 01 00000000:00000000 02:0000021A 00000000  1000        0 41123 2 ffff8f0c8abd0000 22 4 30 10 -1
   2: 0F02000A:D432 2203A8C0:01BB 06 00000000:00000000 03:00000FA0 00000000     0        0 0 3 ffff8f0c8abe0000
   3: 0F02000A:zzzz 2203A8C0:01BB 01 00000000:00000000 02:0000021A 00000000  1000        0 41124
   4: 0F02000A
";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 1 ffff8f0c8abc0000 100 0 0 10 0
   1: 0000000000000000FFFF00000F02000A:0016 0000000000000000FFFF00000102000A:C001 01 00000000:00000000 02:0000021A 00000000     0        0 778 2 ffff8f0c8abd0000 22 4 30 10 -1
   2: B80D0120000000000000000001000000:0016 B80D0120000000000000000002000000:C002 01 00000000:00000000 02:0000021A 00000000     0        0 779 2 ffff8f0c8abd0000 22 4 30 10 -1
";

    fn read(text: &str, limit: usize) -> Listing {
        let mut listing = Listing::default();
        listing.add(text.as_bytes(), TCP, limit).expect("memory can be read");
        listing
    }

    fn socket(local: &str, remote: Option<&str>, inode: u64) -> Socket {
        let end = |text: &str| {
            let end: std::net::SocketAddr = text.parse().expect("an address");
            (end.ip(), end.port())
        };
        Socket { key: Key { protocol: TCP, local: end(local), remote: remote.map(end) }, inode }
    }

    #[test]
    fn listens_connects_waits_and_nonsense() {
        let expected = Listing {
            sockets: vec![
                socket("127.0.0.1:53", None, 20112),
                socket("10.0.2.15:54321", Some("192.168.3.34:443"), 41123),
            ],
            malformed: 2,
            beyond_limit: 0,
        };
        assert_eq!(read(TCP4, 10), expected);
    }

    #[test]
    fn mapped_addresses_become_ipv4() {
        let expected = [
            socket("[::]:22", None, 777),
            socket("10.0.2.15:22", Some("10.0.2.1:49153"), 778),
            socket("[2001:db8::1]:22", Some("[2001:db8::2]:49154"), 779),
        ];
        assert_eq!(read(TCP6, 10).sockets, expected);
    }

    #[test]
    fn sockets_beyond_the_limit_are_counted() {
        let listing = read(TCP6, 1);
        assert_eq!((listing.sockets.len(), listing.beyond_limit), (1, 2));
    }
}
