//! What does it cost the host that sockets' processes are reported?
//!
//! Both ends of connections over the loopback, in one thread, without a meter and with one that
//! meters an interface without traffic: what is left of it are the programs at the sockets, and who
//! reads what they tell. The figures are ratios of times an operation, the least of several rounds
//! each, with and without by turns. What an established connection pays is the kernel's way to a
//! program at a tracepoint: it is the same for one that returns at once.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use super::live::{NEAR, Wire, inside};
use crate::command::{is_root, say_and_run};
use crate::run::target_dir;
use crate::{ebpf, root};

/// What the project wants of new connections, and of established ones.
const GOAL: f64 = 1.05;

/// Connections that talk in turn when they are established.
const CONNECTIONS: usize = 100;

/// A piece of work, done this many times. The last number is of operations done before.
type Work = fn(&mut Ends, u32, &mut u32) -> Result<()>;

/// What is said over a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Talk {
    Nothing,
    /// A byte each way.
    Byte,
}

/// What is measured, and how many operations a round has.
const CASES: [(&str, u32, Work); 4] = [
    ("connect and close", 5_000, |ends, count, done| ends.connect(count, done, Talk::Nothing)),
    ("connect, a byte each way, close", 5_000, |ends, count, done| {
        ends.connect(count, done, Talk::Byte)
    }),
    ("write and read 64 bytes, established", 50_000, |ends, count, _| ends.talk(count)),
    ("datagram of 64 bytes, connected", 50_000, |ends, count, _| ends.send(count)),
];

pub fn bench(rounds: u32) -> Result<()> {
    if !is_root() {
        bail!("loading kernel programs needs root");
    }
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--quiet", "--package", "flowmeter-cli"]);
    say_and_run(build.current_dir(root()).env("FLOWMETER_BPF_OBJECT", ebpf::object()))?;
    let _wire = Wire::new()?;
    let mut least = [[f64::INFINITY; CASES.len()]; 2];
    let mut done = 0;
    for _ in 0..rounds {
        for (least, has_meter) in least.iter_mut().zip([false, true]) {
            let _meter = has_meter.then(Meter::start).transpose()?;
            // Made anew, so that the sockets of the second case are not known from the first.
            let mut ends = Ends::new()?;
            for (least, (_, count, work)) in least.iter_mut().zip(CASES) {
                work(&mut ends, count / 10, &mut done)?;
                let started = Instant::now();
                work(&mut ends, count, &mut done)?;
                let ns = started.elapsed().as_nanos() as f64 / f64::from(count);
                *least = least.min(ns);
            }
        }
    }
    println!("{:40} {:>10} {:>10} {:>7}", "ns", "without", "with", "ratio");
    let [without, with] = least;
    for ((what, ..), (without, with)) in CASES.iter().zip(without.into_iter().zip(with)) {
        let ratio = with / without;
        let verdict = if ratio <= GOAL { "met" } else { "missed" };
        println!("{what:40} {without:>10.0} {with:>10.0} {ratio:>7.3}  goal {GOAL}: {verdict}");
    }
    Ok(())
}

/// Sockets at both ends.
struct Ends {
    listener: TcpListener,
    port: u16,
    pairs: Vec<(TcpStream, TcpStream)>,
    datagrams: (UdpSocket, UdpSocket),
}

impl Ends {
    fn new() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let port = listener.local_addr()?.port();
        let any = (Ipv4Addr::LOCALHOST, 0);
        let (from, to) = (UdpSocket::bind(any)?, UdpSocket::bind(any)?);
        from.connect(to.local_addr()?)?;
        to.connect(from.local_addr()?)?;
        let mut ends = Self { listener, port, pairs: Vec::new(), datagrams: (from, to) };
        for _ in 0..CONNECTIONS {
            let pair = ends.pair(Ipv4Addr::LOCALHOST)?;
            pair.0.set_nodelay(true)?;
            ends.pairs.push(pair);
        }
        Ok(ends)
    }

    fn pair(&self, to: Ipv4Addr) -> Result<(TcpStream, TcpStream)> {
        let near = TcpStream::connect((to, self.port))?;
        Ok((near, self.listener.accept()?.0))
    }

    /// Connections one after the other. Each thousand has an address of its own: the ports of one
    /// would be used up.
    fn connect(&mut self, count: u32, done: &mut u32, talk: Talk) -> Result<()> {
        for _ in 0..count {
            let [_, a, b, c] = (*done / 1000 + 2).to_be_bytes();
            *done += 1;
            let mut pair = self.pair(Ipv4Addr::new(127, a, b, c))?;
            if talk == Talk::Byte {
                exchange(&mut pair, &mut [0])?;
            }
        }
        Ok(())
    }

    /// Connections in turn.
    fn talk(&mut self, count: u32) -> Result<()> {
        let pairs = self.pairs.len();
        for number in 0..count as usize {
            let pair = self.pairs.get_mut(number % pairs).context("there are some")?;
            exchange(pair, &mut [0; 64])?;
        }
        Ok(())
    }

    /// Datagrams there and back.
    fn send(&mut self, count: u32) -> Result<()> {
        let (from, to) = &self.datagrams;
        let mut bytes = [0; 64];
        for _ in 0..count {
            from.send(&bytes)?;
            to.recv(&mut bytes)?;
            to.send(&bytes)?;
            from.recv(&mut bytes)?;
        }
        Ok(())
    }
}

/// Some bytes there and back.
fn exchange((near, far): &mut (TcpStream, TcpStream), bytes: &mut [u8]) -> Result<()> {
    near.write_all(bytes)?;
    far.read_exact(bytes)?;
    far.write_all(bytes)?;
    near.read_exact(bytes)?;
    Ok(())
}

/// A meter that sees no traffic, gone with the value.
struct Meter(Child);

impl Meter {
    /// Starts it and waits until it meters.
    fn start() -> Result<Self> {
        let program = target_dir().join("release/flowmeter");
        let mut command = inside(NEAR, &program.to_string_lossy(), &["live", "wire"]);
        command.args(["-o", "/dev/null", "--system-visibility-mode=1", "--n-dissections=0"]);
        let mut child = command.stderr(Stdio::piped()).spawn().context("failed to start it")?;
        let messages = BufReader::new(child.stderr.take().context("it is piped")?);
        let meter = Self(child);
        for line in messages.lines() {
            let line = line?;
            ensure!(line.starts_with("flowmeter: "), "the meter did not start: {line}");
            if line.starts_with("flowmeter: metering") {
                return Ok(meter);
            }
        }
        bail!("the meter did not start");
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
