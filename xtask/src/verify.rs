//! What does the running kernel's verifier make of the programs?

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use aya::programs::Program;
use aya::{Btf, EbpfLoader, VerifierLogLevel};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use crate::command::is_root;
use crate::{ebpf, root};

/// Instructions verified, by program.
type Table = BTreeMap<String, u64>;

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
    if update {
        print!("{}", to_text(&found));
        return std::fs::write(table_path(), to_text(&found)).context("failed to write the table");
    }
    let committed = match std::fs::read_to_string(table_path()) {
        Ok(text) => from_text(&text).context("xtask/verified.txt is damaged")?,
        Err(_) => Table::new(),
    };
    for (name, verified) in &found {
        let before = committed.get(name).map_or("none".into(), u64::to_string);
        println!("{name:24} {verified:>8} verified, {before:>8} committed");
    }
    let differences = compare(&committed, &found);
    if !differences.is_empty() {
        bail!("{}; if this is meant, run `cargo xtask verify --update`", differences.join("; "));
    }
    Ok(())
}

/// What of the programs found is not as committed.
fn compare(committed: &Table, found: &Table) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, verified) in found {
        match committed.get(name) {
            None => differences.push(format!("`{name}` is not in xtask/verified.txt")),
            Some(before) if *verified > before + before / 4 => differences.push(format!(
                "`{name}` has grown from {before} to {verified} instructions verified"
            )),
            Some(_) => {}
        }
    }
    let gone = committed.keys().filter(|name| !found.contains_key(*name));
    differences.extend(gone.map(|name| format!("there is no program `{name}`")));
    differences
}

fn load_all(object: &[u8]) -> Result<Table> {
    let quiet = 0u8;
    let (on, splt, dissections) = (1u32, 20u32, 20u32);
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::STATS)
        .override_global("AYA_LOG_LEVEL", &quiet, false)
        .override_global("STATISTICS", &on, true)
        .override_global("MANY", &on, true)
        .override_global("SPLT_PACKETS", &splt, true)
        .override_global("N_DISSECTIONS", &dissections, true)
        .load(object)
        .context("failed to load the object")?;
    let hooks = hooks(object)?;
    let mut found = Table::new();
    for (name, program) in ebpf.programs_mut() {
        load(program, hooks.get(name).map(String::as_str))
            .with_context(|| format!("failed to load program `{name}`"))?;
        let verified =
            program.info()?.verified_instruction_count().context("kernel older than 5.16")?;
        found.insert(name.to_owned(), u64::from(verified));
    }
    Ok(found)
}

/// Loads a program of any kind; some are verified against what they hook.
fn load(program: &mut Program, hook: Option<&str>) -> Result<()> {
    let named = || hook.context("its section names no hook");
    let btf = || Btf::from_sys_fs().context("no BTF of the kernel");
    match program {
        Program::KProbe(p) => p.load(),
        Program::UProbe(p) => p.load(),
        Program::TracePoint(p) => p.load(),
        Program::SocketFilter(p) => p.load(),
        Program::ReusePortSocketFilter(p) => p.load(),
        Program::Xdp(p) => p.load(),
        Program::SkMsg(p) => p.load(),
        Program::SkSkb(p) => p.load(),
        Program::SockOps(p) => p.load(),
        Program::SchedClassifier(p) => p.load(),
        Program::CgroupSkb(p) => p.load(),
        Program::CgroupSysctl(p) => p.load(),
        Program::CgroupSockopt(p) => p.load(),
        Program::CgroupSockAddr(p) => p.load(),
        Program::CgroupSock(p) => p.load(),
        Program::CgroupDevice(p) => p.load(),
        Program::LircMode2(p) => p.load(),
        Program::PerfEvent(p) => p.load(),
        Program::RawTracePoint(p) => p.load(),
        Program::FlowDissector(p) => p.load(),
        Program::SkLookup(p) => p.load(),
        Program::SkReuseport(p) => p.load(),
        Program::BtfTracePoint(p) => p.load(named()?, &btf()?),
        Program::FEntry(p) => p.load(named()?, &btf()?),
        Program::FExit(p) => p.load(named()?, &btf()?),
        Program::Lsm(p) => p.load(named()?, &btf()?),
        Program::LsmCgroup(p) => p.load(named()?, &btf()?),
        Program::Iter(p) => p.load(named()?, &btf()?),
        Program::Extension(_) => bail!("an extension is verified only with what it extends"),
    }
    .map_err(Into::into)
}

/// What each program hooks: `inet_sock_set_state` for one in section
/// `tp_btf/inet_sock_set_state`. aya reads it and does not tell.
fn hooks(object: &[u8]) -> Result<BTreeMap<String, String>> {
    let file = object::File::parse(object).context("the object is damaged")?;
    let mut hooks = BTreeMap::new();
    for symbol in file.symbols().filter(object::ObjectSymbol::is_definition) {
        let Some(index) = symbol.section_index() else {
            continue;
        };
        let section = file.section_by_index(index)?;
        if let Some((_, hook)) = section.name()?.split_once('/') {
            hooks.insert(symbol.name()?.to_owned(), hook.to_owned());
        }
    }
    Ok(hooks)
}

fn table_path() -> PathBuf {
    root().join("xtask/verified.txt")
}

fn to_text(table: &Table) -> String {
    let comment = "# Instructions verified by program; `cargo xtask verify --update` writes this.";
    let lines = table.iter().map(|(name, verified)| format!("\n{name} {verified}"));
    format!("{comment}{}\n", lines.collect::<String>())
}

fn from_text(text: &str) -> Result<Table> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (name, count) = line.split_once(' ').context("a line without a count")?;
            Ok((name.to_owned(), count.trim().parse()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Table, compare, from_text, to_text};

    fn table(programs: &[(&str, u64)]) -> Table {
        let owned = programs.iter().map(|(name, verified)| ((*name).to_owned(), *verified));
        owned.collect()
    }

    #[test]
    fn a_program_may_grow_by_a_quarter() {
        let committed = table(&[("meter", 100)]);
        assert!(compare(&committed, &table(&[("meter", 125)])).is_empty());
        assert!(compare(&committed, &table(&[("meter", 1)])).is_empty());
        assert_eq!(compare(&committed, &table(&[("meter", 126)])).len(), 1);
    }

    #[test]
    fn programs_come_and_go_by_the_table() {
        let differences = compare(&table(&[("old", 1)]), &table(&[("new", 1)]));
        assert_eq!(
            differences,
            ["`new` is not in xtask/verified.txt", "there is no program `old`"]
        );
    }

    #[test]
    fn a_table_survives_writing() {
        let programs = table(&[("a", 1), ("b", 22)]);
        assert_eq!(from_text(&to_text(&programs)).ok(), Some(programs));
        assert!(from_text("a").is_err());
    }
}
