//! What does the running kernel's verifier make of the programs?

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use aya::programs::Program;
use aya::{Btf, EbpfLoader, VerifierLogLevel};
use flowmeter_common::globals::Globals;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use crate::command::is_root;
use crate::verified::{Column, Expected, Table, Verdict};
use crate::vm::kernels;
use crate::{Committed, ebpf, root};

/// As `live` finds the fields that the socket programs read: at other places they are not the same
/// programs to the verifier. It is not what the crate shows, and xtask does not wait for the crate.
#[path = "../../flowmeter/src/capture/kernel/layout.rs"]
mod layout;

/// What the committed table begins with.
const COMMENT: &str = "\
# Instructions verified, by program and kernel; `loads` where the kernel does not count them (before
# 5.16), and why it refuses what it cannot have. `cargo xtask vm --update` writes this.
";

/// Loads each program with all features on and compares what the verifier makes of it with this
/// kernel's column of the committed table.
pub fn verify(update: Committed) -> Result<()> {
    if !is_root() {
        bail!("loading kernel programs needs root");
    }
    let object = std::fs::read(ebpf::object())
        .with_context(|| format!("no `{}`; run `cargo xtask ebpf`", ebpf::object().display()))?;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("failed to read the kernel's release")?;
    let kernel = kernels::name_of(release.trim());
    let found = load_all(&object)?;
    let mut table = committed()?;
    if update == Committed::Update {
        table.set(&kernel, found);
        print!("{table}");
        return commit(&table);
    }
    let expected = table.expected(&kernel);
    match expected {
        Expected::Own(_) => println!("kernel {kernel}, by its column"),
        Expected::Older(name, _) => println!("kernel {kernel}, which has no column, by {name}'s"),
        Expected::Nothing => println!("kernel {kernel}, which has no column, nor has an older one"),
    }
    let mut shown = Table::default();
    shown.set("committed", expected.column().cloned().unwrap_or_default());
    shown.set(&kernel, found.clone());
    print!("{shown}");
    let differences = expected.differences(&found);
    if !differences.is_empty() {
        bail!("{}; if this is meant, run `cargo xtask vm --update`", differences.join("; "));
    }
    Ok(())
}

/// The committed table.
pub fn committed() -> Result<Table> {
    match std::fs::read_to_string(table_path()) {
        Ok(text) => Table::parse(&text).context("xtask/verified.txt is damaged"),
        Err(_) => Ok(Table::default()),
    }
}

/// Writes the table.
pub fn commit(table: &Table) -> Result<()> {
    let text = format!("{COMMENT}{table}");
    std::fs::write(table_path(), text).context("failed to write xtask/verified.txt")
}

fn load_all(object: &[u8]) -> Result<Column> {
    let quiet = 0u8;
    let globals = Globals {
        attribute: 1,
        statistics: 1,
        many: 1,
        pid_namespace: 1,
        splt: 20,
        n_dissections: 20,
        ..Globals::default()
    };
    let offsets = layout::offsets().unwrap_or_default();
    let mut loader = EbpfLoader::new();
    for (global, offset) in &offsets {
        loader.override_global(global, offset, true);
    }
    for (global, value) in globals.table() {
        loader.override_global(global, value, true);
    }
    let mut ebpf = loader
        .verifier_log_level(VerifierLogLevel::STATS)
        .override_global("AYA_LOG_LEVEL", &quiet, false)
        .load(object)
        .context("failed to load the object")?;
    let hooks = hooks(object)?;
    let mut found = Column::new();
    for (name, program) in ebpf.programs_mut() {
        let loaded = load(program, hooks.get(name).map(String::as_str));
        let verdict = match loaded {
            Ok(()) => program
                .info()?
                .verified_instruction_count()
                .map_or(Verdict::Loads, |count| Verdict::Verified(count.into())),
            Err(e) => {
                eprintln!("{name}: {e:#}");
                Verdict::Refused(e.root_cause().to_string())
            }
        };
        found.insert(name.to_owned(), verdict);
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
