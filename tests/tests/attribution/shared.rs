//! Does a flow have the program that used its socket during the flow, and none that came before or
//! after?

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::meter::Meter;
use flowmeter_tests::netns::{Background, Link};
use flowmeter_tests::root;
use serde_json::Value;

use crate::{eventually, options};

const SHARED: &str = include_str!("shared.py");
const SINK: &str = include_str!("sink.py");
const INETD: &str = include_str!("inetd.py");

/// The columns of one program: its executable and its arguments say the same, if they are known.
fn is_of_one_program(flow: &Value, exe: &str) -> bool {
    let has = |column: &str| flow[column].as_str().is_none_or(|text| text.contains(exe));
    has("process_exe") && has("process_cmdline")
}

#[test]
fn a_flow_has_who_used_the_socket_in_it_with_the_program_of_then() -> Result<()> {
    if !root::available("a_flow_has_who_used_the_socket_in_it_with_the_program_of_then")? {
        return Ok(());
    }
    let link = Link::new()?;
    let _sink = Background::start(&link.far, "python3", &["-c", SINK])?;
    eventually(|| {
        let listed = link.far.run("ss", &["-Hltun"])?.stdout;
        Ok(String::from_utf8_lossy(&listed).lines().filter(|line| line.contains(":80")).count()
            == 10)
    })?;
    let meter = Meter::start(&link.near, &options(&[]))?;
    let told = link.near.python(SHARED, &["10.9.0.2"])?;
    let log = meter.stop()?;
    ensure!(told.lines().count() == 30, "{told}");
    let mut wrong = Vec::new();
    for line in told.lines() {
        let words: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [port, pid, users] = words[..] else { continue };
        let exe = line.split(' ').nth(2).context("a word")?;
        let flow = log.the(|flow| flow["dst_port"] == port)?;
        let shared = (users > 1).then(|| format!("first of {users}"));
        let is_right = flow["src_process_pid"] == pid
            && is_of_one_program(flow, exe)
            && flow["attribution_shared"].as_str() == shared.as_deref();
        if !is_right {
            wrong.push(format!(
                "{line}: {} {} {} {} {} {}",
                flow["src_process_pid"],
                flow["src_process_name"],
                flow["attribution_others"],
                flow["process_exe"],
                flow["process_cmdline"],
                flow["attribution_shared"]
            ));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn who_only_peeks_does_not_serve() -> Result<()> {
    if !root::available("who_only_peeks_does_not_serve")? {
        return Ok(());
    }
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &options(&[]))?;
    let mut server = link.near.command("python3");
    server.args(["-c", INETD, "8011"]).stdout(std::process::Stdio::piped());
    let server = server.spawn()?;
    eventually(|| {
        let listed = link.near.run("ss", &["-Hltn"])?.stdout;
        Ok(String::from_utf8_lossy(&listed).contains(":8011 "))
    })?;
    let ask =
        "exec 9<>/dev/tcp/10.9.0.1/8011; echo hello >&9; read answer <&9; [ \"$answer\" = hello ]";
    for _ in 0..3 {
        link.far.run("bash", &["-c", ask])?;
    }
    let told = String::from_utf8(server.wait_with_output()?.stdout)?;
    let log = meter.stop()?;
    let pids: Vec<u64> = told.lines().filter_map(|line| line.parse().ok()).collect();
    let flows: Vec<_> = log.flows.iter().filter(|flow| flow["dst_port"] == 8011).collect();
    ensure!(pids.len() == 3 && flows.len() == 3, "{told}");
    for flow in flows {
        let pid = flow["dst_process_pid"].as_u64().unwrap_or_default();
        let is_right = pids.contains(&pid) && flow["dst_process_name"] == "bash";
        ensure!(is_right && is_of_one_program(flow, "bash"), "{pids:?}: {flow:#}");
        ensure!(flow["attribution_shared"].is_null(), "{flow:#}");
    }
    Ok(())
}
