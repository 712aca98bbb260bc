//! What is the whole name of a process?
//!
//! The kernel cuts names at 15 bytes. `NFStream` has them from psutil, which completes them from the
//! first argument where that begins with what is left.

/// Bytes of a name that the kernel keeps.
const CUT: usize = 15;

/// The name as psutil completes it, from the [`first`] argument; none if that does not begin with it.
pub fn whole(name: &str, first: Option<&str>) -> Option<String> {
    let first = first.filter(|first| name.len() >= CUT && first.len() > name.len())?;
    first.starts_with(name).then(|| first.to_owned())
}

/// The first of the arguments as procfs has them, without folders; none if it is cut itself.
pub fn first(args: &[u8]) -> Option<String> {
    // Whoever writes its own title leaves a single text, which psutil takes apart at its spaces.
    let text = args.strip_suffix(b"\0").unwrap_or(args);
    let is_title = !text.contains(&0);
    let end = args.iter().position(|byte| *byte == 0 || (is_title && *byte == b' '))?;
    let name = args[..end].rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_psutil_does() {
        let cut = "gnome-keyring-d";
        for (name, args, wanted) in [
            (cut, &b"/usr/bin/gnome-keyring-daemon\0--x\0"[..], Some("gnome-keyring-daemon")),
            (cut, b"gnome-keyring-daemon --foreground\0", Some("gnome-keyring-daemon")),
            (cut, b"gnome-keyring-daemon: master", Some("gnome-keyring-daemon:")),
            (cut, b"other\0", None),
            (cut, b"gnome-keyring-d\0", None),
            (cut, b"/usr/bin/gnome-keyring-dae", None),
            (cut, b"", None),
            ("sh", b"/bin/sh-long\0", None),
            // A name that only looks cut.
            ("fifteen-letters", b"/x/y\0fifteen-letters-more\0", None),
        ] {
            let found = whole(name, first(args).as_deref());
            assert_eq!(found.as_deref(), wanted, "{}", String::from_utf8_lossy(args));
        }
    }
}
