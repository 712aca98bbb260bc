//! Which users does this host have?
//!
//! By `/etc/passwd` alone, and by our own few lines. `getpwuid_r`, by whatever crate, asks all that
//! `nsswitch.conf` names: a directory service may take minutes to answer, meanwhile flows would wait,
//! and its traffic is metered too. Its libraries would be loaded into a program with rights.

use std::fs;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The name.
    pub name: String,
    /// The user's number.
    pub uid: u32,
    /// The number of the group.
    pub gid: u32,
}

/// The first user of whom `is` says so.
pub fn find(is: impl Fn(&Account) -> bool) -> Option<Account> {
    // Names need not be UTF-8; those that are not are no reason to know none.
    let users = fs::read("/etc/passwd").ok()?;
    String::from_utf8_lossy(&users).lines().filter_map(account).find(is)
}

/// A line, `name:password:uid:gid:…` (passwd(5)).
fn account(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let (name, _) = (fields.next()?.to_owned(), fields.next()?);
    let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Account { name, uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_and_what_is_no_user_is_not() {
        assert_eq!(find(|user| user.name == "root").map(|user| (user.uid, user.gid)), Some((0, 0)));
        assert_eq!(find(|user| user.uid == 0).map(|user| user.name).as_deref(), Some("root"));
        assert_eq!(find(|user| user.uid == u32::MAX - 1), None);
        for line in ["", "+::::::", "# root", "a:x:1", "a:x:-1:2:"] {
            assert_eq!(account(line), None, "{line}");
        }
    }
}
