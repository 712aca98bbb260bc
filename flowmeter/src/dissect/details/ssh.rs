//! How does an SSH peer identify itself?

/// An identification string has at most this many bytes, with its line end (RFC 4253, section 4.2).
const MAX_BANNER: usize = 255;

/// The identification string at the start of a payload, without its line end.
pub(super) fn banner(payload: &[u8]) -> Option<String> {
    if !payload.starts_with(b"SSH-") {
        return None;
    }
    let end = payload.iter().take(MAX_BANNER).position(|&byte| byte == b'\n')?;
    Some(super::text(payload.get(..end)?.trim_ascii_end()))
}

#[cfg(test)]
mod tests {
    use super::banner;

    #[test]
    fn a_banner_ends_with_its_line() {
        let debian = "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3";
        assert_eq!(banner(format!("{debian}\r\nwhat follows").as_bytes()).as_deref(), Some(debian));
        // As some implementations send it.
        assert_eq!(banner(b"SSH-1.99-x\n").as_deref(), Some("SSH-1.99-x"));
    }

    #[test]
    fn what_is_no_line_is_no_banner() {
        assert_eq!(banner(b"SSH-2.0-unended"), None);
        assert_eq!(banner(format!("SSH-{}\r\n", "x".repeat(255)).as_bytes()), None);
        assert_eq!(banner(b"GET / HTTP/1.1\r\n"), None);
    }
}
