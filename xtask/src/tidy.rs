//! Which rules of ARCHITECTURE.md can a program check?
//!
//! Each outside crate enters by one door, no stage imports a later one, `unsafe` stands in few
//! files, and what may panic says why it does not.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::root;
use crate::source::{Source, Word};

/// Crates and the paths below `flowmeter/src` that may name them.
const DOORS: &[(&str, &[&str])] = &[
    ("aya", &["capture/kernel/"]),
    ("aya_log", &["capture/kernel/"]),
    ("netlink_packet_core", &["capture/kernel/netlink"]),
    ("netlink_packet_route", &["capture/kernel/netlink"]),
    ("netlink_sys", &["capture/kernel/netlink"]),
    ("pcap_parser", &["capture/pcap/"]),
    ("ndpi_sys", &["dissect/ndpi"]),
    ("aes", &["dissect/hello/quic/"]),
    ("aes_gcm", &["dissect/hello/quic/"]),
    ("hkdf", &["dissect/hello/quic/"]),
    ("md5", &["dissect/hello/"]),
    ("clap", &["cli/"]),
    ("tokio", &["main.rs"]),
    ("indicatif", &["cli/progress"]),
    ("landlock", &["dissect/contained/sandbox"]),
    ("seccompiler", &["dissect/contained/sandbox"]),
    ("caps", &["dissect/contained/sandbox", "privileges"]),
    ("procfs", &["attribution/", "dissect/contained/watch", "stat.rs"]),
];

/// Stages in data order: none imports a later one, nor what stands above them all.
const STAGES: &[&str] = &[
    "notice",
    "capture",
    "table",
    "collector",
    "dissect",
    "attribution",
    "plugin",
    "flow",
    "fields",
    "format",
    "output",
    "report",
    "run",
];

/// The command, above the stages.
const ABOVE: &[&str] = &["cli", "config"];

/// The command, which alone prints: everything else tells by `notice`.
const PRINTS: &[&str] = &["cli/", "main.rs"];

/// Files of `flowmeter` with `unsafe`.
const UNSAFE: &[&str] = &[
    "capture/kernel/sys.rs",
    "capture/kernel/words.rs",
    "dissect/ndpi",
    "dissect/contained/sandbox.rs",
    "dissect/contained/child.rs",
    "attribution/addresses.rs",
    "capture/pcap/filter.rs",
    "hangup.rs",
];

/// A shorter reason than this for an `expect` is hardly one.
const SHORTEST_REASON: usize = 15;

/// Checks them all.
pub fn tidy() -> Result<()> {
    let source = root().join("flowmeter/src");
    let mut faults = Vec::new();
    for path in rust_files(&source)? {
        let name = path.strip_prefix(&source).unwrap_or(&path).to_string_lossy().into_owned();
        let text = fs::read_to_string(&path)
            .with_context(|| format!("failed to read `{}`", path.display()))?;
        faults.extend(check(&name, &text));
    }
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    if !faults.is_empty() {
        bail!("{} places are not tidy", faults.len());
    }
    println!("tidy: ok");
    Ok(())
}

/// The faults of a file, `name` being its path below `flowmeter/src`.
fn check(name: &str, text: &str) -> Vec<String> {
    if name == "tests.rs" || name.ends_with("/tests.rs") {
        return Vec::new();
    }
    let source = Source::read(text);
    let mut faults = Vec::new();
    let mut fault = |at: usize, what: String| faults.push((source.line(at), what));
    for word in source.words() {
        for (outside, doors) in DOORS {
            if names_crate(&word, outside) && !is_in(name, doors) {
                let doors = doors.join(", ");
                fault(word.at, format!("`{outside}` may be named only in {doors}"));
            }
        }
        let is_print = ["print", "println", "eprint", "eprintln"].contains(&word.text);
        if is_print && word.after.starts_with('!') && !is_in(name, PRINTS) {
            fault(word.at, "the library prints nothing; tell it by `notice`".into());
        }
        if word.text == "unsafe" && !is_in(name, UNSAFE) {
            fault(word.at, "`unsafe` is not at home here".into());
        }
        if word.before.ends_with('.') && word.after.starts_with('(') {
            match word.text {
                "unwrap" => fault(word.at, "`unwrap` outside tests".into()),
                "expect" if source.text_after(word.at).is_some_and(is_too_short) => {
                    fault(word.at, "`expect` without a reason why it holds".into());
                }
                _ => {}
            }
        }
    }
    if let Some(stage) = STAGES.iter().position(|stage| is_of(name, stage)) {
        for (at, module) in source.imports() {
            let mut later = STAGES.iter().skip(stage + 1).chain(ABOVE);
            if later.any(|later| *later == module) {
                fault(at, format!("`{}` stands before `{module}`", STAGES[stage]));
            }
        }
    }
    faults.sort();
    faults.into_iter().map(|(line, what)| format!("{name}:{line}: {what}")).collect()
}

fn is_in(name: &str, places: &[&str]) -> bool {
    places.iter().any(|place| name.starts_with(place))
}

/// Whether the file belongs to the module.
fn is_of(name: &str, module: &str) -> bool {
    name.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn is_too_short(reason: &str) -> bool {
    reason.chars().count() < SHORTEST_REASON
}

/// Whether the word is the crate, as a path's head or imported as a whole.
fn names_crate(word: &Word, name: &str) -> bool {
    let heads_path = word.after.starts_with("::") && !word.continues_path();
    word.text == name && (heads_path || word.before.ends_with("use"))
}

fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("failed to list `{}`", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_crate_has_one_door() {
        assert!(check("capture/kernel/mod.rs", "use aya::Ebpf;").is_empty());
        assert_eq!(check("run/live.rs", "use aya::Ebpf;").len(), 1);
        assert_eq!(check("run/live.rs", "use ::aya::Ebpf;").len(), 1);
        assert_eq!(check("run/live.rs", "use aya as kernel;").len(), 1);
        assert_eq!(check("run/live.rs", "#[derive(clap::Args)]").len(), 1);
        assert!(check("run/live.rs", "use crate::maya::Ebpf; // aya::Ebpf").is_empty());
        assert!(check("run/live.rs", "use crate::aya::Ebpf;").is_empty());
        assert!(check("run/live.rs", "let s = \"aya::Ebpf\";").is_empty());
    }

    #[test]
    fn stages_stand_in_order() {
        assert!(check("format/json.rs", "use crate::flow::Flow;").is_empty());
        assert_eq!(check("flow.rs", "use crate::format::Format;").len(), 1);
        assert_eq!(check("format/json.rs", "use crate::config::Plan;").len(), 1);
        assert_eq!(
            check("flow.rs", "use crate::{\n    table::{format, Table},\n    format::Format,\n};"),
            ["flow.rs:3: `flow` stands before `format`"]
        );
        assert!(check("flow.rs", "use crate::formatting::Ship;").is_empty());
    }

    #[test]
    fn unsafe_has_few_homes() {
        assert!(check("capture/kernel/sys.rs", "unsafe { bpf() }").is_empty());
        assert_eq!(check("run/live.rs", "let x = unsafe{ f() };").len(), 1);
        assert!(check("run/live.rs", "#![forbid(unsafe_code)]").is_empty());
    }

    #[test]
    fn what_may_panic_says_why_it_does_not() {
        assert_eq!(check("time.rs", "x.unwrap()").len(), 1);
        assert_eq!(check("time.rs", "x.expect(\"oops\")").len(), 1);
        assert!(check("time.rs", "x.expect(\"it was opened above\")").is_empty());
        assert!(check("time.rs", "#[expect(dead_code)]").is_empty());
    }

    #[test]
    fn tests_may_unwrap_and_code_after_them_may_not() {
        assert!(check("time.rs", "#[cfg(test)]\nmod tests { x.unwrap() }").is_empty());
        assert!(check("cli/tests.rs", "x.unwrap()").is_empty());
        assert_eq!(
            check(
                "time.rs",
                "#[cfg(test)]\nuse a::b;\n#[cfg(test)]\nmod tests;\nfn f() { x.unwrap() }"
            ),
            ["time.rs:5: `unwrap` outside tests"]
        );
    }
}
