//! How are the figures listed?

use std::fmt::Write as _;

use super::figures::{FIGURES, Group, Kind, Unit};

/// The groups, with what stands above each.
const GROUPS: [(Group, &str); 7] = [
    (Group::Run, "The report"),
    (Group::Outputs, "`outputs`: for each output, by `name`"),
    (
        Group::Sockets,
        "`sockets`: as the kernel reports them; null with `--system-visibility-mode 0`",
    ),
    (
        Group::Procfs,
        "`procfs`: polling, for sockets that were already open; null with `--system-visibility-mode 0`",
    ),
    (Group::Processes, "`processes`; null with `--system-visibility-mode 0`"),
    (Group::Interfaces, "`interfaces`: for each, by `name` and `hooks`; null once it is gone"),
    (Group::Directions, "`ingress` and `egress` of an interface"),
];

/// What `docs/meter.md` begins with.
const HEAD: &str = include_str!("meter.md");

/// The figures as `docs/meter.md`.
pub fn markdown() -> String {
    let mut out = HEAD.to_owned();
    for (group, title) in GROUPS {
        put(
            &mut out,
            format_args!(
                "\n## {title}\n\n| member | in | kind | unit | meaning |\n|---|---|---|---|---|\n"
            ),
        );
        for figure in FIGURES.iter().filter(|figure| figure.group() == group) {
            let kind = match figure.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let unit = match figure.unit {
                Unit::Number => "",
                Unit::Bytes => "bytes",
                Unit::Ns => "ns",
                Unit::Ms => "ms",
            };
            let (name, runs, help) = (figure.name, figure.runs(), figure.help);
            put(&mut out, format_args!("| `{name}` | {runs} | {kind} | {unit} | {help} |\n"));
        }
    }
    out
}

fn put(out: &mut String, text: std::fmt::Arguments) {
    out.write_fmt(text).expect("memory takes every write");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn docs_are_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/meter.md");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, markdown()).expect("docs/ can be written");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == markdown(),
            "docs/meter.md differs from the figures; UPDATE_EXPECT=1 rewrites it"
        );
    }

    #[test]
    fn names_are_unique_in_their_group() {
        let of = |i: usize| {
            FIGURES.get(i).map(|figure| (figure.group().name(), figure.name, figure.runs()))
        };
        for i in 0..FIGURES.len() {
            assert!((0..i).all(|j| of(j) != of(i)), "{:?} is there twice", of(i));
        }
    }
}
