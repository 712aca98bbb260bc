//! Which rules of ARCHITECTURE.md can a program check?
//!
//! Each outside crate enters by one door, no stage imports a later one, and `unsafe` stands in few
//! files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::root;

/// Crates and the paths below `flowmeter/src` that may name them.
const DOORS: &[(&str, &[&str])] = &[
    ("aya", &["capture/kernel/"]),
    ("aya_log", &["capture/kernel/"]),
    ("pcap_parser", &["capture/pcap/"]),
    ("ndpi_sys", &["dissect/ndpi"]),
    ("clap", &["cli/"]),
    ("tokio", &["main.rs"]),
];

/// Stages in data order: none imports a later one, nor `cli`, `config` and `engine`.
const STAGES: &[&str] = &[
    "capture",
    "table",
    "collector",
    "dissect",
    "attribution",
    "plugin",
    "record",
    "fields",
    "sink",
];

/// Modules above the stages.
const ABOVE: &[&str] = &["cli", "config", "engine", "annotate", "health"];

/// Files of `flowmeter` with `unsafe`.
const UNSAFE: &[&str] =
    &["capture/kernel/sys.rs", "dissect/ndpi", "attribution/addresses.rs", "capture/pcap/map.rs"];

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
    let mut faults = Vec::new();
    let stage =
        STAGES.iter().position(|s| name == format!("{s}.rs") || name.starts_with(&format!("{s}/")));
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    for (number, line) in code.lines().enumerate() {
        let line = line.split("//").next().unwrap_or(line);
        let mut fault = |what: String| faults.push(format!("{name}:{}: {what}", number + 1));
        for (outside, doors) in DOORS {
            if names_crate(line, outside) && !doors.iter().any(|door| name.starts_with(door)) {
                fault(format!("`{outside}` may be named only in {}", doors.join(", ")));
            }
        }
        if let Some(stage) = stage {
            let later = STAGES.iter().skip(stage + 1).chain(ABOVE);
            for other in later.filter(|other| line.contains(&format!("crate::{other}"))) {
                fault(format!("`{}` stands before `{other}`", STAGES.get(stage).unwrap_or(&"")));
            }
        }
        let has_unsafe = line.contains("unsafe ") && !line.contains("unsafe_code");
        if has_unsafe && !UNSAFE.iter().any(|file| name.starts_with(file)) {
            fault("`unsafe` is not at home here".into());
        }
        if line.contains(".unwrap()") {
            fault("`unwrap` outside tests".into());
        }
    }
    faults
}

/// Whether the line names the crate as a path's head.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = line.get(..at).and_then(|s| s.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
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
        assert_eq!(check("engine.rs", "use aya::Ebpf;").len(), 1);
        assert!(check("engine.rs", "use crate::maya::Ebpf; // aya::Ebpf").is_empty());
    }

    #[test]
    fn stages_stand_in_order() {
        assert!(check("sink/json.rs", "use crate::record::Flow;").is_empty());
        assert_eq!(check("record.rs", "use crate::sink::Sink;").len(), 1);
        assert_eq!(check("sink/json.rs", "use crate::config::Plan;").len(), 1);
    }

    #[test]
    fn tests_may_unwrap() {
        assert_eq!(check("time.rs", "x.unwrap()").len(), 1);
        assert!(check("time.rs", "#[cfg(test)]\nmod tests { x.unwrap() }").is_empty());
    }
}
