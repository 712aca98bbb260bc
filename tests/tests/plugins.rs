//! Do plugins see what is in a capture, and are their values in the rows?

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, ensure};
use flowmeter::fields::{Added, Schema, columns};
use flowmeter::flow::{Flow, Own};
use flowmeter::plugin::{Packet, Plugin, Plugins, Standing, column};
use flowmeter::{Knobs, ReadOptions, Run, Side};
use flowmeter_tests::captures::pcap;
use flowmeter_tests::packets::udp;
use flowmeter_tests::program;
use serde_json::Value;

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
fn rows(capture: &std::path::Path, args: &[&str]) -> Result<Vec<Value>> {
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
    let expected = serde_json::json!({
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
