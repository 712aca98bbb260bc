//! Does `flowmeter read` write the same with any number of workers?

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Result, ensure};
use flowmeter_tests::program;
use serde_json::Value;

/// A folder that is gone with its test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Result<Self> {
        let name = format!("flowmeter-workers-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A capture of 20 MB: 60,000 packets of HTTP requests and their answers between 64 hosts, with
/// conversations that end, pause for longer than the idle timeout, and go on at the end.
fn capture(path: &Path) -> Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    for field in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        out.write_all(&field.to_le_bytes())?;
    }
    let mut random = 7_u64;
    for n in 0..60_000_u32 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let draw = (random >> 33) as u32;
        let frame = frame(draw);
        let length = frame.len() as u32;
        // A packet every 5 ms, so that some flows are idle for a second and others are not.
        for field in [1_600_000_000 + n / 200, n % 200 * 5_000, length, length] {
            out.write_all(&field.to_le_bytes())?;
        }
        out.write_all(&frame)?;
    }
    out.flush()?;
    Ok(())
}

fn frame(draw: u32) -> Vec<u8> {
    let [client, port, kind, _] = draw.to_le_bytes();
    let forth = kind & 1 == 0;
    let client_end = ([10, 0, 0, client & 63], 40_000 + u16::from(port & 7));
    let server_end = ([192, 0, 2, client & 7], 80);
    let (src, dst) = if forth { (client_end, server_end) } else { (server_end, client_end) };
    let payload = b"GET / HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: test\r\n\r\n";
    let mut payload = payload.to_vec();
    payload.resize(if forth { payload.len() } else { 600 }, b'x');
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0];
    frame.extend((40 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend(src.0);
    frame.extend(dst.0);
    frame.extend(src.1.to_be_bytes());
    frame.extend(dst.1.to_be_bytes());
    frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x18, 255, 255, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
}

fn read(args: &[&str], file: &str, stdin: Option<&Path>) -> Result<Output> {
    let mut command = Command::new(program("flowmeter")?);
    command.args(["read", "--statistical-analysis", "--splt-analysis=5"]).args(args).arg(file);
    if let Some(path) = stdin {
        command.stdin(Stdio::from(File::open(path)?));
    }
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

#[test]
fn rows_and_their_order_do_not_depend_on_the_workers() -> Result<()> {
    let scratch = Scratch::new("same")?;
    let path = scratch.0.join("capture.pcap");
    capture(&path)?;
    let file = path.to_string_lossy();
    for options in [
        &["--n-dissections=5", "--idle-timeout=1"][..],
        &["--n-dissections=0", "--idle-timeout=1", "--active-timeout=2", "--format=csv", "-o-"],
        &["--n-dissections=0", "--idle-timeout=0", "--max-nflows=12345"],
    ] {
        let with = |workers: &str| -> Result<Vec<u8>> {
            Ok(read(&[options, &["--n-meters", workers]].concat(), &file, None)?.stdout)
        };
        let one = with("1")?;
        ensure!(one.split(|b| *b == b'\n').count() > 500, "too few flows to tell anything");
        for workers in ["2", "3", "8", "100", "0"] {
            ensure!(with(workers)? == one, "{workers} workers write something else: {options:?}");
        }
    }
    Ok(())
}

#[test]
fn standard_input_is_shared_out_too() -> Result<()> {
    let scratch = Scratch::new("stdin")?;
    let path = scratch.0.join("capture.pcap");
    capture(&path)?;
    let options = ["--n-dissections=0", "--n-meters=3"];
    let from_file = read(&options, &path.to_string_lossy(), None)?.stdout;
    ensure!(read(&options, "-", Some(&path))?.stdout == from_file);
    Ok(())
}

#[test]
fn every_frame_is_accounted_for() -> Result<()> {
    let scratch = Scratch::new("books")?;
    let path = scratch.0.join("capture.pcap");
    capture(&path)?;
    for workers in ["1", "2"] {
        let output = read(&["--n-meters", workers], &path.to_string_lossy(), None)?;
        let report: Value = serde_json::from_slice(&output.stderr)?;
        let counts = ["packets_seen", "packets_processed", "packets_exported", "balance_error"];
        ensure!(counts.map(|name| report[name].as_u64()) == [60_000, 60_000, 60_000, 0].map(Some));
    }
    Ok(())
}
