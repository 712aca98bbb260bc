//! A meter that writes to a pipe, and what its output may meet with.

#![expect(unsafe_code, reason = "signals by libc")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::meter::{eventually, number, patience};
use crate::netns::{Link, WIRE};
use crate::program;

/// A flow of one packet from each of so many ports to each of ten, all in a fraction of a second.
pub const FLOOD: &str = "
import socket, sys
for source in range(int(sys.argv[1])):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('10.9.0.1', 20000 + source))
    for port in range(9000, 9100):
        s.sendto(b'x', ('10.9.0.2', port))
    s.close()
";

/// Metering that waits for its output, which soon has no room.
pub const WAITING: [&str; 5] = [
    "--output-queue=1",
    "--when-full=wait",
    "--idle-timeout=0",
    "--performance-report=0.1",
    "--system-visibility-mode=0",
];

/// A meter whose standard output is a pipe.
pub struct Piped {
    child: Child,
    /// What it writes.
    pub stdout: Option<ChildStdout>,
    /// What it says, line by line.
    said: Arc<Mutex<Vec<String>>>,
    listener: Option<JoinHandle<()>>,
}

impl Piped {
    /// Starts one at the near end of a wire, and waits until it meters.
    pub fn start(link: &Link, args: &[&str]) -> Result<Self> {
        let mut command = link.near.command(&program("flowmeter")?.to_string_lossy());
        command.arg("live").args(args).args(["--n-dissections=0", WIRE]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stderr = child.stderr.take().context("standard error is piped")?;
        let stdout = child.stdout.take();
        let said = Arc::<Mutex<Vec<String>>>::default();
        let listener = thread::spawn({
            let said = Arc::clone(&said);
            move || listen(stderr, &said)
        });
        let meter = Self { child, stdout, said, listener: Some(listener) };
        meter.wait_for("flowmeter: metering")?;
        Ok(meter)
    }

    /// Waits until it says a line with this in it.
    pub fn wait_for(&self, text: &str) -> Result<()> {
        let deadline = Instant::now() + patience();
        while !self.has_said(text)? {
            ensure!(Instant::now() < deadline, "no `{text}` in: {:#?}", self.said()?);
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Whether it has said a line with this in it.
    pub fn has_said(&self, text: &str) -> Result<bool> {
        Ok(self.said()?.iter().any(|line| line.contains(text)))
    }

    /// All lines that it has said.
    pub fn said(&self) -> Result<Vec<String>> {
        Ok(self.said.lock().map_err(|_| anyhow::anyhow!("the listener panicked"))?.clone())
    }

    /// Waits until its reports satisfy `enough`.
    pub fn wait_for_report(&self, enough: impl Fn(&Value) -> bool) -> Result<()> {
        let deadline = Instant::now() + patience();
        while !self.reports()?.iter().any(&enough) {
            ensure!(Instant::now() < deadline, "in vain: {:#?}", self.said()?);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until its newest report satisfies `enough`.
    pub fn wait_for_last(&self, enough: impl Fn(&Value) -> bool) -> Result<()> {
        let deadline = Instant::now() + patience();
        while !self.reports()?.last().is_some_and(&enough) {
            ensure!(Instant::now() < deadline, "in vain: {:#?}", self.said()?.last());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Its process: `ip netns exec` becomes the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it gives no more reports: something holds it up.
    pub fn wait_until_held_up(&self) -> Result<()> {
        eventually(|| {
            let before = self.reports()?.len();
            thread::sleep(Duration::from_secs(1));
            ensure!(self.reports()?.len() == before, "it goes on");
            Ok(())
        })
    }

    /// Those of them that are reports.
    pub fn reports(&self) -> Result<Vec<Value>> {
        let lines = self.said()?;
        Ok(lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the child has not been waited for, so the pid is its own.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    /// Waits for its end, and gives its exit code and last report.
    pub fn ended(&mut self) -> Result<(Option<i32>, Value)> {
        let deadline = Instant::now() + patience() * 2;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "it does not end: {:#?}", self.said()?);
            thread::sleep(Duration::from_millis(10));
        };
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        let report = self.reports()?.pop().with_context(|| format!("{:#?}", self.said()))?;
        Ok((status.code(), report))
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(stderr: ChildStderr, said: &Mutex<Vec<String>>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if let Ok(mut said) = said.lock() {
            said.push(line);
        }
    }
}

/// Fails unless every packet is where the report says.
pub fn check(report: &Value) -> Result<()> {
    let packets = |name: &str| number(report, name);
    let handled = ["exported", "withheld", "unwritten", "waiting", "resident"];
    let handled: u64 = handled.iter().map(|name| packets(&format!("packets_{name}"))).sum();
    ensure!(packets("packets_processed") == handled, "{report:#}");
    ensure!(report["balance_error"] == 0, "{report:#}");
    ensure!(packets("packets_lost") == 0, "{report:#}");
    Ok(())
}

/// A folder of a test's own, gone with the value.
pub struct Folder(pub PathBuf);

impl Folder {
    /// Makes one.
    pub fn new(name: &str) -> Result<Self> {
        let name = format!("flowmeter-outputs-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A disk of 256 KiB, gone with the value.
pub struct Disk(Folder);

impl Disk {
    /// Mounts one.
    pub fn new(name: &str) -> Result<Self> {
        let folder = Folder::new(name)?;
        let mount = ["-t", "tmpfs", "-o", "size=256k", "flowmeter"];
        ensure!(Command::new("mount").args(mount).arg(&folder.0).status()?.success(), "no tmpfs");
        Ok(Self(folder))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0.0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
