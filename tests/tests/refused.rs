//! What does the meter do where the kernel refuses a program?
//!
//! A copy of the built program is damaged: of a kernel program in it, the first instruction becomes
//! one that reads a register that nothing was written to. What refuses it is the verifier itself.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::meter::Meter;
use flowmeter_tests::netns::{Host, Link, WIRE};
use flowmeter_tests::{kernel, program, root};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

/// `r0 = r9`.
const SENSELESS: [u8; 8] = [0xbf, 0x90, 0, 0, 0, 0, 0, 0];
/// What the verifier says to it.
const WORDS: &str = "R9 !read_ok";

const BOTH_XDP: &[&str] = &["flowmeter_xdp", "flowmeter_xdp_linear"];

/// A copy of the built program with some kernel programs damaged, gone with the value.
struct Damaged(PathBuf);

impl Damaged {
    fn new(test: &str, programs: &[&str]) -> Result<Self> {
        let object = fs::read(kernel::object())?;
        let mut bytes = fs::read(program("flowmeter")?)?;
        let start = find(&bytes, &object)
            .context("the program was built with another object: build it anew")?;
        for program in programs {
            let at = start + first_instruction(&object, program)?;
            bytes.get_mut(at..at + 8).context("too short")?.copy_from_slice(&SENSELESS);
        }
        let name = format!("flowmeter-damaged-{}-{test}", std::process::id());
        let damaged = Self(std::env::temp_dir().join(name));
        fs::write(&damaged.0, bytes)?;
        fs::set_permissions(&damaged.0, fs::Permissions::from_mode(0o755))?;
        Ok(damaged)
    }

    fn start(&self, host: &Host, args: &[&str]) -> Result<Meter> {
        Meter::start_program(host, &self.0, args)
    }

    fn run(&self, host: &Host, args: &[&str]) -> Result<Output> {
        Ok(host.command(&self.0.to_string_lossy()).args(args).output()?)
    }
}

impl Drop for Damaged {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let head = wanted.first_chunk::<4>()?;
    let is = |at: &usize| bytes.get(*at..).is_some_and(|rest| rest.starts_with(wanted));
    let heads = bytes.windows(4).enumerate().filter(|(_, four)| four == head);
    heads.map(|(at, _)| at).find(is)
}

fn first_instruction(object: &[u8], program: &str) -> Result<usize> {
    let file = object::File::parse(object)?;
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(program));
    let symbol = symbol.with_context(|| format!("no program `{program}`"))?;
    let section = file.section_by_index(symbol.section_index().context("it is nowhere")?)?;
    let (start, _) = section.file_range().context("its section is empty")?;
    Ok(usize::try_from(start + symbol.address())?)
}

/// Pings the other end and checks that the meter has seen both directions.
fn check_both_directions(link: &Link, meter: Meter) -> Result<()> {
    link.near.run("ping", &["-c", "2", "-i", "0.2", "10.9.0.2"])?;
    let log = meter.stop()?;
    log.check_balance()?;
    let flow = log.the(|flow| flow["protocol"] == 1)?;
    ensure!(flow["src2dst_packets"] == 2 && flow["dst2src_packets"] == 2, "{flow:#}");
    Ok(())
}

#[test]
fn without_xdp_what_arrives_is_metered_at_tc() -> Result<()> {
    let test = "without_xdp_what_arrives_is_metered_at_tc";
    if !root::available(test)? {
        return Ok(());
    }
    let (damaged, link) = (Damaged::new(test, BOTH_XDP)?, Link::new()?);
    let meter = damaged.start(&link.near, &[WIRE])?;
    let warnings = meter.warnings.concat();
    ensure!(warnings.contains("tc ingress") && warnings.contains(WORDS), "{warnings}");
    ensure!(warnings.lines().count() < 12, "{warnings}");
    check_both_directions(&link, meter)?;

    // What was asked for is not replaced.
    let output = damaged.run(&link.near, &["live", WIRE, "--ingress", "xdp"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains(WORDS), "{said}");
    ensure!(said.contains("`flowmeter_xdp`") && said.lines().count() < 12, "{said}");

    let output = damaged.run(&link.near, &["doctor"])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && said.contains(WORDS), "{said}");
    let xdp = said.lines().find(|line| line.contains(" XDP ")).context("nothing of XDP")?;
    ensure!(xdp.starts_with("limited"), "{said}");
    Ok(())
}

#[test]
fn without_fragments_xdp_takes_whole_packets() -> Result<()> {
    let test = "without_fragments_xdp_takes_whole_packets";
    if !root::available(test)? {
        return Ok(());
    }
    let (damaged, link) = (Damaged::new(test, &["flowmeter_xdp"])?, Link::new()?);
    let meter = damaged.start(&link.near, &["--ingress", "xdp", WIRE])?;
    check_both_directions(&link, meter)
}

#[test]
fn what_leaves_is_not_missed_silently() -> Result<()> {
    let test = "what_leaves_is_not_missed_silently";
    if !root::available(test)? {
        return Ok(());
    }
    let (damaged, link) = (Damaged::new(test, &["flowmeter_tc_out"])?, Link::new()?);
    let output = damaged.run(&link.near, &["live", WIRE])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("`flowmeter_tc_out`"), "{said}");
    ensure!(said.contains(WORDS) && said.contains("--direction ingress"), "{said}");

    let meter = damaged.start(&link.near, &["--direction", "ingress", WIRE])?;
    link.near.run("ping", &["-c", "2", "-i", "0.2", "10.9.0.2"])?;
    let log = meter.stop()?;
    log.check_balance()?;
    let flow = log.the(|flow| flow["protocol"] == 1)?;
    ensure!(flow["src2dst_packets"] == 2 && flow["dst2src_packets"] == 0, "{flow:#}");

    let output = damaged.run(&link.near, &["doctor"])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(!output.status.success() && said.contains(WORDS), "{said}");
    Ok(())
}

#[test]
fn without_a_hook_at_sockets_it_goes_on() -> Result<()> {
    let test = "without_a_hook_at_sockets_it_goes_on";
    if !root::available(test)? {
        return Ok(());
    }
    let (damaged, link) = (Damaged::new(test, &["flowmeter_socket"])?, Link::new()?);
    let meter = damaged.start(&link.near, &["--system-visibility-mode", "1", WIRE])?;
    let warnings = meter.warnings.concat();
    ensure!(warnings.contains("cgroup/sock_create") && warnings.contains(WORDS), "{warnings}");
    check_both_directions(&link, meter)
}

/// A server that listens, and leaves the connection to a child; says who they are.
const FORK: &str = "
import os, socket
s = socket.create_server(('10.9.0.1', 7))
child = os.fork()
if child == 0:
    c, _ = s.accept()
    c.sendall(c.recv(100))
    c.recv(100)
    os._exit(0)
print(os.getpid(), child, flush=True)
os.waitpid(child, 0)
";
const ASK: &str = "
import socket, time
deadline = time.time() + 20
while True:
    try:
        c = socket.create_connection(('10.9.0.1', 7))
        break
    except ConnectionRefusedError:
        if time.time() > deadline: raise
        time.sleep(0.05)
c.sendall(b'who')
c.recv(100)
";

#[test]
fn without_word_of_its_use_a_socket_is_not_its_binders() -> Result<()> {
    let test = "without_word_of_its_use_a_socket_is_not_its_binders";
    if !root::available(test)? {
        return Ok(());
    }
    let (first, rest) = (["send", "receive"], ["send4", "send6", "send_page"]);
    let uses = [&first[..], &rest, &["receive4", "receive6", "receive_page"]].concat();
    let uses: Vec<_> = uses.iter().map(|name| format!("flowmeter_{name}")).collect();
    let uses: Vec<_> = uses.iter().map(String::as_str).collect();
    let damaged = Damaged::new(test, &uses)?;
    let link = Link::new()?;
    let args = ["--system-visibility-mode", "1", "--system-visibility-poll-ms", "3600000", WIRE];
    let meter = damaged.start(&link.near, &args)?;
    ensure!(meter.warnings.concat().contains(WORDS), "{:?}", meter.warnings);
    let (near, far) = (&link.near, &link.far);
    let said = std::thread::scope(|scope| {
        let server = scope.spawn(|| near.python(FORK, &[]));
        far.python(ASK, &[])?;
        server.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
    })?;
    let (parent, child) = said.trim().split_once(' ').context("who are they?")?;
    let log = meter.stop()?;
    let flow =
        log.the(|flow| flow["dst_port"] == 7 && flow["dst2src_packets"].as_u64() > Some(2))?;
    let found = flow["dst_process_pid"].to_string();
    ensure!(found == "null" || found == child, "{found}, not {child} of {parent}");
    Ok(())
}
