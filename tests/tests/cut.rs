//! Is a capture that has a part of each frame dissected as far as it goes?

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::captures::pcap;
use flowmeter_tests::packets::{tcp, udp};
use flowmeter_tests::program;
use serde_json::Value;

/// Bytes of a capture's header, and of a record's.
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// A capture of these frames that goes with the value.
struct Capture(PathBuf);

impl Capture {
    /// With no more than `snapshot` bytes of each.
    fn new(name: &str, frames: &[Vec<u8>], snapshot: usize) -> Result<Self> {
        let whole = pcap(frames);
        let (header, mut rest) = whole.split_at(FILE_HEADER);
        let mut bytes = header.to_vec();
        for frame in frames {
            let (record, behind) = rest.split_at(RECORD_HEADER + frame.len());
            let there = frame.len().min(snapshot);
            bytes.extend(&record[..8]);
            bytes.extend((there as u32).to_le_bytes());
            bytes.extend(&record[12..RECORD_HEADER + there]);
            rest = behind;
        }
        let path =
            std::env::temp_dir().join(format!("flowmeter-{name}-{}.pcap", std::process::id()));
        fs::write(&path, bytes)?;
        Ok(Self(path))
    }

    fn read(&self, options: &[&str]) -> Result<Vec<Value>> {
        let output =
            Command::new(program("flowmeter")?).arg("read").args(options).arg(&self.0).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| Ok(serde_json::from_slice(line)?)).collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A request whose host stands in the first 96 bytes of its frame, and one whose host does not; a
/// question, whose answer is cut within its records.
fn frames() -> Vec<Vec<u8>> {
    let ask = |port: u16, text: String| {
        let client = format!("10.0.0.1:{port}");
        tcp().psh().ack().from(&client).to("10.0.0.2:80").body(text.into_bytes()).build()
    };
    let cookie = "x".repeat(300);
    let mut answer = b"\0\x07\x81\x80\0\x01\0\x02\0\0\0\0".to_vec();
    answer.extend(b"\x07example\x03org\0\0\x01\0\x01");
    for last in [1, 2] {
        answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02");
        answer.push(last);
    }
    let mut question = answer[..29].to_vec();
    (question[2], question[3], question[7]) = (1, 0, 0);
    vec![
        ask(1, format!("GET / HTTP/1.1\r\nHost: a.org\r\nCookie: {cookie}\r\n\r\n")),
        ask(2, format!("GET / HTTP/1.1\r\nHost: www.example.org\r\nCookie: {cookie}\r\n\r\n")),
        udp().from("10.0.0.1:3").to("10.0.0.2:53").body(question).build(),
        udp().from("10.0.0.2:53").to("10.0.0.1:3").body(answer).build(),
    ]
}

#[test]
fn what_is_there_is_dissected_and_what_was_cut_is_no_name() -> Result<()> {
    let frames = frames();
    let whole = Capture::new("whole", &frames, usize::MAX)?;
    let cut = Capture::new("cut", &frames, 84)?;
    let rows = cut.read(&[])?;
    let named = |port: u16| -> Result<(&str, &str, u64)> {
        let row =
            rows.iter().find(|row| row["src_port"] == port).context("there is such a flow")?;
        let text = |column: &str| row[column].as_str().unwrap_or("");
        let bytes = row["src2dst_bytes"].as_u64().unwrap_or(0);
        Ok((text("application_name"), text("requested_server_name"), bytes))
    };
    ensure!(named(1)? == ("HTTP", "a.org", frames[0].len() as u64), "{rows:#?}");
    // `www.exam` was there.
    ensure!(named(2)? == ("HTTP", "", frames[1].len() as u64), "{rows:#?}");
    ensure!(named(3)? == ("DNS", "example.org", frames[2].len() as u64), "{rows:#?}");
    // The option is the same as a capture of so many bytes.
    ensure!(whole.read(&["--snapshot-length=84"])? == rows, "not as if it had been cut");
    ensure!(whole.read(&[])? != rows);
    Ok(())
}
