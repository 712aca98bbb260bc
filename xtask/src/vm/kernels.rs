//! Which kernels are tried, and which of Debian's packages holds one?

use std::cmp::Ordering;

use anyhow::{Context as _, Result};

/// A line of kernels that users have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Major and minor version; `x` stands for any, the newest that there is.
    pub name: &'static str,
    /// The suite of Debian that has it.
    pub suite: &'static str,
}

/// From the oldest to the newest.
pub const KNOWN: [Kernel; 4] = [
    // As old as RHEL 9 and Ubuntu 22.04, more or less.
    Kernel { name: "5.10", suite: "bullseye" },
    // Debian 12, Amazon Linux 2023.
    Kernel { name: "6.1", suite: "bookworm" },
    // Debian 13, RHEL 10.
    Kernel { name: "6.12", suite: "trixie" },
    // What is to come.
    Kernel { name: "7.x", suite: "trixie-backports" },
];

/// Those that every change is tried on: the oldest, the most common of the old ones, the newest.
pub const ALWAYS: [&str; 3] = ["5.10", "6.1", "7.x"];

/// The kernels of these names; all if there are none.
pub fn named(names: &[impl AsRef<str>]) -> Result<Vec<Kernel>> {
    if names.is_empty() {
        return Ok(KNOWN.to_vec());
    }
    let known = || KNOWN.map(|kernel| kernel.name).join(", ");
    let find = |name: &str| {
        let found = KNOWN.into_iter().find(|kernel| kernel.name == name);
        found.with_context(|| format!("no kernel `{name}`; there are {}", known()))
    };
    names.iter().map(|name| find(name.as_ref())).collect()
}

/// The name that a kernel of this release has here: `7.x` for `7.3.4+deb13-amd64`. One that is not
/// known is named by its version.
pub fn name_of(release: &str) -> String {
    let known = KNOWN.iter().find(|kernel| release.starts_with(&kernel.before()));
    known.map_or_else(
        || release.split(['.', '-']).take(2).collect::<Vec<_>>().join("."),
        |kernel| kernel.name.to_owned(),
    )
}

/// Names of kernels by their age.
pub fn by_age(a: &str, b: &str) -> Ordering {
    natural(a, b)
}

impl Kernel {
    /// What stands before the rest of the version: `6.1.`, `7.`.
    fn before(&self) -> String {
        format!("{}.", self.name.trim_end_matches(".x"))
    }

    /// The packages of this kernel among these, the newest first; none that is built for clouds,
    /// for real time, or not signed.
    pub fn images<'a>(&self, packages: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        let before = format!("linux-image-{}", self.before());
        let is_plain = |package: &&str| {
            let version =
                package.strip_prefix(&before).and_then(|rest| rest.strip_suffix("-amd64"));
            // `0-46`, `3.4+deb13`, but not `0-46-rt`, `3.4+deb13-cloud`.
            version.is_some_and(|v| v.split('-').all(|part| part.starts_with(is_digit)))
        };
        let mut images: Vec<_> = packages.into_iter().filter(is_plain).collect();
        images.sort_by(|a, b| natural(b, a));
        images
    }
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// Compares runs of digits as numbers, and the rest as it is.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    while !a.is_empty() && !b.is_empty() {
        let (run_a, rest_a) = run(a);
        let (run_b, rest_b) = run(b);
        let order = match (run_a.parse::<u64>(), run_b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => run_a.cmp(run_b),
        };
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    a.len().cmp(&b.len())
}

/// The digits that the text begins with, or what is before the first digit; and the rest.
fn run(text: &str) -> (&str, &str) {
    let of_digits = text.starts_with(is_digit);
    text.split_at(text.find(|c| is_digit(c) != of_digits).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::{KNOWN, name_of, named};

    const PACKAGES: [&str; 12] = [
        "linux-image-6.1-amd64",
        "linux-image-6.1.0-9-amd64",
        "linux-image-6.1.0-56-amd64",
        "linux-image-6.1.0-57-amd64-unsigned",
        "linux-image-6.1.0-57-amd64-dbg",
        "linux-image-6.1.0-57-cloud-amd64",
        "linux-image-6.1.0-57-rt-amd64",
        "linux-image-6.12.118+deb13-amd64",
        "linux-image-7.2.12+deb13-amd64",
        "linux-image-7.3.4+deb13-amd64",
        "linux-image-7.3.4+deb13-cloud-amd64",
        "linux-image-7.3.4+deb13.1-amd64",
    ];

    fn images(name: &str) -> Vec<&'static str> {
        let kernel = named(&[name]).expect("a kernel that is known by this name")[0];
        kernel.images(PACKAGES)
    }

    #[test]
    fn the_newest_plain_package_comes_first() {
        assert_eq!(images("6.1"), ["linux-image-6.1.0-56-amd64", "linux-image-6.1.0-9-amd64"]);
        assert_eq!(images("6.12"), ["linux-image-6.12.118+deb13-amd64"]);
        assert_eq!(
            images("7.x"),
            [
                "linux-image-7.3.4+deb13.1-amd64",
                "linux-image-7.3.4+deb13-amd64",
                "linux-image-7.2.12+deb13-amd64",
            ]
        );
        assert!(images("5.10").is_empty());
    }

    #[test]
    fn a_release_has_a_name() {
        for (release, name) in [
            ("5.10.0-46-amd64", "5.10"),
            ("6.1.0-56-amd64", "6.1"),
            ("6.12.118+deb13-amd64", "6.12"),
            ("7.10.1", "7.x"),
            ("5.15.0-1-generic", "5.15"),
            ("6.19-rc1", "6.19"),
        ] {
            assert_eq!(name_of(release), name);
        }
    }

    #[test]
    fn kernels_are_had_by_name() {
        assert_eq!(named(&["7.x"]).expect("it is known")[0].suite, "trixie-backports");
        assert_eq!(named(&[""; 0]).expect("all are known"), KNOWN);
        assert!(named(&["6.2"]).is_err_and(|e| e.to_string().contains("6.1, 6.12")));
    }
}
