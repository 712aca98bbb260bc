//! Is each process's program told as what it is?

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use super::*;

const PROGRAMS: &str = include_str!("programs.py");

/// A folder for programs, gone with the value.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn programs_are_told_as_what_they_are() -> Result<()> {
    if !root::available("programs_are_told_as_what_they_are")? {
        return Ok(());
    }
    let link = Link::new()?;
    let folder = Folder(std::env::temp_dir().join(format!("fm-programs-{}", std::process::id())));
    fs::create_dir_all(&folder.0)?;
    let meter = Meter::start(&link.near, &options(&[]))?;
    let mut command = link.near.command("python3");
    command.args(["-c", PROGRAMS]).arg(&folder.0);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stdout.take().context("it is piped")?).lines();
    let told: Vec<String> = lines.take(65).collect::<Result<_, _>>()?;
    // Those that stay are there until now.
    let log = meter.stop()?;
    drop(child.stdin.take());
    let status = child.wait()?;
    ensure!(status.success() && told.len() == 65, "{status}: {told:#?}");
    let mut wrong = Vec::new();
    for line in told {
        let truth: Value = serde_json::from_str(&line)?;
        let what = truth["what"].as_str().context("it says what it is")?;
        let flow = log.the(|flow| {
            let is = |column| truth[column].is_null() || flow[column] == truth[column];
            is("src_port") && is("dst_port")
        })?;
        for (column, value) in truth.as_object().context("an object")? {
            let is_right = match column.as_str() {
                "what" | "src_port" => true,
                "in_cmdline" => {
                    let text = flow["process_cmdline"].as_str().unwrap_or_default();
                    value.as_str().is_some_and(|part| text.contains(part))
                }
                "process_args_0" => flow["process_args"][0] == *value,
                "in_ancestor_pids" => flow["process_ancestor_pids"][0] == *value,
                "in_ancestor_exes" => flow["process_ancestor_exes"][0] == *value,
                column => flow[column] == *value,
            };
            if !is_right {
                wrong.push(format!("{what}: {column} is {}, not {value}", flow[column]));
            }
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// Sends a datagram, and another one for a line of standard input, then ends.
const LEAVES: &str = "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b'x', ('10.9.0.2', 7))
print(s.getsockname()[1], flush=True)
sys.stdin.readline()
s.sendto(b'x', ('10.9.0.2', 7))
";

#[test]
fn a_process_found_by_polling_is_known_after_it_has_gone() -> Result<()> {
    if !root::available("a_process_found_by_polling_is_known_after_it_has_gone")? {
        return Ok(());
    }
    let link = Link::new()?;
    let mut command = link.near.command("python3");
    command.args(["-c", LEAVES]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut port = String::new();
    BufReader::new(child.stdout.take().context("it is piped")?).read_line(&mut port)?;
    let meter = Meter::start_without_hooks(&link.near, &options(&[]))?;
    child.stdin.take().context("it is piped")?.write_all(b"\n")?;
    child.wait()?;
    let log = meter.stop()?;
    let port: u64 = port.trim().parse()?;
    let flow = log.the(|flow| flow["src_port"] == port)?;
    ensure!(flow["attribution_method"] == "procfs", "{flow:#}");
    let exe = flow["process_exe"].as_str().unwrap_or_default();
    ensure!(exe.contains("python") && flow["process_args"][1] == "-c", "{flow:#}");
    Ok(())
}
