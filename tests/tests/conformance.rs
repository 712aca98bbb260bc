//! Does `flowmeter read --compat nfstream` give NFStream's rows?
//!
//! The captures, the expected rows and the comparer are not part of the project:
//! `FLOWMETER_CONFORMANCE` names the folder that has them. Without it these tests have nothing to
//! compare with and say so.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::program;

/// The configurations of the expected rows, and what they are as options.
const CONFIGURATIONS: [(&str, &[&str]); 8] = [
    ("default", &[]),
    ("stat", &["--statistical-analysis", "--splt-analysis=255"]),
    (
        "acc1",
        &[
            "--statistical-analysis",
            "--splt-analysis=255",
            "--n-dissections=0",
            "--accounting-mode=1",
        ],
    ),
    (
        "acc2",
        &[
            "--statistical-analysis",
            "--splt-analysis=255",
            "--n-dissections=0",
            "--accounting-mode=2",
        ],
    ),
    (
        "acc3",
        &[
            "--statistical-analysis",
            "--splt-analysis=255",
            "--n-dissections=0",
            "--accounting-mode=3",
        ],
    ),
    ("notunnel", &["--statistical-analysis", "--splt-analysis=20", "--no-decode-tunnels"]),
    (
        "timeout",
        &["--statistical-analysis", "--splt-analysis=20", "--idle-timeout=1", "--active-timeout=5"],
    ),
    (
        "timeout0",
        &[
            "--statistical-analysis",
            "--splt-analysis=5",
            "--n-dissections=0",
            "--idle-timeout=0",
            "--active-timeout=0",
        ],
    ),
];

#[test]
fn every_row_of_the_captures_is_nfstreams() -> Result<()> {
    compare_all("pcaps", "expected")
}

#[test]
fn every_row_of_the_quirk_probes_is_nfstreams() -> Result<()> {
    compare_all("quirks", "expected-quirks")
}

fn compare_all(captures: &str, expected: &str) -> Result<()> {
    let Some(folder) = std::env::var_os("FLOWMETER_CONFORMANCE").map(PathBuf::from) else {
        println!("left out: FLOWMETER_CONFORMANCE names no folder to compare with");
        return Ok(());
    };
    // Captures whose rows depend on memory beyond them.
    let undefined: HashSet<String> = fs::read_to_string(folder.join("quirks-undefined.txt"))
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    let work = std::env::temp_dir().join(format!("flowmeter-{expected}-{}", std::process::id()));
    let mut failed = Vec::new();
    for (name, options) in CONFIGURATIONS {
        let truth = folder.join(expected).join(name);
        if !truth.is_dir() {
            continue;
        }
        let (ours, theirs) = (work.join(name).join("ours"), work.join(name).join("theirs"));
        fs::create_dir_all(&ours)?;
        fs::create_dir_all(&theirs)?;
        for entry in fs::read_dir(&truth)? {
            let rows = entry?.path();
            let file = rows.file_name().context("a row file has a name")?.to_string_lossy();
            let capture = file.trim_end_matches(".jsonl.gz");
            if undefined.contains(capture) {
                continue;
            }
            std::os::unix::fs::symlink(&rows, theirs.join(&*file))?;
            let out = ours.join(format!("{capture}.jsonl"));
            read(&folder.join(captures).join(capture), options, &out)?;
        }
        if !compare(&folder, &theirs, &ours)? {
            failed.push(name);
        }
    }
    fs::remove_dir_all(&work)?;
    ensure!(failed.is_empty(), "rows differ from NFStream's in {failed:?}");
    Ok(())
}

/// Meters a capture. A damaged one is an error that NFStream does not report; its rows count.
fn read(capture: &Path, options: &[&str], out: &Path) -> Result<()> {
    fs::write(out, "")?;
    let status = Command::new(program("flowmeter")?)
        .args(["read", "--compat=nfstream"])
        .args(options)
        .arg("--output")
        .args([out, capture])
        .stderr(std::process::Stdio::null())
        .status()?;
    ensure!(matches!(status.code(), Some(0 | 1)), "{}: {status}", capture.display());
    Ok(())
}

fn compare(folder: &Path, theirs: &Path, ours: &Path) -> Result<bool> {
    let output = Command::new("python3")
        .arg(folder.join("compare.py"))
        .args([theirs, ours])
        .args(["--order", "--quiet"])
        .output()
        .context("the comparer needs python3")?;
    println!("{}", String::from_utf8_lossy(&output.stdout));
    Ok(output.status.success())
}
