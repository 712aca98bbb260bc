//! Which addresses are the host's own?

#![allow(unsafe_code)]

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// The addresses of all interfaces of this network namespace; empty if they cannot be had.
pub fn own() -> HashSet<IpAddr> {
    let mut addresses = HashSet::new();
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: `list` is valid for writes.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return addresses;
    }
    let mut entry = list;
    // SAFETY: getifaddrs gave a list that ends with null, and it is not freed before the loop ends.
    while let Some(interface) = unsafe { entry.as_ref() } {
        // SAFETY: the address is null or a socket address of its family.
        addresses.extend(unsafe { address(interface.ifa_addr) });
        entry = interface.ifa_next;
    }
    // SAFETY: `list` came from getifaddrs and is freed once.
    unsafe { libc::freeifaddrs(list) };
    addresses
}

/// # Safety
/// `from` must be null or point to a socket address of the size that its family says.
unsafe fn address(from: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the caller vouches for it.
    let family = i32::from(unsafe { from.as_ref() }?.sa_family);
    match family {
        libc::AF_INET => {
            // SAFETY: the family says that this is a sockaddr_in; the copy need not be aligned.
            let a = unsafe { from.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that this is a sockaddr_in6; the copy need not be aligned.
            let a = unsafe { from.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(a.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::own;

    #[test]
    fn the_loopback_is_ours() {
        assert!(own().contains(&[127, 0, 0, 1].into()));
        assert!(!own().contains(&[192, 0, 2, 1].into()));
    }
}
