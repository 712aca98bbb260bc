//! Are the rows of `flowmeter read` those of a naive model, for any mixture of conversations?
//!
//! The model knows what was sent, not the bytes; it keeps every packet of a flow and computes each
//! number from them all, by NFStream's definitions.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use flowmeter_tests::packets::{tcp, udp};
use flowmeter_tests::program;
use proptest::prelude::*;
use serde_json::Value;

/// Two ends that talk.
#[derive(Clone, Copy, Debug)]
struct Conversation {
    client: SocketAddr,
    server: SocketAddr,
    is_tcp: bool,
    vlan: u16,
}

/// A packet of a conversation, so many µs after the one before of any.
#[derive(Clone, Copy, Debug)]
struct Sent {
    conversation: usize,
    from_client: bool,
    payload: usize,
    flags: u8,
    gap_us: u64,
}

/// A packet of a flow.
#[derive(Clone, Copy, Debug)]
struct Packet {
    time_us: u64,
    from_client: bool,
    bytes: usize,
    flags: u8,
}

struct Flow {
    conversation: usize,
    packets: Vec<Packet>,
    expiration_id: i64,
}

#[derive(Clone, Copy, Debug)]
struct Timeouts {
    idle_ms: u64,
    active_ms: u64,
}

const START_US: u64 = 1_700_000_000_123_456;
const SPLT: usize = 8;
const FLAGS: [(&str, u8); 8] = [
    ("syn", 0x02),
    ("cwr", 0x80),
    ("ece", 0x40),
    ("urg", 0x20),
    ("ack", 0x10),
    ("psh", 0x08),
    ("rst", 0x04),
    ("fin", 0x01),
];

impl Conversation {
    fn frame(&self, sent: &Sent) -> Vec<u8> {
        let (from, to) =
            if sent.from_client { (self.client, self.server) } else { (self.server, self.client) };
        let packet = if self.is_tcp { tcp().flags(sent.flags) } else { udp() };
        let packet = packet.from(&from.to_string()).to(&to.to_string()).payload(sent.payload);
        if self.vlan > 0 { packet.vlan(self.vlan).build() } else { packet.build() }
    }

    /// Length of a frame, header by header.
    fn bytes(&self, sent: &Sent) -> usize {
        let tag = if self.vlan > 0 { 4 } else { 0 };
        let ip = if self.client.is_ipv4() { 20 } else { 40 };
        let transport = if self.is_tcp { 20 } else { 8 };
        14 + tag + ip + transport + sent.payload
    }
}

/// The flows, in the order in which they end.
fn model(conversations: &[Conversation], all: &[Sent], timeouts: Timeouts) -> Vec<Flow> {
    let ms = |us: u64| us / 1000;
    let last = |flow: &Flow| flow.packets.last().map_or(0, |p| p.time_us);
    let (mut open, mut ended): (Vec<Flow>, Vec<Flow>) = (Vec::new(), Vec::new());
    let mut now_us = START_US;
    for sent in all {
        now_us += sent.gap_us;
        // Flows stand in the order of their last packets.
        let is_idle = |flow: &mut Flow| ms(now_us) - ms(last(flow)) >= timeouts.idle_ms;
        ended.extend(open.extract_if(.., is_idle));
        let found = open.iter().position(|flow| flow.conversation == sent.conversation);
        let mut flow = found.map(|at| open.remove(at));
        if let Some(old) =
            flow.take_if(|f| ms(now_us) - ms(f.packets[0].time_us) >= timeouts.active_ms)
        {
            ended.push(Flow { expiration_id: 1, ..old });
        }
        let mut flow = flow.unwrap_or(Flow {
            conversation: sent.conversation,
            packets: Vec::new(),
            expiration_id: 0,
        });
        flow.packets.push(Packet {
            time_us: now_us,
            from_client: sent.from_client,
            bytes: conversations[sent.conversation].bytes(sent),
            flags: if conversations[sent.conversation].is_tcp { sent.flags } else { 0 },
        });
        open.push(flow);
    }
    ended.extend(open);
    ended
}

/// The columns of a flow, by name.
fn row(flow: &Flow, conversations: &[Conversation]) -> Vec<(String, Value)> {
    let c = &conversations[flow.conversation];
    let client_first = flow.packets[0].from_client;
    let (src, dst) = if client_first { (c.client, c.server) } else { (c.server, c.client) };
    let mut columns: Vec<(String, Value)> = vec![
        ("src_ip".into(), src.ip().to_string().into()),
        ("src_port".into(), src.port().into()),
        ("dst_ip".into(), dst.ip().to_string().into()),
        ("dst_port".into(), dst.port().into()),
        ("protocol".into(), (if c.is_tcp { 6 } else { 17 }).into()),
        ("ip_version".into(), (if src.is_ipv4() { 4 } else { 6 }).into()),
        ("vlan_id".into(), c.vlan.into()),
        ("expiration_id".into(), flow.expiration_id.into()),
    ];
    let sides: [(&str, fn(bool) -> bool); 3] = [
        ("bidirectional", |_| true),
        ("src2dst", |forward| forward),
        ("dst2src", |forward| !forward),
    ];
    for (side, is_in) in sides {
        let of_side: Vec<Packet> =
            flow.packets.iter().filter(|p| is_in(p.from_client == client_first)).copied().collect();
        let times: Vec<u64> = of_side.iter().map(|p| p.time_us / 1000).collect();
        let piats: Vec<f64> = times.windows(2).map(|w| (w[1] - w[0]) as f64).collect();
        let sizes: Vec<f64> = of_side.iter().map(|p| p.bytes as f64).collect();
        let (first, last) =
            (times.first().copied().unwrap_or(0), times.last().copied().unwrap_or(0));
        let mut put = |name: &str, value: Value| columns.push((format!("{side}_{name}"), value));
        put("first_seen_ms", first.into());
        put("last_seen_ms", last.into());
        put("duration_ms", (last - first).into());
        put("packets", of_side.len().into());
        put("bytes", of_side.iter().map(|p| p.bytes).sum::<usize>().into());
        for (name, values) in [("ps", sizes), ("piat_ms", piats)] {
            let (min, mean, stddev, max) = moments(&values);
            put(&format!("min_{name}"), (min as u64).into());
            put(&format!("mean_{name}"), mean.into());
            put(&format!("stddev_{name}"), stddev.into());
            put(&format!("max_{name}"), (max as u64).into());
        }
        for (name, bit) in FLAGS {
            let count = of_side.iter().filter(|p| p.flags & bit != 0).count();
            put(&format!("{name}_packets"), count.into());
        }
    }
    let list = |of: &dyn Fn(usize, &Packet) -> i64| -> Value {
        let told = flow.packets.iter().enumerate().map(|(i, p)| of(i, p));
        told.chain(std::iter::repeat(-1)).take(SPLT).collect()
    };
    let before = |i: usize| flow.packets[i.saturating_sub(1)].time_us / 1000;
    columns.push(("splt_direction".into(), list(&|_, p| i64::from(p.from_client != client_first))));
    columns.push(("splt_ps".into(), list(&|_, p| p.bytes as i64)));
    columns
        .push(("splt_piat_ms".into(), list(&|i, p| (p.time_us / 1000) as i64 - before(i) as i64)));
    columns
}

/// Minimum, mean, sample standard deviation and maximum; 0 where there are too few values.
fn moments(values: &[f64]) -> (f64, f64, f64, f64) {
    let n = values.len() as f64;
    if values.is_empty() {
        return (0.0, 0.0, 0.0, 0.0);
    }
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    let stddev = if values.len() < 2 { 0.0 } else { (squares / (n - 1.0)).sqrt() };
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    (min, mean, stddev, values.iter().copied().fold(0.0, f64::max))
}

/// Equal, floats to 1e-6.
fn is_same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => {
            match (a.as_f64(), b.as_f64()) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-6 * b.abs().max(1.0),
                _ => false,
            }
        }
        _ => ours == theirs,
    }
}

fn write_capture(
    path: &std::path::Path,
    conversations: &[Conversation],
    all: &[Sent],
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    for field in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        bytes.extend(field.to_le_bytes());
    }
    let mut now_us = START_US;
    for sent in all {
        now_us += sent.gap_us;
        let frame = conversations[sent.conversation].frame(sent);
        let length = frame.len() as u32;
        for field in [(now_us / 1_000_000) as u32, (now_us % 1_000_000) as u32, length, length] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(frame);
    }
    fs::write(path, bytes)
}

fn conversations() -> impl Strategy<Value = Vec<Conversation>> {
    let one = (any::<bool>(), any::<bool>(), 0..3_u16, any::<bool>());
    prop::collection::vec(one, 1..12).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(i, (is_v4, is_tcp, vlan, swapped))| {
                // Few hosts, so that only the ports tell some conversations apart.
                let (a, b) =
                    if is_v4 { ("10.0.0.1", "10.0.0.2") } else { ("[fd00::1]", "[fd00::2]") };
                let end = |ip: &str, port: usize| -> SocketAddr {
                    format!("{ip}:{port}").parse().unwrap_or_else(|e| panic!("{e}"))
                };
                let (client, server) = (end(a, 1000 + i), end(b, 7));
                let (client, server) = if swapped { (server, client) } else { (client, server) };
                Conversation { client, server, is_tcp, vlan }
            })
            .collect()
    })
}

fn sent(conversations: usize) -> impl Strategy<Value = Sent> {
    // Most packets follow each other at once, some after a timeout or just short of one.
    let gap = prop_oneof![
        6 => 0..3_000_u64,
        2 => 3_000..200_000_u64,
        1 => 990_000..1_010_000_u64,
        1 => 1_990_000..2_010_000_u64,
    ];
    (0..conversations, any::<bool>(), 0..1400_usize, any::<u8>(), gap).prop_map(
        |(conversation, from_client, payload, flags, gap_us)| Sent {
            conversation,
            from_client,
            payload,
            flags,
            gap_us,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_the_models(
        (conversations, all) in conversations().prop_flat_map(|c| {
            let sent = prop::collection::vec(sent(c.len()), 1..150);
            (Just(c), sent)
        }),
        timeouts in prop_oneof![
            Just(Timeouts { idle_ms: 1_000, active_ms: 2_000 }),
            Just(Timeouts { idle_ms: 100, active_ms: 1_500 }),
            Just(Timeouts { idle_ms: 0, active_ms: 0 }),
            Just(Timeouts { idle_ms: 120_000, active_ms: 1_800_000 }),
        ],
    ) {
        let path = std::env::temp_dir().join(format!("flowmeter-model-{}.pcap", std::process::id()));
        write_capture(&path, &conversations, &all)?;
        let output = Command::new(program("flowmeter").map_err(|e| TestCaseError::fail(format!("{e:#}")))?)
            .args(["read", "--n-dissections=0", "--statistical-analysis", "--splt-analysis=8"])
            .arg(format!("--idle-timeout={}", timeouts.idle_ms as f64 / 1e3))
            .arg(format!("--active-timeout={}", timeouts.active_ms as f64 / 1e3))
            .arg(&path)
            .output()?;
        fs::remove_file(&path)?;
        prop_assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rows: Vec<Value> = output
            .stdout
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap_or(Value::Null))
            .collect();
        let flows = model(&conversations, &all, timeouts);
        prop_assert_eq!(rows.len(), flows.len());
        for (id, (ours, flow)) in rows.iter().zip(&flows).enumerate() {
            prop_assert_eq!(&ours["id"], &Value::from(id));
            for (name, theirs) in row(flow, &conversations) {
                let ours = &ours[name.as_str()];
                prop_assert!(is_same(ours, &theirs), "{} of flow {}: {} != {}", name, id, ours, theirs);
            }
        }
    }
}
