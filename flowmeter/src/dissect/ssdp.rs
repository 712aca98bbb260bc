//! Which host does an SSDP request name?
//!
//! `UPnP` Device Architecture 2.0, section 1.2: HTTP's headers in one datagram. nDPI 5.0 tells their
//! `HOST`, 4.2 does not.

/// The host in a datagram, without its port; none if it is no request, or has none.
pub(super) fn host(payload: &[u8]) -> Option<&str> {
    let is_request =
        payload.starts_with(b"M-SEARCH * HTTP/") || payload.starts_with(b"NOTIFY * HTTP/");
    if !is_request {
        return None;
    }
    let mut lines = payload.split(|&byte| byte == b'\n');
    let host = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(5)?;
        name.eq_ignore_ascii_case(b"host:").then_some(value)
    })?;
    let host = str::from_utf8(host).ok()?.trim();
    // IPv6 addresses have colons of their own, in brackets.
    let end = match host.find(']') {
        Some(bracket) => bracket + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    let host = host.get(..end.min(MAX_HOST))?;
    (!host.is_empty() && host.is_ascii()).then_some(host)
}

/// At most this many bytes of a host's name.
const MAX_HOST: usize = 253;

#[cfg(test)]
mod tests {
    use super::{MAX_HOST, host};

    #[test]
    fn the_host_is_told_without_its_port() {
        let with = |host: &str| format!("M-SEARCH * HTTP/1.1\r\nMX: 3\r\nHost: {host}\r\n\r\n");
        assert_eq!(host(with("239.255.255.250:1900").as_bytes()), Some("239.255.255.250"));
        assert_eq!(host(with("[ff02::c]:1900").as_bytes()), Some("[ff02::c]"));
        assert_eq!(host(with("router").as_bytes()), Some("router"));
        assert_eq!(host(with("").as_bytes()), None);
        assert_eq!(host(b"NOTIFY * HTTP/1.1\r\nHOST:x"), Some("x"));
        let long = with(&"x".repeat(1000));
        assert_eq!(host(long.as_bytes()).map(str::len), Some(MAX_HOST));
        assert_eq!(host(with(&"\u{e9}".repeat(200)).as_bytes()), None);
    }

    #[test]
    fn other_datagrams_name_none() {
        assert_eq!(host(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"), None);
        assert_eq!(host(b"NOTIFY * HTTP/1.1\r\nNT: x\r\n\r\n"), None);
        assert_eq!(host(b"HTTP/1.1 200 OK\r\nHost: x\r\n"), None);
        assert_eq!(host(b"M-SEARCH * HTTP/1.1\r\nHost: \xff\r\n"), None);
    }
}
