//! Do plugins see what is in a capture, and are their values in the rows?

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, ensure};
use flowmeter::fields::{Added, Schema, columns};
use flowmeter::flow::{Flow, Own};
use flowmeter::plugin::{Packet, Plugin, Plugins, Standing, column};
use flowmeter::{Knobs, ReadOptions, Run, Side};
use flowmeter_tests::captures::{conformance, pcap};
use flowmeter_tests::meter::Meter;
use flowmeter_tests::netns::{Link, WIRE};
use flowmeter_tests::nfstream::{self, Job};
use flowmeter_tests::packets::udp;
use flowmeter_tests::{program, root};
use serde_json::{Value, json};

/// A capture that is gone with its test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str, capture: &[u8]) -> Result<Self> {
        let name = format!("flowmeter-plugins-{test}-{}.pcap", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, capture)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A datagram between 10.0.0.1 with a port and 10.0.0.2 with port 9, in a frame that is padded.
fn datagram(port: u16, back: bool, payload: &[u8]) -> Vec<u8> {
    let (client, server) = (format!("10.0.0.1:{port}"), "10.0.0.2:9");
    let (src, dst) = if back { (server, client.as_str()) } else { (client.as_str(), server) };
    udp().body(payload.to_vec()).from(src).to(dst).padded().build()
}

/// Writes down what it sees, and ends flows at a payload of `end`.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    fn say(&self, text: String) {
        self.0.lock().expect("no test panics with it").push(text);
    }

    fn seen(&self, what: &str, packet: &Packet<'_>, flow: &mut Standing<'_>) {
        let port = flow.sums.src().port;
        let payload = String::from_utf8_lossy(packet.payload()).into_owned();
        let direction = u8::from(packet.direction == Side::Dst2Src);
        let counted = flow.sums.packets();
        let delta = packet.delta_ms();
        let ports = (packet.src.port, packet.dst.port);
        assert_eq!(packet.ip.len(), 46, "padding is left in the bytes");
        self.say(format!("{what} {port} {payload} {direction} {counted} {delta} {ports:?}"));
        if payload == "end" {
            flow.end();
        }
    }
}

impl Plugin for Recorder {
    type State = String;

    fn columns(&self) -> Vec<Added> {
        vec![
            column("seen", columns::Kind::Text, "", "all payloads"),
            column("none", columns::Kind::Text, "", "nothing"),
        ]
    }

    fn on_init(&mut self, packet: &Packet<'_>, flow: &mut Standing<'_>) -> String {
        self.seen("init", packet, flow);
        String::from_utf8_lossy(packet.payload()).into_owned()
    }

    fn on_update(&mut self, all: &mut String, packet: &Packet<'_>, flow: &mut Standing<'_>) {
        self.seen("update", packet, flow);
        *all += &String::from_utf8_lossy(packet.payload());
    }

    fn on_expire(&mut self, all: String, flow: &mut Flow, values: &mut Vec<Own>) {
        let packets = flow.record.packets();
        self.say(format!("expire {} {packets} {:?}", flow.src().port, flow.reason));
        values.push(Own::Text(all));
    }
}

#[test]
fn a_plugin_sees_each_packet_in_its_flow_and_may_end_it() -> Result<()> {
    let frames = [
        datagram(1, false, b"a"),
        datagram(2, false, b"b"),
        datagram(1, true, b"c"),
        datagram(1, false, b"end"),
        datagram(1, false, b"d"),
        datagram(3, true, b"end"),
    ];
    let capture = Scratch::new("calls", &pcap(&frames))?;
    let recorder = Recorder::default();
    let knobs = Knobs { n_dissections: 0, ..Knobs::default() };
    let options = ReadOptions::new([&capture.0]).with_knobs(knobs);
    let options = options.with_plugins(Plugins::default().with(recorder.clone()));
    let schema = Schema::new(options.columns()).with_added(options.plugins.columns())?;
    let last: Vec<_> = schema.names().skip(schema.names().len() - 2).collect();
    assert_eq!(last, ["udps.seen", "udps.none"]);
    let (sender, flows) = std::sync::mpsc::channel();
    let report = Run::read(options).to(move |flow: Flow| _ = sender.send(flow)).run()?;
    assert_eq!((report.given.flows, report.given.packets), (4, 6));
    let said = recorder.0.lock().expect("no test panics with it").clone();
    assert_eq!(
        said,
        [
            "init 1 a 0 1 0 (1, 9)",
            "init 2 b 0 1 0 (2, 9)",
            "update 1 c 1 2 0 (9, 1)",
            "update 1 end 0 3 0 (1, 9)",
            "expire 1 3 End",
            "init 1 d 0 1 0 (1, 9)",
            "init 9 end 0 1 0 (9, 3)",
            "expire 9 1 End",
            "expire 2 1 Forced",
            "expire 1 1 Forced",
        ]
    );
    let own: Vec<_> = flows.iter().map(|flow| flow.own).collect();
    let text = |text: &str| vec![Own::Text(text.into()), Own::Null];
    assert_eq!(own, [text("acend"), text("end"), text("b"), text("d")]);
    Ok(())
}

/// What `flowmeter read` writes.
fn rows(capture: &Path, args: &[&str]) -> Result<Vec<Value>> {
    let mut command = std::process::Command::new(program("flowmeter")?);
    command.arg("read").arg(capture).args(["--output=-"]).args(args);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{text}");
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| Ok(serde_json::from_slice(line)?)).collect()
}

#[test]
fn the_shipped_ones_fill_their_columns() -> Result<()> {
    let frames = [datagram(1, false, b"ab"), datagram(1, true, b""), datagram(1, true, b"xyz")];
    let capture = Scratch::new("shipped", &pcap(&frames))?;
    let rows = rows(
        &capture.0,
        &[
            "--plugin=splt:length=4,accounting_mode=3",
            "--plugin=payload:packets=3,bytes=2",
            "--plugin=headers:packets=2",
            "--plugin=slicer:packets=9",
        ],
    )?;
    let [row] = rows.as_slice() else { anyhow::bail!("{} flows", rows.len()) };
    let row = row.as_object().context("a row is an object")?;
    let udps: serde_json::Map<_, _> = row
        .iter()
        .filter(|(name, _)| name.starts_with("udps."))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    let expected = json!({
        "udps.splt_direction": [0, 1, 1, -1],
        "udps.splt_ps": [2, 0, 3, -1],
        "udps.splt_piat_ms": [0, 0, 0, -1],
        "udps.payload": ["6162", "7879"],
        "udps.payload_direction": [0, 1],
        "udps.ttl": [64, 64],
        "udps.tcp_window": [-1, -1],
        "udps.tcp_sequence": [-1, -1],
    });
    assert_eq!(Value::Object(udps), expected);
    Ok(())
}

/// Captures of what is peculiar about NFStream's plugins, by the letter their names begin with. Those of
/// which one would end NFStream's meter are left out.
fn peculiar(letter: &str) -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures/plugins");
    let mut captures = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(letter) && !name.contains("hang") {
            captures.push(path);
        }
    }
    captures.sort();
    Ok(captures)
}

/// A job, and how the same is asked of flowmeter.
struct Case {
    job: Job,
    args: Vec<String>,
}

impl Case {
    fn new(
        plugin: &'static str,
        arguments: &Value,
        ours: &str,
        capture: &Path,
        options: &Value,
    ) -> Self {
        let mut args = vec![format!("--plugin={plugin}{ours}")];
        for (name, value) in options.as_object().into_iter().flatten() {
            args.push(format!("--{}={value}", name.replace('_', "-")));
        }
        let (arguments, options) = (arguments.clone(), options.clone());
        Self { job: Job { plugin, arguments, capture: capture.into(), options }, args }
    }
}

fn cases() -> Result<Vec<Case>> {
    let none = json!({});
    let mut cases = Vec::new();
    for capture in peculiar("d")? {
        cases.push(Case::new("dhcp", &none, "", &capture, &none));
    }
    for capture in peculiar("m")? {
        cases.push(Case::new("mdns", &none, "", &capture, &none));
    }
    for capture in peculiar("j")? {
        cases.push(Case::new("ja4", &none, "", &capture, &none));
    }
    for capture in peculiar("s")? {
        for options in [none.clone(), json!({"idle_timeout": 1})] {
            for limit in [1, 3] {
                let ours = format!(":packets={limit}");
                cases.push(Case::new(
                    "slicer",
                    &json!({"limit": limit}),
                    &ours,
                    &capture,
                    &options,
                ));
            }
            for mode in 0..4 {
                let arguments = json!({"sequence_length": 4, "accounting_mode": mode});
                let ours = format!(":length=4,accounting_mode={mode}");
                cases.push(Case::new("splt", &arguments, &ours, &capture, &options));
            }
        }
    }
    let mut wavelet = |capture: &Path, levels: u32, seconds: u32| {
        let arguments = json!({"active_timeout": seconds, "levels": levels});
        let ours = format!(":active_timeout={seconds},levels={levels}");
        let options = json!({"active_timeout": seconds});
        cases.push(Case::new("wavelet", &arguments, &ours, capture, &options));
    };
    for capture in peculiar("w")? {
        for levels in [1, 2, 5] {
            wavelet(&capture, levels, 10);
        }
    }
    let captures = conformance("the shipped plugins on real captures")?.unwrap_or_default();
    for name in ["ftp.pcap", "mdns.pcap", "skype.pcap", "http_ipv6.pcap", "zoom.pcap"] {
        if let Some(capture) = captures.iter().find(|capture| capture.ends_with(name)) {
            wavelet(capture, 5, 7);
        }
    }
    for (plugin, names) in [
        ("ja4", ["443-git.pcap", "no_sni.pcap", "steam.pcap", "tls_alert.pcap", "trickbot.pcap"]),
        ("dhcp", ["dhcp.pcap", "1kxun.pcap", "zoom.pcap", "capwap.pcap", "iphone.pcap"]),
        ("mdns", ["mdns.pcap", "iphone.pcap", "skype.pcap", "wa_voice.pcap", "wechat.pcap"]),
    ] {
        for name in names {
            if let Some(capture) = captures.iter().find(|capture| capture.ends_with(name)) {
                cases.push(Case::new(plugin, &none, "", capture, &none));
            }
        }
    }
    Ok(cases)
}

/// Whether two values are the same: numbers to 1e-6, relative to `scale` if that is more.
fn is_same(theirs: &Value, ours: &Value, scale: f64) -> bool {
    match (theirs.as_f64(), ours.as_f64()) {
        (Some(theirs), Some(ours)) => {
            (theirs - ours).abs() <= 1e-6 * theirs.abs().max(scale).max(1.0)
        }
        _ => match (theirs, ours) {
            // A type that is none of DHCP's is a number there.
            (Value::Number(theirs), Value::String(ours)) => theirs.to_string() == *ours,
            _ => theirs == ours,
        },
    }
}

#[test]
fn the_shipped_ones_say_what_nfstreams_say() -> Result<()> {
    let Some(python) = nfstream::python("the_shipped_ones_say_what_nfstreams_say")? else {
        return Ok(());
    };
    let cases = cases()?;
    let jobs: Vec<Job> = cases.iter().map(|case| case.job.clone()).collect();
    let answers = nfstream::flows(&python, &jobs)?;
    ensure!(answers.len() == cases.len(), "{} answers to {}", answers.len(), cases.len());
    let mut compared = 0;
    for (case, theirs) in cases.iter().zip(answers) {
        let mut args = vec!["--compat=nfstream", "--n-dissections=0"];
        args.extend(case.args.iter().map(String::as_str));
        let ours = rows(&case.job.capture, &args)?;
        let what = format!("{} {args:?}", case.job.capture.display());
        ensure!(ours.len() == theirs.len(), "{what}: {} flows, not {}", ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let (ours, theirs) = (ours.as_object(), theirs.as_object());
            let (Some(ours), Some(theirs)) = (ours, theirs) else { anyhow::bail!("no object") };
            let own = ours.keys().filter(|name| name.starts_with("udps."));
            let named = theirs.keys().filter(|name| name.starts_with("udps."));
            ensure!(own.eq(named), "{what}: other columns, or in another order");
            for (name, value) in theirs {
                // What is 0 but for the last digits of what was added up.
                let of = if name.contains("_sigma_k_0") {
                    name.replace("_sigma_", "_u_")
                } else {
                    String::new()
                };
                let scale = ours.get(&of).and_then(Value::as_f64).unwrap_or_default();
                let found = ours.get(name).unwrap_or(&Value::Null);
                ensure!(is_same(value, found, scale), "{what}: {name} is {found}, not {value}");
                compared += 1;
            }
        }
    }
    println!("{} runs, {compared} values equal", cases.len());
    ensure!(compared > 1_000, "only {compared} values were compared");
    Ok(())
}

#[test]
fn what_ends_nfstreams_meter_says_nothing_here() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures/plugins");
    let mut seen = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().contains("hang") {
            let rows = rows(&path, &["--plugin=dhcp", "--plugin=mdns", "--n-dissections=0"])?;
            ensure!(!rows.is_empty(), "{}", path.display());
            seen += 1;
        }
    }
    ensure!(seen > 5, "{seen} captures");
    Ok(())
}

/// Packets of each flow that is sent.
const EACH: u32 = 200;

/// Three flows of numbered datagrams, one after another by turns.
fn numbered() -> Vec<u8> {
    let mut frames = Vec::new();
    for number in 0..EACH {
        for port in 1..4 {
            frames.push(datagram(port, false, format!("{number:06}").as_bytes()));
        }
    }
    pcap(&frames)
}

/// Replays the capture over a wire at whose other end a meter has these options.
fn replayed(capture: &Path, args: &[&str]) -> Result<flowmeter_tests::meter::Log> {
    let link = Link::new()?;
    for host in [&link.near, &link.far] {
        host.run("ip", &["addr", "flush", "dev", WIRE])?;
        host.run("ip", &["link", "set", WIRE, "arp", "off"])?;
        host.run("sysctl", &["-qw", &format!("net.ipv6.conf.{WIRE}.disable_ipv6=1")])?;
    }
    let options = ["--direction=ingress", "--idle-timeout=1000", WIRE];
    let meter = Meter::start(&link.far, &[args, &options].concat())?;
    link.near.run("tcpreplay", &["-q", "-i", WIRE, "--pps=2000", &capture.to_string_lossy()])?;
    let log = meter.stop()?;
    log.check_balance()?;
    Ok(log)
}

#[test]
fn live_each_packet_is_seen_once_and_in_order() -> Result<()> {
    if !root::available("live_each_packet_is_seen_once_and_in_order")? {
        return Ok(());
    }
    let capture = Scratch::new("live", &numbered())?;
    let log = replayed(
        &capture.0,
        &[
            "--n-dissections=2",
            "--splt-analysis=255",
            "--plugin=payload:packets=255,bytes=6",
            "--plugin=splt:length=255",
            "--plugin=headers:packets=3",
        ],
    )?;
    ensure!(log.flows.len() == 3, "{} flows", log.flows.len());
    for flow in &log.flows {
        ensure!(flow["dissection_lost"] == false, "packets were lost: {flow}");
        // The digit 7 is the byte 0x37.
        let hex = |n: u32| format!("{n:06}").chars().flat_map(|c| ['3', c]).collect::<String>();
        let numbers: Vec<Value> = (0..EACH).map(|n| hex(n).into()).collect();
        ensure!(flow["udps.payload"] == Value::Array(numbers), "{flow}");
        for column in ["splt_direction", "splt_ps", "splt_piat_ms"] {
            // What the plugin made of the packets is what the kernel has counted.
            ensure!(flow[format!("udps.{column}")] == flow[column], "{column}: {flow}");
        }
        ensure!(flow["udps.ttl"] == json!([64, 64, 64]), "{flow}");
    }
    Ok(())
}

#[test]
fn live_a_plugin_ends_a_flow_soon() -> Result<()> {
    if !root::available("live_a_plugin_ends_a_flow_soon")? {
        return Ok(());
    }
    let capture = Scratch::new("live-slicer", &numbered())?;
    let log = replayed(&capture.0, &["--plugin=slicer:packets=20"])?;
    let packets = |flow: &Value| flow["bidirectional_packets"].as_u64().unwrap_or_default();
    let ended = log.flows.iter().filter(|flow| flow["expiration_id"] == -1);
    // The packets take 300 ms, and a flow ends some ms after its 20th.
    ensure!(ended.clone().count() >= 9, "{:?}", log.flows);
    for flow in ended {
        ensure!(packets(flow) >= 20, "{flow}");
        ensure!(flow["flow_end_reason"] == "end of flow detected", "{flow}");
    }
    let all: u64 = log.flows.iter().map(packets).sum();
    ensure!(all == u64::from(3 * EACH), "{all} packets");
    Ok(())
}
