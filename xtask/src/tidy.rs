//! Which rules of ARCHITECTURE.md can a program check?
//!
//! Each outside crate enters by one door, no stage imports a later one, `unsafe` stands in few
//! files, only the command prints, what may panic says why it does not, and people are spoken to in
//! plain words.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::root;
use crate::source::{Source, Word};
use crate::words;

/// A crate of ours, and what may stand where in it. Places are paths below its `src`.
struct Tree {
    /// The crate's folder.
    folder: &'static str,
    /// Outside crates and the places that may name them.
    doors: &'static [(&'static str, &'static [&'static str])],
    /// Outside crates that are at home everywhere.
    everywhere: &'static [&'static str],
    /// Modules in data order: none imports a later one. Every other module is the root.
    stages: &'static [&'static str],
    /// Files with `unsafe`.
    homes: &'static [&'static str],
    /// Whether it prints.
    prints: Prints,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Prints {
    Yes,
    No,
}

const LIBRARY: Tree = Tree {
    folder: "flowmeter",
    doors: &[
        ("aes", &["dissect/hello/quic/"]),
        ("aes_gcm", &["dissect/hello/quic/"]),
        ("arrow_array", &["format/arrow", "output/parquet"]),
        ("arrow_schema", &["format/arrow", "output/parquet"]),
        ("aya", &["capture/kernel/"]),
        ("aya_log", &["capture/kernel/"]),
        ("blake2", &["fields/anonymize"]),
        ("caps", &["capture/kernel/capabilities", "dissect/contained/sandbox"]),
        ("crossbeam_channel", &["attribution/profile/", "dissect/pool", "output/queue", "run/"]),
        ("derive_setters", &["run/options"]),
        ("domain", &["dissect/details/dns"]),
        ("flate2", &["capture/pcap/"]),
        ("hkdf", &["dissect/hello/quic/"]),
        ("httparse", &["dissect/details/http"]),
        ("itoa", &["fields/value"]),
        ("landlock", &["dissect/contained/sandbox"]),
        (
            "libc",
            &[
                "attribution/addresses",
                "capture/kernel/",
                "dissect/contained/",
                "output/lines",
                "output/target",
            ],
        ),
        ("libpcap", &["capture/pcap/filter"]),
        ("log", &["capture/kernel/"]),
        ("md5", &["dissect/hello/"]),
        ("memmap2", &["capture/kernel/words"]),
        ("ndpi_sys", &["dissect/ndpi"]),
        ("netlink_packet_core", &["capture/kernel/netlink"]),
        ("netlink_packet_route", &["capture/kernel/netlink"]),
        ("netlink_sys", &["capture/kernel/netlink"]),
        ("ort", &["model/"]),
        ("parquet", &["output/parquet"]),
        ("pcap_parser", &["capture/pcap/"]),
        ("prometheus_client", &["report/openmetrics"]),
        ("procfs", &["attribution/", "dissect/contained/watch", "model/runtime", "stat.rs"]),
        ("regex_lite", &["redact.rs"]),
        ("rustix", &["attribution/", "capture/", "dissect/contained/", "output/", "run/"]),
        ("seccompiler", &["dissect/contained/sandbox"]),
        ("serde", &["fields/value"]),
        ("serde_json", &["fields/", "format/", "report/", "run/outlets"]),
        ("sha2", &["attribution/profile/hash", "dissect/hello/"]),
        ("tempfile", &["output/parquet"]),
        ("zerocopy", &["capture/kernel/", "dissect/"]),
        ("zstd", &["capture/pcap/"]),
    ],
    // hashbrown is the map that collections are made of.
    everywhere: &["flowmeter_common", "hashbrown", "thiserror"],
    stages: &[
        "notice",
        "redact",
        "stat",
        "users",
        "capture",
        "table",
        "collector",
        "dissect",
        "attribution",
        "flow",
        "fields",
        "plugin",
        "model",
        "format",
        "output",
        "report",
        "run",
    ],
    homes: &[
        "capture/kernel/sys.rs",
        "capture/kernel/words.rs",
        "dissect/ndpi",
        "dissect/contained/sandbox.rs",
        "dissect/contained/child.rs",
        "attribution/addresses.rs",
        "capture/pcap/filter.rs",
        "model/runtime.rs",
    ],
    prints: Prints::No,
};

const COMMAND: Tree = Tree {
    folder: "flowmeter-cli",
    doors: &[
        ("caps", &["privileges"]),
        ("clap", &["args/"]),
        ("http_body_util", &["metrics"]),
        ("hyper", &["metrics"]),
        ("hyper_util", &["metrics"]),
        ("indicatif", &["progress"]),
        ("libc", &["signals"]),
        ("rustix", &["descriptors"]),
        ("serde_json", &["doctor"]),
        ("signal_hook", &["signals"]),
        ("tokio", &["main.rs", "metrics", "signals"]),
    ],
    everywhere: &["anyhow", "flowmeter", "flowmeter_common", "thiserror"],
    stages: &["notices", "privileges", "plan", "args"],
    homes: &["signals.rs"],
    prints: Prints::Yes,
};

/// A shorter reason than this for an `expect` is hardly one.
const SHORTEST_REASON: usize = 15;

/// Crates whose strings and doc comments people read.
const READ: [&str; 5] =
    ["flowmeter", "flowmeter-cli", "flowmeter-common", "flowmeter-ebpf", "xtask"];

/// Documents that people read, besides those in `docs/`.
const DOCUMENTS: [&str; 4] =
    ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "flowmeter/src/report/meter.md"];

/// Checks them all.
pub fn tidy() -> Result<()> {
    let mut faults = phrases()?;
    for tree in [&LIBRARY, &COMMAND] {
        let folder = root().join(tree.folder);
        let manifest = read(&folder.join("Cargo.toml"))?;
        faults.extend(tree.without_door(&manifest));
        let source = folder.join("src");
        let mut modules = BTreeSet::new();
        for path in files_of(&source, "rs")? {
            let name = path.strip_prefix(&source).unwrap_or(&path).to_string_lossy().into_owned();
            let of_root = name.split(['/', '.']).next().unwrap_or_default().to_owned();
            modules.insert(of_root);
            faults.extend(tree.check(&name, &read(&path)?));
        }
        faults.extend(tree.without_floor(&modules));
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

/// Phrases that are not to come back.
fn phrases() -> Result<Vec<String>> {
    let mut files = Vec::new();
    for folder in READ {
        files.extend(files_of(&root().join(folder).join("src"), "rs")?);
    }
    // It has the phrases themselves.
    files.retain(|path| !path.ends_with("tests.rs") && !path.ends_with("xtask/src/words.rs"));
    files.extend(DOCUMENTS.iter().map(|name| root().join(name)));
    files.extend(files_of(&root().join("docs"), "md")?);
    let mut faults = Vec::new();
    for path in files {
        let text = read(&path)?;
        let is_rust = path.extension().is_some_and(|e| e == "rs");
        let found = if is_rust { words::in_rust(&text) } else { words::in_markdown(&text) };
        let name = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        faults.extend(found.into_iter().map(|(line, what)| format!("{name}:{line}: {what}")));
    }
    Ok(faults)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("failed to read `{}`", path.display()))
}

impl Tree {
    /// Outside crates that are neither at home everywhere nor have a door.
    fn without_door(&self, manifest: &str) -> Vec<String> {
        let dependencies = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
        dependencies
            .take_while(|line| !line.starts_with('['))
            .filter_map(|line| line.split_once(" = "))
            // The one whose crate is not called as its package.
            .map(|(name, _)| if name == "md-5" { "md5".into() } else { name.replace('-', "_") })
            .filter(|name| !self.everywhere.contains(&name.as_str()))
            .filter(|name| !self.doors.iter().any(|(outside, _)| outside == name))
            .map(|name| format!("{}: `{name}` has no door", self.folder))
            .collect()
    }

    /// Modules of the library that stand on no floor. The command's few need none.
    fn without_floor(&self, modules: &BTreeSet<String>) -> Vec<String> {
        if self.prints == Prints::Yes {
            return Vec::new();
        }
        modules
            .iter()
            .filter(|module| *module != "lib" && !self.stages.contains(&module.as_str()))
            .map(|module| format!("{}: `{module}` stands on no floor", self.folder))
            .collect()
    }

    /// The faults of a file, `name` being its path below `src`.
    fn check(&self, name: &str, text: &str) -> Vec<String> {
        if name == "tests.rs" || name.ends_with("/tests.rs") {
            return Vec::new();
        }
        let source = Source::read(text);
        let mut faults = Vec::new();
        let mut fault = |at: usize, what: String| faults.push((source.line(at), what));
        for word in source.words() {
            for (outside, doors) in self.doors {
                if names_crate(&word, outside) && !is_in(name, doors) {
                    let doors = doors.join(", ");
                    fault(word.at, format!("`{outside}` may be named only in {doors}"));
                }
            }
            let is_print = ["print", "println", "eprint", "eprintln"].contains(&word.text);
            if is_print && word.after.starts_with('!') && self.prints == Prints::No {
                fault(word.at, "the library prints nothing; tell it by `notice`".into());
            }
            if word.text == "unsafe" && !is_in(name, self.homes) {
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
        if let Some(stage) = self.stages.iter().position(|stage| is_of(name, stage)) {
            for (at, module) in source.imports() {
                let mut later = self.stages.iter().skip(stage + 1);
                if later.any(|later| *later == module) {
                    fault(at, format!("`{}` stands before `{module}`", self.stages[stage]));
                }
            }
        }
        faults.sort();
        faults
            .into_iter()
            .map(|(line, what)| format!("{}/src/{name}:{line}: {what}", self.folder))
            .collect()
    }
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

/// The files in a folder and those below it whose names end so.
fn files_of(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("failed to list `{}`", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_of(&path, extension)?);
        } else if path.extension().is_some_and(|e| e == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::{COMMAND, LIBRARY};

    fn check(name: &str, text: &str) -> Vec<String> {
        LIBRARY.check(name, text)
    }

    #[test]
    fn a_crate_has_one_door() {
        assert!(check("capture/kernel/mod.rs", "use aya::Ebpf;").is_empty());
        assert_eq!(check("run/live.rs", "use aya::Ebpf;").len(), 1);
        assert_eq!(check("run/live.rs", "use ::aya::Ebpf;").len(), 1);
        assert_eq!(check("run/live.rs", "use aya as kernel;").len(), 1);
        assert_eq!(COMMAND.check("plan.rs", "#[derive(clap::Args)]").len(), 1);
        assert!(check("run/live.rs", "use crate::maya::Ebpf; // aya::Ebpf").is_empty());
        assert!(check("run/live.rs", "use crate::aya::Ebpf;").is_empty());
        assert!(check("run/live.rs", "let s = \"aya::Ebpf\";").is_empty());
    }

    #[test]
    fn stages_stand_in_order() {
        assert!(check("format/json.rs", "use crate::flow::Flow;").is_empty());
        assert_eq!(check("flow.rs", "use crate::format::Format;").len(), 1);
        assert_eq!(COMMAND.check("plan.rs", "use crate::args::Exit;").len(), 1);
        assert_eq!(
            check("flow.rs", "use crate::{\n    table::{format, Table},\n    format::Format,\n};"),
            ["flowmeter/src/flow.rs:3: `flow` stands before `format`"]
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
        assert!(check("table/tests.rs", "x.unwrap()").is_empty());
        assert_eq!(
            check(
                "time.rs",
                "#[cfg(test)]\nuse a::b;\n#[cfg(test)]\nmod tests;\nfn f() { x.unwrap() }"
            ),
            ["flowmeter/src/time.rs:5: `unwrap` outside tests"]
        );
    }

    #[test]
    fn every_outside_crate_has_a_door_and_every_module_a_floor() {
        let manifest = "[package]\nname = \"x\"\n\n[dependencies]\naya = \"1\"\nmd-5 = \"1\"\n\
                        new-one = \"1\"\n\n[dev-dependencies]\ncriterion = \"1\"\n";
        assert_eq!(LIBRARY.without_door(manifest), ["flowmeter: `new_one` has no door"]);
        let modules = ["lib", "run", "loft"].map(String::from).into();
        assert_eq!(LIBRARY.without_floor(&modules), ["flowmeter: `loft` stands on no floor"]);
    }

    #[test]
    fn only_the_command_prints() {
        assert_eq!(check("run/live.rs", "eprintln!(\"x\");").len(), 1);
        assert!(COMMAND.check("main.rs", "eprintln!(\"x\");").is_empty());
    }
}
