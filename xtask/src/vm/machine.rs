//! How is a virtual machine run to its end?

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::monitor::{self, Monitor};
use super::packages::Unpacked;
use super::results::{Line, Report};

/// The emulator. KVM is not used: many machines that build software are virtual themselves, and a
/// kernel must not behave otherwise where it is missing.
const QEMU: &str = "qemu-system-x86_64";

/// An old model, of whose features the emulator makes few by itself: with all that it can (`max`), two
/// CPUs hang or crash once in a while, as others have seen, too
/// (<https://github.com/xlab-uiuc/linux-mcdc/issues/4>).
const CPU: &str = "Nehalem";

/// A machine that says nothing for longer hangs. The longest silence of one that did not was a
/// minute, while the host's two CPUs had five programs to run.
const LONGEST_SILENCE: Duration = Duration::from_mins(5);

/// One that takes longer in all is of no use, whatever it does.
const LONGEST: Duration = Duration::from_mins(25);

/// A machine that hangs has listed its processes by then, or it cannot.
const LONGEST_LIST: Duration = Duration::from_mins(1);

/// A kernel has written its last words by then, or it cannot.
const LONGEST_PANIC: Duration = Duration::from_secs(10);

/// Lines of the console that are shown when a machine has failed: a panic has some 40.
const TAIL: usize = 60;

/// How a machine has ended that did not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its job was done.
    Done,
    /// It said nothing for too long.
    Hung,
}

/// A machine, ended with the value.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots the kernel with the initial file system, and takes in what it reports until its job is
/// done. What it says on its console is left in `console`; `show` gets each line that a step prints,
/// and what can be learned of a machine that hangs.
pub fn run(
    unpacked: &Unpacked,
    initial: &Path,
    console: &Path,
    report: &mut Report,
    show: impl Fn(&str),
) -> Result<End> {
    let folder = console.parent().context("a console is in a folder")?;
    // It ends with this process, however that ends.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", QEMU]);
    command.args(["-accel", "tcg,thread=multi", "-cpu", CPU, "-m", "2048", "-smp", "2"]);
    command.args(["-display", "none", "-nic", "none", "-no-reboot"]);
    command.arg("-monitor").arg(format!("unix:{},server,nowait", monitor::SOCKET));
    command.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
    command.arg("-kernel").arg(&unpacked.kernel).arg("-initrd").arg(initial);
    // An oops is a failure, too. An interrupt that nothing explains comes from `last_words`.
    command.args(["-append", "console=ttyS0 quiet panic=1 oops=panic unknown_nmi_panic"]);
    command
        .args(["-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"]);
    command.args(["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]);
    command.current_dir(folder);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
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
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left.min(LONGEST_SILENCE)) {
            Ok(line) => {
                if report.add(&line)? == Line::Output {
                    show(&line);
                }
            }
            Err(RecvTimeoutError::Timeout) if left < LONGEST_SILENCE => {
                bail!("it took more than {} minutes, and was ended", LONGEST.as_secs() / 60)
            }
            Err(RecvTimeoutError::Timeout) => {
                show("it hangs; its processes are asked for, then its CPUs, then its last words");
                list_processes(&mut machine, &lines, &show);
                if let Err(e) = last_words(folder, &lines, &show) {
                    show(&format!("nothing more can be learned of it: {e:#}"));
                }
                return Ok(End::Hung);
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("it ended by itself: {}", machine.0.wait()?)
            }
        }
    }
    Ok(End::Done)
}

/// Has the machine list its processes. One that cannot is worse off than a test that waits for what
/// does not come.
fn list_processes(machine: &mut Machine, lines: &Receiver<String>, show: &impl Fn(&str)) {
    // It has gone, if it takes nothing: then that is seen next.
    if let Some(input) = &mut machine.0.stdin {
        let _ = input.write_all(b"\n");
    }
    if !listen(lines, LONGEST_LIST, |line| line == "watch: end", show) {
        show("its list of processes does not end");
    }
}

/// Asks the emulator where the machine's CPUs are, twice, as one that runs in circles is elsewhere
/// then. Has the kernel panic at last, and so write to its console what it was at.
fn last_words(folder: &Path, lines: &Receiver<String>, show: &impl Fn(&str)) -> Result<()> {
    let mut monitor = Monitor::connect(folder).context("the emulator hangs")?;
    for pause in [Duration::ZERO, Duration::from_secs(1)] {
        thread::sleep(pause);
        monitor::places(&monitor.ask("info registers -a")?).into_iter().for_each(show);
    }
    monitor.ask("nmi")?;
    // It ends itself after its panic.
    listen(lines, LONGEST_PANIC, |_| false, show);
    Ok(())
}

/// Shows what the machine says until `is_last`, and whether that came in time.
fn listen(
    lines: &Receiver<String>,
    longest: Duration,
    is_last: impl Fn(&str) -> bool,
    show: &impl Fn(&str),
) -> bool {
    let deadline = Instant::now() + longest;
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        show(&line);
        if is_last(&line) {
            return true;
        }
    }
    false
}

/// The end of what the machine said on its console.
pub fn tail(console: &Path) -> String {
    let bytes = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let first = lines.len().saturating_sub(TAIL);
    lines.get(first..).unwrap_or_default().join("\n")
}
