//! Is flowmeter for Python what NFStream is?
//!
//! The package is put together of what has been built, and scripts run on it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::captures::conformance;
use flowmeter_tests::netns::{Link, WIRE};
use flowmeter_tests::{nfstream, program, root};

/// A folder with the package, as it is installed; gone with its test.
struct Package(PathBuf);

impl Package {
    fn new(test: &str) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let name = format!("flowmeter-python-{test}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        let package = Self(folder.clone());
        copy(&root.join("python/flowmeter"), &folder.join("flowmeter"))?;
        let engine = program("lib_engine.so")?;
        symlink(engine, folder.join("flowmeter/_engine.abi3.so"))?;
        Ok(package)
    }
}

impl Drop for Package {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Runs one of the scripts beside `nfstream`'s, on captures.
fn run(test: &str, script: &str, captures: &[PathBuf]) -> Result<()> {
    let Some(python) = nfstream::python(test)? else { return Ok(()) };
    let package = Package::new(test)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
    let mut command = Command::new(python);
    let output = command.arg(script).args(captures).env("PYTHONPATH", &package.0).output()?;
    let [said, error] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    println!("{said}");
    ensure!(output.status.success(), "{error}");
    Ok(())
}

/// Captures of this repository in which no packet ends NFStream's meter.
fn captures() -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures/plugins");
    let all = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut all = all.collect::<Result<Vec<_>>>()?;
    all.sort();
    Ok(all)
}

#[test]
fn flows_and_calls_are_nfstreams() -> Result<()> {
    let chosen = ["s_gaps.pcap", "w_bins.pcap", "m_basic_dup_comma.pcap", "d_ip6.pcap"];
    let mut captures = captures()?;
    captures.retain(|path| chosen.iter().any(|name| path.ends_with(name)));
    for path in conformance("flows_and_calls_are_nfstreams")?.unwrap_or_default() {
        let more = [
            "skype.pcap",
            "http_ipv6.pcap",
            "gtp-u.pcap",
            "capwap.pcap",
            "teredo.pcap",
            "ftp.pcap",
        ];
        if more.iter().any(|name| path.ends_with(name)) {
            captures.push(path);
        }
    }
    ensure!(captures.len() >= chosen.len(), "captures are missing");
    run("flows_and_calls_are_nfstreams", "same.py", &captures)
}

/// Captures in which TLS, or what looks like it, begins with a SYN.
const TLS: [&str; 17] = [
    "1kxun.pcap",
    "443-git.pcap",
    "android.pcap",
    "dns_dot.pcap",
    "encrypted_sni.pcap",
    "ja3_lots_of_cipher_suites.pcap",
    "long_tls_certificate.pcap",
    "no_sni.pcap",
    "ssl-cert-name-mismatch.pcap",
    "steam.pcap",
    "tls-esni-fuzzed.pcap",
    "tls-rdn-extract.pcap",
    "tls_alert.pcap",
    "tls_certificate_too_long.pcap",
    "tls_long_cert.pcap",
    "tls_verylong_certificate.pcap",
    "trickbot.pcap",
];

#[test]
fn the_shipped_classes_are_nfstreams() -> Result<()> {
    const TEST: &str = "the_shipped_classes_are_nfstreams";
    let mut captures = captures()?;
    let more = conformance(TEST)?.unwrap_or_default();
    captures.extend(more.into_iter().filter(|path| TLS.iter().any(|name| path.ends_with(name))));
    run(TEST, "classes.py", &captures)
}

#[test]
fn scripts_of_users_give_the_same_rows() -> Result<()> {
    const TEST: &str = "scripts_of_users_give_the_same_rows";
    // It makes a capture of its own; a real one is there for what nobody thought of.
    let mut captures = conformance(TEST)?.unwrap_or_default();
    captures.retain(|path| path.ends_with("skype.pcap"));
    run(TEST, "scripts.py", &captures)
}

#[test]
fn it_behaves_as_its_users_expect() -> Result<()> {
    let captures = captures()?;
    let capture = captures.iter().find(|path| path.ends_with("s_flows.pcap"));
    let capture = capture.context("a capture with several flows")?;
    run("it_behaves_as_its_users_expect", "behaviour.py", std::slice::from_ref(capture))
}

#[test]
fn tables_have_what_flows_have() -> Result<()> {
    const TEST: &str = "tables_have_what_flows_have";
    let mut captures = captures()?;
    for path in conformance(TEST)?.unwrap_or_default() {
        if ["skype.pcap", "http_ipv6.pcap", "gtp-u.pcap"].iter().any(|name| path.ends_with(name)) {
            captures.push(path);
        }
    }
    run(TEST, "tables.py", &captures)
}

/// The package's folder, then captures.
#[test]
fn stubs_are_what_the_engine_has() -> Result<()> {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../python/flowmeter").canonicalize()?;
    let captures = captures()?.into_iter().filter(|path| path.ends_with("s_flows.pcap"));
    let arguments: Vec<_> = std::iter::once(folder).chain(captures).collect();
    run("stubs_are_what_the_engine_has", "stubs.py", &arguments)
}

#[test]
fn examples_run() -> Result<()> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/python.md");
    let captures = captures()?.into_iter().filter(|path| path.ends_with("s_flows.pcap"));
    let arguments: Vec<_> = std::iter::once(document).chain(captures).collect();
    run("examples_run", "docs.py", &arguments)
}

#[test]
fn an_interface_is_metered_and_its_packets_seen() -> Result<()> {
    const TEST: &str = "an_interface_is_metered_and_its_packets_seen";
    let Some(python) = nfstream::python(TEST)? else { return Ok(()) };
    if !root::available(TEST)? {
        return Ok(());
    }
    let (package, link) = (Package::new(TEST)?, Link::new()?);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/live.py");
    let mut command = link.near.command(&python.to_string_lossy());
    command.arg(script).args([WIRE, "3"]).env("PYTHONPATH", &package.0);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(child.stdout.take().context("its output is piped")?);
    let mut line = String::new();
    said.read_line(&mut line)?;
    // The generator attaches with its first step.
    std::thread::sleep(std::time::Duration::from_secs(3));
    link.near.run("ping", &["-c3", "-i0.2", "10.9.0.2"])?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn flows_have_what_models_give() -> Result<()> {
    let capture = captures()?.into_iter().find(|path| path.ends_with("s_flows.pcap"));
    let capture = capture.context("a capture with several flows")?;
    run("flows_have_what_models_give", "model.py", &[capture])
}
