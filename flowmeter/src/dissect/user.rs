//! Which user does a dissector in a child process become?

use std::str::FromStr;

use thiserror::Error;

use crate::users;

/// The user that a child of root becomes. It is read from a name in `/etc/passwd`, or from a number
/// that is the group's too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl User {
    /// `nobody`.
    pub const NOBODY: Self = Self { uid: 65_534, gid: 65_534 };
}

/// Why a text does not name such a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    /// `/etc/passwd` does not have it.
    #[error("there is no such user in /etc/passwd")]
    Unknown,
    /// It is root, of root's group, or no user at all.
    #[error("it must be a user without privileges")]
    Privileged,
}

impl FromStr for User {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let user = if let Ok(number) = text.parse() {
            Self { uid: number, gid: number }
        } else {
            let found = users::find(|user| user.name == text).ok_or(Invalid::Unknown)?;
            Self { uid: found.uid, gid: found.gid }
        };
        if user.uid == 0 || user.gid == 0 || user.uid == u32::MAX {
            return Err(Invalid::Privileged);
        }
        Ok(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_name_or_a_number_but_never_root() {
        assert_eq!("1000".parse(), Ok(User { uid: 1000, gid: 1000 }));
        assert_eq!("root".parse::<User>(), Err(Invalid::Privileged));
        assert_eq!("0".parse::<User>(), Err(Invalid::Privileged));
        assert_eq!("4294967295".parse::<User>(), Err(Invalid::Privileged));
        assert_eq!("no such user".parse::<User>(), Err(Invalid::Unknown));
    }
}
