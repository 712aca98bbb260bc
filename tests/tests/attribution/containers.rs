//! Do flows of processes in containers say so?
//!
//! No engine is needed for that: the names of the cgroups are what is read, and they are made here.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use serde_json::json;

use super::*;

const CONTAINED: &str = include_str!("contained.py");
const FIRST: &str = include_str!("first.py");

const ID: &str = "7be92808767a667f35c8505cbf40d14e931ef6db5b0210329cf193b15ba9d605";
const POD: &str = "2a0b3f5e-1c2d-4e5f-8a9b-0c1d2e3f4a5b";

/// A cgroup, and what its name says: engine, container, pod, unit and slice; empty if nothing.
type Case = (&'static str, [&'static str; 5]);

/// `ID` and `POD` stand for what is above, `P_O_D` for the pod with underscores.
const CASES: [Case; 9] = [
    (
        "/fm-system.slice/docker-ID.scope",
        ["docker", "ID", "", "docker-ID.scope", "fm-system.slice"],
    ),
    ("/docker/ID", ["docker", "ID", "", "", ""]),
    ("/default/ID", ["containerd", "ID", "", "", ""]),
    (
        "/fm-machine.slice/libpod-ID.scope/container",
        ["podman", "ID", "", "libpod-ID.scope", "fm-machine.slice"],
    ),
    (
        "/fm-machine.slice/machine-deb\\x2d12.scope/payload",
        ["systemd-nspawn", "deb-12", "", "machine-deb-12.scope", "fm-machine.slice"],
    ),
    (
        "/fm-kube.slice/kubepods-burstable-podP_O_D.slice/cri-containerd-ID.scope",
        ["containerd", "ID", "POD", "cri-containerd-ID.scope", "kubepods-burstable-podP_O_D.slice"],
    ),
    (
        "/fm-kube.slice/kubepods-podP_O_D.slice/crio-ID.scope",
        ["cri-o", "ID", "POD", "crio-ID.scope", "kubepods-podP_O_D.slice"],
    ),
    ("/fm-kubepods/besteffort/podPOD/ID", ["kubernetes", "ID", "POD", "", ""]),
    ("/fm-system.slice/fm-plain.service", ["", "", "", "fm-plain.service", "fm-system.slice"]),
];

const COLUMNS: [&str; 5] =
    ["container_runtime", "container_id", "pod_uid", "systemd_unit", "systemd_slice"];

fn filled(text: &str) -> String {
    text.replace("P_O_D", &POD.replace('-', "_")).replace("POD", POD).replace("ID", ID)
}

#[test]
fn containers_are_known_by_their_cgroups() -> Result<()> {
    if !root::available("containers_are_known_by_their_cgroups")? {
        return Ok(());
    }
    let link = Link::new()?;
    // A worker serves one connection at a time.
    let _servers = Servers::start(&link.far, "0.0.0.0", CASES.len() as u32)?;
    let meter = Meter::start(&link.near, &options(&[]))?;
    let mut command = link.near.command("python3");
    command.args(["-c", CONTAINED, "10.9.0.2", PORT]);
    command.args(CASES.map(|(path, _)| filled(path)));
    let mut inside = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdout = BufReader::new(inside.stdout.take().context("it is piped")?);
    let mut told = Vec::new();
    for _ in CASES {
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        told.push(line);
    }
    // The processes are there until now: what is looked up is there to be found.
    let log = meter.stop()?;
    drop(inside.stdin.take());
    let status = inside.wait()?;
    ensure!(status.success(), "{status}");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest)?;
    for (path, wanted) in CASES {
        let path = filled(path);
        let line = told.iter().find(|line| line.trim_end().ends_with(&path));
        let words: Vec<&str> = line.context(path.clone())?.split_whitespace().collect();
        let (port, pid): (u64, u64) = (words[1].parse()?, words[2].parse()?);
        let flow = log.the(|flow| flow["src_port"] == port)?;
        ensure!(flow["src_process_pid"] == pid, "{path}: {flow:#}");
        ensure!(flow["src_cgroup"] == path, "{path}: {flow:#}");
        for (column, wanted) in COLUMNS.into_iter().zip(wanted) {
            let wanted = filled(wanted);
            let wanted = if wanted.is_empty() { Value::Null } else { json!(wanted) };
            for end in ["", "src_"] {
                let found = &flow[format!("{end}{column}")];
                ensure!(*found == wanted, "{path}: {end}{column} is {found}, not {wanted}");
            }
        }
    }
    Ok(())
}

/// When its flow ends, neither the process nor its cgroup is there any more.
#[test]
fn a_containers_only_process_is_its_however_short_it_lives() -> Result<()> {
    if !root::available("a_containers_only_process_is_its_however_short_it_lives")? {
        return Ok(());
    }
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &options(&[]))?;
    let id = |number: u32| format!("{number:064x}");
    let paths: Vec<String> =
        (1..=20).map(|number| format!("/fm-first.slice/docker-{}.scope", id(number))).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    link.near.python(FIRST, &paths)?;
    let log = meter.stop()?;
    for number in 1..=20 {
        let flow = log.the(|flow| flow["src_port"] == 7000 + u64::from(number))?;
        ensure!(flow["container_id"] == id(number).as_str(), "{flow:#}");
        ensure!(flow["container_runtime"] == "docker", "{flow:#}");
    }
    Ok(())
}
