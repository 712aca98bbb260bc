//! Two hosts on a wire: network namespaces joined by veth, gone with the value.

#![expect(unsafe_code, reason = "signals by libc")]

use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};

/// Two network namespaces joined by a pair of veth interfaces called `wire`.
pub struct Link {
    /// Where the meter usually is: 10.9.0.1 and `fd09::1`.
    pub near: Host,
    /// The other end: 10.9.0.2 and `fd09::2`.
    pub far: Host,
}

/// A network namespace.
pub struct Host {
    name: String,
}

/// A process that runs on a host while the value lives.
pub struct Background(Child);

/// The interface's name in both namespaces.
pub const WIRE: &str = "wire";

impl Link {
    /// Makes the namespaces and the wire.
    pub fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let base = format!("fm{}x{number}", std::process::id());
        let near = Host::new(format!("{base}a"))?;
        let far = Host::new(format!("{base}b"))?;
        ip(&[
            "link", "add", WIRE, "netns", &near.name, "type", "veth", "peer", "name", WIRE,
            "netns", &far.name,
        ])?;
        for (host, n) in [(&near, 1), (&far, 2)] {
            let inside = |args: &[&str]| ip(&[&["-n", &host.name], args].concat());
            inside(&["addr", "add", &format!("10.9.0.{n}/24"), "dev", WIRE])?;
            inside(&["addr", "add", &format!("fd09::{n}/64"), "dev", WIRE, "nodad"])?;
            inside(&["link", "set", "lo", "up"])?;
        }
        for host in [&near, &far] {
            ip(&["-n", &host.name, "link", "set", WIRE, "up"])?;
        }
        Ok(Self { near, far })
    }
}

impl Host {
    fn new(name: String) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        Ok(Self { name })
    }

    /// The namespace's name, as `ip netns` has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Packets that its end of the wire had no room for, on the way out or in, and segments that
    /// TCP has sent again.
    pub fn disturbances(&self) -> Result<u64> {
        let snmp = self.run("cat", &["/proc/net/snmp"])?.stdout;
        let snmp = String::from_utf8_lossy(&snmp).into_owned();
        let mut tcp = snmp.lines().filter(|line| line.starts_with("Tcp:"));
        let (names, values) = (tcp.next().unwrap_or(""), tcp.next().unwrap_or(""));
        let at = names.split(' ').position(|name| name == "RetransSegs");
        let again = values.split(' ').nth(at.context("no `RetransSegs`")?);
        let mut sum = again.context("no value for `RetransSegs`")?.parse::<u64>()?;
        for counter in ["tx_dropped", "rx_dropped"] {
            let path = format!("/sys/class/net/{WIRE}/statistics/{counter}");
            let text = self.run("cat", &[&path])?.stdout;
            sum += String::from_utf8_lossy(&text).trim().parse::<u64>()?;
        }
        Ok(sum)
    }

    /// A command that runs here.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).stdin(Stdio::null());
        command
    }

    /// Runs a command here to its end and fails if it does.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<Output> {
        let output = self.command(program).args(args).output()?;
        ensure!(
            output.status.success(),
            "`{program} {}` failed: {}{}",
            args.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output)
    }

    /// Runs a Python program here, with arguments: the traffic that needs no program of its own.
    pub fn python(&self, program: &str, args: &[&str]) -> Result<String> {
        let output = self.run("python3", &[&["-c", program], args].concat())?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Background {
    /// Starts a program, whose output nobody reads.
    pub fn start(host: &Host, program: &str, args: &[&str]) -> Result<Self> {
        let mut command = host.command(program);
        command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    /// Sends it a signal and waits for its end.
    pub fn stop(mut self, signal: i32) -> Result<()> {
        // SAFETY: the child has not been waited for, so the pid is its own.
        unsafe { libc::kill(self.0.id().cast_signed(), signal) };
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(args).output().context("the tests need iproute2")?;
    ensure!(
        output.status.success(),
        "`ip {}` failed: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
