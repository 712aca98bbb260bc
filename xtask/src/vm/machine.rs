//! How is a virtual machine run to its end?

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::packages::Unpacked;
use super::results::{Line, Report};

/// The emulator. KVM is not used: many machines that build software are virtual themselves, and a
/// kernel must not behave otherwise where it is missing.
const QEMU: &str = "qemu-system-x86_64";

/// A machine that says nothing for longer hangs.
const LONGEST_SILENCE: Duration = Duration::from_mins(8);

/// One that takes longer in all is of no use, whatever it does.
const LONGEST: Duration = Duration::from_mins(25);

/// Lines of the console that are shown when a machine has failed.
const TAIL: usize = 25;

/// A machine, ended with the value.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots the kernel with the initial file system, and takes in what it reports until its job is
/// done. What it says on its console is left in `console`; `show` gets each line that a step prints.
pub fn run(
    unpacked: &Unpacked,
    initial: &Path,
    console: &Path,
    report: &mut Report,
    show: impl Fn(&str),
) -> Result<()> {
    // It ends with this process, however that ends.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", QEMU]);
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", "2048", "-smp", "2"]);
    command.args(["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"]);
    command.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
    command.arg("-kernel").arg(&unpacked.kernel).arg("-initrd").arg(initial);
    // An oops is a failure, too.
    command.args(["-append", "console=ttyS0 quiet panic=1 oops=panic"]);
    command
        .args(["-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"]);
    command.args(["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut machine = Machine(child.with_context(|| format!("failed to run `{QEMU}`"))?);
    let output = machine.0.stdout.take().context("its output is piped")?;
    let (sender, lines) = mpsc::channel();
    // It ends with the machine's output, and that with the machine.
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });

    let deadline = Instant::now() + LONGEST;
    while !report.is_done {
        let patience = deadline.saturating_duration_since(Instant::now()).min(LONGEST_SILENCE);
        match lines.recv_timeout(patience) {
            Ok(line) => {
                if report.add(&line)? == Line::Output {
                    show(&line);
                }
            }
            Err(RecvTimeoutError::Timeout) => bail!("it hangs, and was ended"),
            Err(RecvTimeoutError::Disconnected) => {
                bail!("it ended by itself: {}", machine.0.wait()?)
            }
        }
    }
    Ok(())
}

/// The end of what the machine said on its console.
pub fn tail(console: &Path) -> String {
    let bytes = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let first = lines.len().saturating_sub(TAIL);
    lines.get(first..).unwrap_or_default().join("\n")
}
