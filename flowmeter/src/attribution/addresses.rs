//! Which addresses are this host's?

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// The addresses of one network namespace's interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    own: HashSet<IpAddr>,
    broadcast: HashSet<IpAddr>,
}

impl Addresses {
    /// Those of the calling thread's network namespace, now.
    pub(super) fn read() -> io::Result<Self> {
        let list = List::get()?;
        let mut addresses = Self::default();
        let mut next = list.0;
        while !next.is_null() {
            // SAFETY: `next` is `list`'s head or an `ifa_next` of it, was compared with null just
            // above, and `list` is freed only after the loop.
            let interface = unsafe { &*next };
            // SAFETY: getifaddrs(3): `ifa_addr` is null or points to a sockaddr of its family.
            addresses.own.extend(unsafe { ip(interface.ifa_addr) });
            if interface.ifa_flags & libc::IFF_BROADCAST as u32 != 0 {
                // SAFETY: getifaddrs(3): under IFF_BROADCAST `ifa_ifu` holds the broadcast
                // address, null or a sockaddr of its family.
                addresses.broadcast.extend(unsafe { ip(interface.ifa_ifu) });
            }
            next = interface.ifa_next;
        }
        Ok(addresses)
    }

    /// For tests: these, and no broadcast addresses.
    #[cfg(test)]
    pub(super) fn of(own: &[IpAddr]) -> Self {
        Self { own: own.iter().copied().collect(), broadcast: HashSet::new() }
    }

    /// Does a packet to or from `ip` have this host at that end?
    pub(super) fn is_own(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.own.contains(&ip)
    }

    /// Does a packet to `ip` reach many hosts, this one perhaps among them?
    pub(super) fn is_group(&self, ip: IpAddr) -> bool {
        ip.is_multicast() || ip == Ipv4Addr::BROADCAST || self.broadcast.contains(&ip)
    }
}

/// What `getifaddrs` allocated.
struct List(*mut libc::ifaddrs);

impl List {
    fn get() -> io::Result<Self> {
        let mut head = ptr::null_mut();
        // SAFETY: `head` is a valid place for one pointer.
        if unsafe { libc::getifaddrs(&raw mut head) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(head))
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: `self.0` is what getifaddrs gave, and only here is it freed.
        unsafe { libc::freeifaddrs(self.0) }
    }
}

/// The address in a sockaddr, unless it is of another family (a link's).
///
/// # Safety
/// `address` is null or points to a sockaddr as large and as aligned as its family demands.
unsafe fn ip(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: not null as of just above, and every sockaddr begins with its family.
    match i32::from(unsafe { (*address).sa_family }) {
        libc::AF_INET => {
            // SAFETY: the caller says that an AF_INET sockaddr is a sockaddr_in; read_unaligned
            // asks for no more than its bytes.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, with a sockaddr_in6.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_loopback_and_not_a_documentation_address() {
        let addresses = Addresses::read().expect("getifaddrs works");
        assert!(addresses.own.contains(&Ipv4Addr::LOCALHOST.into()));
        assert!(addresses.is_own([127, 9, 9, 9].into()), "all of 127/8");
        assert!(!addresses.is_own([192, 0, 2, 1].into()));
        assert!(addresses.is_group([224, 0, 0, 251].into()));
    }
}
