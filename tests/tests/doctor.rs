//! Does `flowmeter doctor` say of nDPI what dissection would?

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::captures::pcap;
use flowmeter_tests::packets::udp;
use flowmeter_tests::program;
use serde_json::Value;

struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("flowmeter-{test}-{}", std::process::id()));
        fs::create_dir(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a program prints.
fn output(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } = command.output()?;
    ensure!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    Ok(String::from_utf8(stdout)?)
}

/// The name of the nDPI that the program loads; none if it was built without.
fn soname(program: &Path) -> Result<Option<String>> {
    let libraries = output(Command::new("ldd").arg(program))?;
    let names = libraries.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names.map(str::to_owned).find(|name| name.starts_with("libndpi")))
}

/// Makes a library that has the name and the functions of the nDPI that the program was built
/// against, but neither its API nor its layouts.
fn impostor(program: &Path, soname: &str, folder: &Path) -> Result<()> {
    let symbols = output(Command::new("nm").args(["-D", "--undefined-only"]).arg(program))?;
    let names = symbols.split_whitespace().filter(|word| word.starts_with("ndpi_"));
    let mut source = String::from("char *ndpi_revision(void) { return \"99.0\"; }\n");
    for name in names.filter(|name| *name != "ndpi_revision") {
        writeln!(source, "int {name}(void) {{ return 0; }}")?;
    }
    let file = folder.join("impostor.c");
    fs::write(&file, source)?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-fno-builtin", &format!("-Wl,-soname,{soname}"), "-o"]);
    output(cc.arg(folder.join(soname)).arg(file)).map(drop)
}

/// Versions of nDPI with different layouts share a soname, so that a program can be started with
/// one that it was not built against.
#[test]
fn another_ndpi_of_the_same_name_is_refused_and_told_of() -> Result<()> {
    let program = program("flowmeter")?;
    let Some(soname) = soname(&program)? else {
        println!("left out: flowmeter is built without nDPI");
        return Ok(());
    };
    let scratch = Scratch::new("impostor")?;
    impostor(&program, &soname, &scratch.0)?;
    let capture = scratch.0.join("x.pcap");
    let query = udp().from("10.0.0.1:1000").to("10.0.0.2:53").payload(30).build();
    fs::write(&capture, pcap(&[query]))?;
    let flowmeter = || {
        let mut command = Command::new(&program);
        command.env("LD_LIBRARY_PATH", &scratch.0);
        command
    };
    let read = |options: &[&str]| flowmeter().arg("read").args(options).arg(&capture).output();

    let findings = flowmeter().args(["doctor", "--format=json"]).output()?.stdout;
    let findings: Value = serde_json::from_slice(&findings)?;
    let finding = |what: &str| {
        let found = findings.as_array().and_then(|all| all.iter().find(|f| f["what"] == what));
        found.cloned().with_context(|| format!("`{what}` is not told of: {findings:#}"))
    };
    let (ndpi, containment) = (finding("nDPI")?, finding("containment")?);
    for found in [&ndpi, &containment] {
        ensure!(found["state"] == "missing", "{found}");
        let words = found["found"].as_str().unwrap_or_default();
        ensure!(words.contains("99.0, is not the one flowmeter was built against"), "{found}");
    }
    // What fails is not advised; what is advised works.
    for dissector in [&[][..], &["--dissector=in-process"]] {
        ensure!(!read(dissector)?.status.success(), "{dissector:?} dissects all the same");
    }
    for found in [&ndpi, &containment] {
        let advice = found["advice"].as_str().unwrap_or_default();
        ensure!(!advice.contains("in-process"), "{found}");
        ensure!(advice.contains("`--n-dissections 0`"), "{found}");
    }
    let without = read(&["--n-dissections=0"])?;
    ensure!(without.status.success(), "{}", String::from_utf8_lossy(&without.stderr));
    Ok(())
}
