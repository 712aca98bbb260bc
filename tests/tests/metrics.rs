//! Can Prometheus read the figures of a live run? Its own tools say so. Needs root.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use flowmeter_tests::meter::{Meter, eventually};
use flowmeter_tests::netns::{Background, Host, Link, WIRE};
use flowmeter_tests::piped::{FLOOD, Piped, WAITING};
use flowmeter_tests::{program, root};
use serde_json::Value;

const ADDRESS: &str = "127.0.0.1:9812";
const URL: &str = "http://127.0.0.1:9812/metrics";

/// What is removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("flowmeter-{test}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What is at an address, asked for in a format.
fn scrape(host: &Host, accept: &str) -> Result<String> {
    let accept = format!("Accept: {accept}");
    let output = host.run("curl", &["-sS", "--fail", "--max-time", "30", "-H", &accept, URL])?;
    Ok(String::from_utf8(output.stdout)?)
}

/// What `promtool` finds wrong with metrics.
fn faults(metrics: &str) -> Result<String> {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("it is piped")?.write_all(metrics.as_bytes())?;
    let Output { status, stdout, stderr } = child.wait_with_output()?;
    let said = [stdout, stderr].concat();
    Ok(format!(
        "{}{}",
        String::from_utf8_lossy(&said),
        if status.success() { "" } else { "failed" }
    ))
}

/// The value of a sample.
fn value(metrics: &str, sample: &str) -> Result<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    let line = line.with_context(|| format!("no `{sample}` in {metrics}"))?;
    Ok(line.parse()?)
}

#[test]
fn prometheus_reads_what_the_report_says() -> Result<()> {
    if !root::available("prometheus_reads_what_the_report_says")? {
        return Ok(());
    }
    let (link, folder) = (Link::new()?, Folder::new("metrics")?);
    let file = folder.path("flowmeter.prom");
    let options = ["--metrics-listen", ADDRESS, "--metrics-file", &file, WIRE];
    let meter = Meter::start(&link.near, &options)?;
    link.near.run("ping", &["-c", "5", "-i", "0.05", "10.9.0.2"])?;
    let metered = r#"flowmeter_direction_metered_total{interface="wire",direction="egress"}"#;
    let text = eventually(|| {
        let text = scrape(&link.near, "*/*")?;
        ensure!(value(&text, metered)? >= 5.0, "{text}");
        Ok(text)
    })?;
    assert_eq!(faults(&text)?, "");
    ensure!(text.contains("\nflowmeter_balance_error 0\n"), "{text}");

    // The server itself, which asks for OpenMetrics.
    let config = folder.path("prometheus.yml");
    let jobs = format!(
        "global: {{scrape_interval: 1s}}\n\
         scrape_configs: [{{job_name: flowmeter, static_configs: [{{targets: ['{ADDRESS}']}}]}}]\n"
    );
    fs::write(&config, jobs)?;
    let (config, data) = (format!("--config.file={config}"), folder.path("data"));
    let storage = format!("--storage.tsdb.path={data}");
    let listen = "--web.listen-address=127.0.0.1:9090";
    let _server = Background::start(&link.near, "prometheus", &[&config, &storage, listen])?;
    let query = "http://127.0.0.1:9090/api/v1/query?query=flowmeter_direction_metered_total";
    let found = eventually(|| {
        let answer = link.near.run("curl", &["-sS", "--fail", query])?;
        let answer: Value = serde_json::from_slice(&answer.stdout)?;
        let results = answer["data"]["result"].as_array().context("no result")?;
        let is_egress = |result: &&Value| result["metric"]["direction"] == "egress";
        let egress = results.iter().find(is_egress).context("no such series yet")?;
        Ok(egress["value"][1].as_str().context("it is a text")?.parse::<f64>()?)
    })?;
    ensure!(found >= 5.0, "{found}");

    let log = meter.stop()?;
    log.check_balance()?;
    // The last figures are those of the last report.
    let text = fs::read_to_string(&file)?;
    assert_eq!(faults(&text)?, "");
    for direction in ["ingress", "egress"] {
        let sample = format!(
            r#"flowmeter_direction_metered_total{{interface="wire",direction="{direction}"}}"#
        );
        let reported = log.report["interfaces"][0][direction]["metered"].as_f64();
        assert_eq!(Some(value(&text, &sample)?), reported, "{direction}");
    }
    let seconds = log.report["time_ns"].as_u64().context("a time")? as f64 / 1e9;
    ensure!((value(&text, "flowmeter_time_seconds")? - seconds).abs() < 1e-3);
    Ok(())
}

#[test]
fn whoever_connects_cannot_hold_up_the_meter() -> Result<()> {
    if !root::available("whoever_connects_cannot_hold_up_the_meter")? {
        return Ok(());
    }
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &["--metrics-listen", ADDRESS, WIRE])?;
    let ask = |options: &[&str], url: &str| -> Result<String> {
        let format = ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "60"];
        let output = link.near.run("curl", &[&format[..], options, &[url]].concat())?;
        Ok(String::from_utf8(output.stdout)?)
    };
    // More connections than there is room for, which say nothing, or without end.
    let silent = "import socket, sys, time\n\
                  ends = [socket.create_connection(('127.0.0.1', 9812)) for _ in range(60)]\n\
                  for end in ends[::2]: end.send(b'GET /metrics HTTP/1.1\\r\\nX: ' + b'x' * 9000)\n\
                  print('connected', flush=True)\n\
                  time.sleep(1000)\n";
    let _silent = Background::start(&link.near, "python3", &["-c", silent])?;
    eventually(|| {
        let sockets = link.near.run("ss", &["-Htn", "dport", "=", "9812"])?;
        let lines = String::from_utf8_lossy(&sockets.stdout).lines().count();
        ensure!(lines >= 60, "{lines} connections");
        Ok(())
    })?;
    link.near.run("ping", &["-c", "3", "-i", "0.05", "10.9.0.2"])?;
    let descriptors = fs::read_dir(format!("/proc/{}/fd", meter.pid()))?.count();
    ensure!(descriptors < 200, "{descriptors} descriptors");
    assert_eq!(ask(&[], URL)?, "200");
    assert_eq!(ask(&["--head"], URL)?, "200");
    assert_eq!(ask(&["--data", "x"], URL)?, "405");
    assert_eq!(ask(&[], "http://127.0.0.1:9812/")?, "404");
    let log = meter.stop()?;
    log.check_balance()
}

#[test]
fn clients_that_give_up_while_the_meter_is_held_up_leave_nothing() -> Result<()> {
    if !root::available("clients_that_give_up_while_the_meter_is_held_up_leave_nothing")? {
        return Ok(());
    }
    let link = Link::new()?;
    let options = [&WAITING[..], &["--metrics-listen", ADDRESS]].concat();
    let meter = Piped::start(&link, &options)?;
    link.near.python(FLOOD, &["60"])?;
    meter.wait_until_held_up()?;
    for _ in 0..40 {
        let mut impatient = link.near.command("curl");
        ensure!(!impatient.args(["-sS", "--max-time", "0.05", URL]).output()?.status.success());
    }
    let threads = fs::read_dir(format!("/proc/{}/task", meter.pid()))?.count();
    ensure!(threads < 20, "{threads} threads");
    let format = ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "60"];
    let patient = link.near.run("curl", &[&format[..], &[URL]].concat())?;
    assert_eq!(String::from_utf8(patient.stdout)?, "503");
    Ok(())
}

#[test]
fn what_cannot_be_shown_is_said_before_anything_is_attached() -> Result<()> {
    if !root::available("what_cannot_be_shown_is_said_before_anything_is_attached")? {
        return Ok(());
    }
    let link = Link::new()?;
    let _other = Background::start(
        &link.near,
        "python3",
        &["-c", "import socket\ns = socket.create_server(('127.0.0.1', 9812))\ns.accept()"],
    )?;
    eventually(|| {
        let sockets = link.near.run("ss", &["-Hltn", "sport", "=", "9812"])?;
        ensure!(!sockets.stdout.is_empty(), "nobody listens yet");
        Ok(())
    })?;
    let folder = Folder::new("said")?;
    let (fifo, linked) = (folder.path("fifo"), folder.path("link"));
    ensure!(Command::new("mkfifo").arg(&fifo).status()?.success());
    std::os::unix::fs::symlink("/dev/null", &linked)?;
    let cases: [(&[&str], &str); 6] = [
        (&["--metrics-listen", ADDRESS], "cannot listen at 127.0.0.1:9812"),
        (&["--metrics-listen", "192.0.2.1:9812"], "cannot listen at 192.0.2.1:9812"),
        (&["--metrics-listen", "9812"], "--metrics-listen"),
        (&["--metrics-file", "/no/such/folder/f.prom"], "cannot write `/no/such/folder/f.prom`"),
        (&["--metrics-file", &fifo], "is not a regular file"),
        (&["--metrics-file", &linked], "is not a regular file"),
    ];
    for (options, expected) in cases {
        let mut command = link.near.command(&program("flowmeter")?.to_string_lossy());
        let output = command.args(["live", WIRE]).args(options).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{options:?} was taken");
        ensure!(said.lines().count() == 1 && said.contains(expected), "{said}");
    }
    // What another user has put in the place of the file beside is not written to.
    let (file, victim) = (folder.path("f.prom"), folder.path("victim"));
    fs::write(&victim, "mine")?;
    std::os::unix::fs::symlink(&victim, format!("{file}.tmp"))?;
    let mut command = link.near.command(&program("flowmeter")?.to_string_lossy());
    let output = command.args(["live", "none0", "--metrics-file", &file]).output()?;
    ensure!(!output.status.success(), "an interface that is not there was metered");
    ensure!(fs::read_to_string(&victim)? == "mine", "a link was followed");
    ensure!(fs::read_dir(&folder.0)?.count() == 3, "something was left behind");
    Ok(())
}
