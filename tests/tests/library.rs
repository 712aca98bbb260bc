//! Can a program meter without the command? The library's examples do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::captures::pcap;
use flowmeter_tests::netns::{Link, WIRE};
use flowmeter_tests::packets::udp;
use flowmeter_tests::{program, root};

#[test]
fn a_capture_is_metered_into_a_closure() -> Result<()> {
    let frames = [udp().from("10.0.0.1:40000").to("10.0.0.2:7").payload(5).build()];
    let file = std::env::temp_dir().join(format!("flowmeter-library-{}.pcap", std::process::id()));
    std::fs::write(&file, pcap(&frames))?;
    let output = Command::new(program("examples/capture")?).arg(&file).output()?;
    std::fs::remove_file(&file)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    ensure!(text.starts_with("10.0.0.1:40000 → 10.0.0.2:7 1 packets, 47 bytes, "), "{text}");
    ensure!(text.ends_with("1 flows, 1 packets\n"), "{text}");
    Ok(())
}

#[test]
fn an_interface_is_metered_into_a_channel() -> Result<()> {
    if !root::available("an_interface_is_metered_into_a_channel")? {
        return Ok(());
    }
    let link = Link::new()?;
    let mut command = link.near.command(&program("examples/interface")?.to_string_lossy());
    command.arg(WIRE).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut example = command.spawn()?;
    let mut notices = BufReader::new(example.stderr.take().context("it is piped")?).lines();
    let is_metering =
        |line: Result<String, _>| line.is_ok_and(|l| l.starts_with("metering `wire`"));
    ensure!(notices.any(is_metering), "it has ended without metering");
    link.near.run("bash", &["-c", "echo hello > /dev/udp/10.9.0.2/9"])?;
    // Enter.
    example.stdin.take().context("it is piped")?.write_all(b"\n")?;
    let output = example.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{text}");
    ensure!(text.lines().any(|l| l == "10.9.0.1 → 10.9.0.2 by bash"), "{text}");
    let report = text.lines().last().context("there is a report")?;
    let report: serde_json::Value = serde_json::from_str(report)?;
    ensure!(report["balance_error"] == 0, "{report}");
    Ok(())
}
