//! What does the emulator say about a machine?
//!
//! It answers on a socket, by a prompt and lines for people.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// The socket's name in the folder that the emulator runs in.
pub const SOCKET: &str = "monitor";

/// What the monitor ends each answer with.
const PROMPT: &str = "(qemu) ";

/// An emulator that takes longer to answer hangs itself.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);

/// The monitor of a machine.
pub struct Monitor(UnixStream);

impl Monitor {
    /// That of the emulator that runs in the folder.
    pub fn connect(folder: &Path) -> Result<Self> {
        let folder = File::open(folder)?;
        // A socket's path has at most 108 bytes, and the folder may have more.
        let socket = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
        let mut monitor = Self(UnixStream::connect(socket)?);
        monitor.0.set_write_timeout(Some(LONGEST_ANSWER))?;
        monitor.answer()?;
        Ok(monitor)
    }

    /// What it answers to a command, with the command itself before that.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        writeln!(self.0, "{command}").with_context(|| format!("failed to send `{command}`"))?;
        self.answer().with_context(|| format!("no answer to `{command}`"))
    }

    /// What comes until the next prompt.
    fn answer(&mut self) -> Result<String> {
        let deadline = Instant::now() + LONGEST_ANSWER;
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        while !answer.ends_with(PROMPT.as_bytes()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the monitor is silent");
            }
            self.0.set_read_timeout(Some(left))?;
            match self.0.read(&mut part) {
                Ok(0) => bail!("the monitor has closed"),
                Ok(length) => answer.extend(part.iter().take(length)),
                // The deadline is looked at above.
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// Where each CPU is, among all of its registers: its number, instruction, flags, and whether it is
/// halted.
pub fn places(registers: &str) -> Vec<&str> {
    let is_wanted =
        |line: &&str| ["CPU#", "RIP=", "EIP=", "CS ="].iter().any(|name| line.starts_with(name));
    registers.lines().map(str::trim_end).filter(is_wanted).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::{Monitor, places};

    #[test]
    fn a_cpus_place_is_found_among_its_registers() {
        let registers = "i\u{1b}[Kin\u{1b}[Dinfo registers -a\r\n\r\nCPU#0\r\n\
            RAX=ffffffff818bf4a0 RBX=0000000000000000 RCX=0000000000000001 RDX=0000000000018b7e\r\n\
            RIP=ffffffff818bf6be RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n\
            ES =0000 0000000000000000 00000000 00000000\r\n\
            CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]\r\n\
            CR0=80050033 CR2=00007fd1f8a4b3e0 CR3=000000000580a000 CR4=00350ef0\r\n\r\n(qemu) ";
        assert_eq!(
            places(registers),
            [
                "CPU#0",
                "RIP=ffffffff818bf6be RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1",
                "CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]",
            ]
        );
    }

    #[test]
    fn an_answer_ends_with_the_prompt() {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let emulator = thread::spawn(move || {
            let mut theirs = BufReader::new(theirs);
            let mut command = String::new();
            theirs.read_line(&mut command).expect("a command");
            theirs.get_mut().write_all(b"nmi\r\n(qe").expect("it is listened to");
            theirs.get_mut().write_all(b"mu) ").expect("it is listened to");
            command
        });
        let mut monitor = Monitor(ours);
        assert_eq!(monitor.ask("nmi").expect("an answer"), "nmi\r\n(qemu) ");
        assert_eq!(emulator.join().expect("no panic"), "nmi\n");
        assert!(monitor.ask("nmi").is_err(), "who has gone does not answer");
    }
}
