//! What does `flowmeter read` make of a capture?

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::captures::pcap;
use flowmeter_tests::packets::tcp;
use flowmeter_tests::program;
use serde_json::Value;

/// A file that is gone with its test.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What the report says that is printed at the end.
fn report(test: &str, frames: &[Vec<u8>], options: &[&str]) -> Result<Value> {
    let name = format!("flowmeter-read-{test}-{}.pcap", std::process::id());
    let file = Scratch(std::env::temp_dir().join(name));
    fs::write(&file.0, pcap(frames))?;
    let output =
        Command::new(program("flowmeter")?).arg("read").args(options).arg(&file.0).output()?;
    let says = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{says}");
    let line = says.lines().find(|line| line.starts_with('{')).context("there is no report")?;
    Ok(serde_json::from_str(line)?)
}

/// A connection that is refused, and one that is opened and closed: nDPI's risks are about who
/// answered, and how.
#[test]
fn packets_without_payload_are_dissected() -> Result<()> {
    let (client, refuser, server) = ("10.0.0.1:1000", "10.0.0.2:1", "10.0.0.3:2");
    let frames = [
        tcp().syn().from(client).to(refuser).build(),
        tcp().rst().from(refuser).to(client).build(),
        tcp().syn().from(client).to(server).build(),
        tcp().syn().ack().from(server).to(client).build(),
        tcp().ack().from(client).to(server).build(),
        tcp().fin().ack().from(server).to(client).build(),
        tcp().fin().ack().from(client).to(server).build(),
        tcp().ack().from(server).to(client).build(),
    ];
    let report = report("risk", &frames, &[])?;
    ensure!(report["packets_dissected"] == frames.len(), "{report:#}");
    Ok(())
}

/// The report counts the URLs that had a secret, whoever wrote the rows.
#[test]
fn redacted_urls_are_counted() -> Result<()> {
    let (client, server) = ("10.0.0.1:1000", "10.0.0.2:80");
    let request = b"GET /in?token=hunter2 HTTP/1.1\r\nHost: www.example.org\r\n\r\n".to_vec();
    let frames = [
        tcp().syn().from(client).to(server).build(),
        tcp().syn().ack().from(server).to(client).build(),
        tcp().ack().psh().from(client).to(server).body(request).build(),
    ];
    for (options, count) in [
        (["--group=l7-extended", "--redact", "--n-meters=1"], 1),
        (["--group=l7-extended", "--redact", "--n-meters=2"], 1),
        (["--group=l7-extended", "--no-redact", "--n-meters=1"], 0),
    ] {
        let report = report("redact", &frames, &options)?;
        ensure!(report["urls_redacted"] == count, "{options:?}: {report:#}");
    }
    Ok(())
}
