//! A running `flowmeter live`, and what it has written.

#![expect(unsafe_code, reason = "signals and polls by libc")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::netns::Host;
use crate::program;

/// A running meter. Ended with the value, if not before.
pub struct Meter {
    child: Child,
    messages: BufReader<ChildStderr>,
    log: PathBuf,
    /// What it said before it metered.
    pub warnings: Vec<String>,
}

/// What a meter leaves.
pub struct Log {
    /// The flows.
    pub flows: Vec<Value>,
    /// The last report.
    pub report: Value,
}

/// What tests wait for comes within this time, or not at all. An emulated machine is slower:
/// `FLOWMETER_PATIENCE` says how many times.
pub fn patience() -> Duration {
    Duration::from_secs(20) * slowness()
}

/// How many times slower than others this machine is, by `FLOWMETER_PATIENCE`; 1 if it is not set.
pub fn slowness() -> u32 {
    std::env::var("FLOWMETER_PATIENCE").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// What the meter says once it is sure comes within this time: it looks at some things for longer.
fn long_patience() -> Duration {
    patience() * 4
}

impl Meter {
    /// Starts a meter and waits until it meters.
    pub fn start(host: &Host, args: &[&str]) -> Result<Self> {
        Self::start_program(host, &program("flowmeter")?, args)
    }

    /// Starts another program than the one that was built.
    pub fn start_program(host: &Host, program: &Path, args: &[&str]) -> Result<Self> {
        Self::run(host.command(&program.to_string_lossy()), args)
    }

    /// Starts a meter by a program that runs the rest of its arguments, and waits until it meters.
    pub fn start_by(host: &Host, by: &[&str], args: &[&str]) -> Result<Self> {
        let (program_by, rest) = by.split_first().context("no program")?;
        let mut command = host.command(program_by);
        command.args(rest).arg(program("flowmeter")?);
        Self::run(command, args)
    }

    /// Starts a meter that finds no way to the sockets, and waits until it meters. Its mounts are
    /// its own: the kernel's type information is covered up, which hooks at tracepoints need, and
    /// without the capability to mount, the cgroups that `ip netns exec` hides stay hidden.
    pub fn start_without_hooks(host: &Host, args: &[&str]) -> Result<Self> {
        const COVER: &str = "mount --bind /dev/null /sys/kernel/btf/vmlinux \
            && exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin \"$0\" \"$@\"";
        let mut command = host.command("sh");
        command.args(["-c", COVER]).arg(program("flowmeter")?);
        Self::run(command, args)
    }

    /// Starts a meter by a command that ends with the program, and waits until it meters.
    pub fn start_command(command: Command, args: &[&str]) -> Result<Self> {
        Self::run(command, args)
    }

    fn run(mut command: Command, args: &[&str]) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir()
            .join(format!("flowmeter-live-{}-{number}.jsonl", std::process::id()));
        let _ = fs::remove_file(&log);
        let mut child = command
            .arg("live")
            .args(args)
            .arg("--output")
            .arg(&log)
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().context("standard error is piped")?;
        let mut meter = Self { child, messages: BufReader::new(stderr), log, warnings: Vec::new() };
        loop {
            let line = meter.message()?;
            if line.starts_with("flowmeter: metering") {
                return Ok(meter);
            }
            // A warning comes before, with what goes on behind it; an error instead.
            let is_warning = line.starts_with("flowmeter: warning") || line.starts_with("  ");
            ensure!(is_warning, "the meter did not start: {line}");
            meter.warnings.push(line);
        }
    }

    /// Its process. `ip netns exec` becomes the program, so it is the meter itself; `unshare --fork`
    /// has it for its only child.
    pub fn pid(&self) -> i32 {
        let started = self.child.id().cast_signed();
        let read = |file: &str| fs::read_to_string(format!("/proc/{started}/{file}"));
        if read("comm").is_ok_and(|name| name.trim_end() == "flowmeter") {
            return started;
        }
        let child = read(&format!("task/{started}/children"));
        child.ok().and_then(|child| child.trim().parse().ok()).unwrap_or(started)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the child has not been waited for, so the pid is its own.
        unsafe { libc::kill(self.pid(), signal) };
    }

    /// Where it writes its flows.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The flows written by now.
    pub fn flows(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        // The meter may be in the midst of writing.
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        whole.lines().map(|line| serde_json::from_str(line).context(line.to_owned())).collect()
    }

    /// Waits until the flows written satisfy `enough`.
    pub fn wait_for(&self, enough: impl Fn(&[Value]) -> bool) -> Result<Vec<Value>> {
        let deadline = Instant::now() + patience();
        loop {
            let flows = self.flows()?;
            if enough(&flows) {
                return Ok(flows);
            }
            if Instant::now() > deadline {
                bail!("in vain: {} flows, {flows:#?}", flows.len());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it says something that satisfies `wanted`.
    pub fn wait_for_message(&mut self, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let deadline = Instant::now() + long_patience();
        let mut said = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(self.says_something(left)?, "in vain: {said:#?}");
            let line = self.message()?;
            ensure!(!line.is_empty(), "it has ended: {said:#?}");
            if wanted(&line) {
                return Ok(());
            }
            said.push(line);
        }
    }

    /// Waits until there is something to read on standard error; false if not for so long.
    fn says_something(&self, longest: Duration) -> Result<bool> {
        if !self.messages.buffer().is_empty() {
            return Ok(true);
        }
        let fd = self.messages.get_ref().as_raw_fd();
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let timeout = i32::try_from(longest.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: there is one descriptor, which is open.
        let ready = unsafe { libc::poll(&raw mut poll, 1, timeout) };
        ensure!(ready >= 0, "{}", std::io::Error::last_os_error());
        Ok(ready > 0)
    }

    /// Ends it as a user does, and takes what it has written.
    pub fn stop(mut self) -> Result<Log> {
        self.signal(libc::SIGINT);
        let mut report = Value::Null;
        loop {
            let line = self.message()?;
            if line.is_empty() {
                break;
            }
            if let Ok(value) = serde_json::from_str(&line) {
                report = value;
            }
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "the meter failed: {status}");
        let flows = self.flows()?.into_iter().filter(|flow| flow.get("type").is_none()).collect();
        Ok(Log { flows, report })
    }

    fn message(&mut self) -> Result<String> {
        let mut line = String::new();
        self.messages.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.log);
    }
}

impl Log {
    /// Fails unless every packet is accounted for.
    pub fn check_balance(&self) -> Result<()> {
        for (what, wanted) in [("balance_error", 0), ("packets_resident", 0)] {
            ensure!(self.report[what] == wanted, "{what} in {:#}", self.report);
        }
        ensure!(
            self.report["packets_processed"] == self.report["packets_exported"],
            "{:#}",
            self.report
        );
        let packets: u64 = self.flows.iter().map(|f| number(f, "bidirectional_packets")).sum();
        ensure!(self.report["packets_exported"] == packets, "{packets} in the log");
        Ok(())
    }

    /// The one flow of which `is` says so.
    pub fn the(&self, is: impl Fn(&Value) -> bool) -> Result<&Value> {
        let mut found = self.flows.iter().filter(|flow| is(flow));
        let flow = found.next().with_context(|| format!("no such flow in {:#?}", self.flows))?;
        ensure!(found.next().is_none(), "more than one such flow in {:#?}", self.flows);
        Ok(flow)
    }
}

/// Tries until it works: a server takes a moment to listen.
pub fn eventually<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + patience();
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            result => return result,
        }
    }
}

/// A column that is a number.
pub fn number(flow: &Value, column: &str) -> u64 {
    flow[column].as_u64().unwrap_or(0)
}
