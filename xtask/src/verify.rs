//! What does the running kernel's verifier make of the programs?

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use aya::programs::Program;
use aya::{EbpfLoader, VerifierLogLevel};

use crate::command::is_root;
use crate::{ebpf, root};

/// Loads each program with all features on and compares the instructions that the verifier went
/// through with the committed table: a program that has grown by more than a quarter has lost
/// what keeps its states apart, and will be refused one day.
pub fn verify(update: bool) -> Result<()> {
    if !is_root() {
        bail!("loading kernel programs needs root");
    }
    let object = std::fs::read(ebpf::object())
        .with_context(|| format!("no `{}`; run `cargo xtask ebpf`", ebpf::object().display()))?;
    let found = load_all(&object)?;
    let committed = read_table()?;
    let mut table = String::from(
        "# Instructions verified by program; `cargo xtask verify --update` writes this.\n",
    );
    let mut grown = Vec::new();
    for (name, verified) in &found {
        let before = committed.get(name).copied();
        let verdict = match before {
            None => "new",
            Some(before) if *verified > before + before / 4 => {
                grown.push(name.as_str());
                "too many"
            }
            Some(_) => "ok",
        };
        println!(
            "{name:24} {verified:>8} verified, {:>8} committed: {verdict}",
            before.unwrap_or(0)
        );
        writeln!(table, "{name} {verified}")?;
    }
    if update {
        return std::fs::write(table_path(), table).context("failed to write the table");
    }
    let gone: Vec<_> = committed.keys().filter(|name| !found.contains_key(*name)).collect();
    let new: Vec<_> = found.keys().filter(|name| !committed.contains_key(*name)).collect();
    if !grown.is_empty() || !gone.is_empty() || !new.is_empty() {
        bail!(
            "verified instructions differ from xtask/verified.txt (grown: {grown:?}, gone: \
             {gone:?}, new: {new:?}); if this is meant, run `cargo xtask verify --update`"
        );
    }
    Ok(())
}

fn load_all(object: &[u8]) -> Result<BTreeMap<String, u64>> {
    let (on, splt, dissections) = (1u32, 20u32, 20u32);
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::STATS)
        .override_global("STATISTICS", &on, true)
        .override_global("MANY", &on, true)
        .override_global("SPLT_PACKETS", &splt, true)
        .override_global("N_DISSECTIONS", &dissections, true)
        .load(object)
        .context("failed to load the object")?;
    let mut found = BTreeMap::new();
    for (name, program) in ebpf.programs_mut() {
        let info = match program {
            Program::Xdp(p) => p.load().and_then(|()| p.info()),
            Program::SchedClassifier(p) => p.load().and_then(|()| p.info()),
            other => bail!("program `{name}` is of a kind that verify does not know: {other:?}"),
        }
        .with_context(|| format!("the kernel refused program `{name}`"))?;
        let verified = info.verified_instruction_count().context("kernel older than 5.16")?;
        found.insert(name.to_owned(), u64::from(verified));
    }
    Ok(found)
}

fn table_path() -> PathBuf {
    root().join("xtask/verified.txt")
}

fn read_table() -> Result<BTreeMap<String, u64>> {
    let Ok(text) = std::fs::read_to_string(table_path()) else {
        return Ok(BTreeMap::new());
    };
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, count) = line.split_once(' ').context("a line without a count")?;
            Ok((name.to_owned(), count.trim().parse()?))
        })
        .collect::<Result<_>>()
        .context("xtask/verified.txt is damaged")
}
