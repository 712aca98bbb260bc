//! What does a packet cost, stage by stage, and what does a row?
//!
//! Each group begins with a baseline: the same bytes looked at, and nothing more.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flowmeter::capture::pcap::Frame;
use flowmeter::collector::pcap::{Collector, Found, Intake, Next, Observer, Rank, Reading, Share};
use flowmeter::fields::{Options, Schema};
use flowmeter::flow::Flow;
use flowmeter::format::Kind;
use flowmeter::table::{Ended, Seen};
use flowmeter_common::knobs::Knobs;

const FRAMES: usize = 10_000;
/// Packets of a conversation come again after so many others.
const CONVERSATIONS: usize = 1_000;

/// TCP segments of so many conversations, in turn.
fn frames() -> Vec<Vec<u8>> {
    (0..FRAMES)
        .map(|n| {
            let conversation = (n % CONVERSATIONS) as u16;
            let [high, low] = conversation.to_be_bytes();
            let forth = (n / CONVERSATIONS).is_multiple_of(2);
            let (client, server) = ([10, 0, high, low, 0x9c, 0x40], [192, 0, 2, 1, 1, 187]);
            let (src, dst) = if forth { (client, server) } else { (server, client) };
            let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 140];
            frame.extend([0, 0, 0, 0, 64, 6, 0, 0]);
            frame.extend(&src[..4]);
            frame.extend(&dst[..4]);
            frame.extend(&src[4..]);
            frame.extend(&dst[4..]);
            frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x18, 255, 255, 0, 0, 0, 0]);
            frame.resize(154, b'x');
            frame
        })
        .collect()
}

fn knobs() -> Knobs {
    Knobs { statistics: true, splt: 20, n_dissections: 0, ..Knobs::default() }
}

/// Takes flows and does nothing with them.
#[derive(Default)]
struct Flows(Vec<Ended<()>>);

impl Observer<()> for Flows {
    fn packet(&mut self, _: &Found, _: Seen<'_, ()>, _: &[u8]) -> Next {
        Next::GoesOn
    }

    fn ended(&mut self, _: Rank, ended: Ended<()>) {
        self.0.push(ended);
    }
}

fn frame(n: usize, bytes: &[u8]) -> Frame<'_> {
    Frame { time_ns: n as i64 * 1_000, bytes, wire: bytes.len() as u32, link: 1 }
}

fn packets(frames: &[Vec<u8>]) -> Vec<Found> {
    let mut intake = Intake::new(&knobs(), Reading::Right, None);
    let found = frames.iter().enumerate();
    found.filter_map(|(n, bytes)| intake.packet(&frame(n, bytes))).collect()
}

fn flows(packets: &[Found]) -> Vec<Flow> {
    let mut collector = Collector::new(knobs(), Reading::Right, Share::WHOLE);
    let mut flows = Flows::default();
    for found in packets {
        collector.packet(found, &[], &mut flows);
    }
    collector.finish(&mut flows);
    let flow = |ended: Ended<()>| Flow::new(ended.reason, ended.record, ended.splt);
    flows.0.into_iter().map(flow).collect()
}

fn per_packet(c: &mut Criterion) {
    let frames = frames();
    let packets = packets(&frames);
    let mut group = c.benchmark_group("packet");
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function("baseline: read 64 bytes", |b| {
        b.iter(|| {
            let sum = |bytes: &Vec<u8>| bytes[..64].iter().map(|b| u64::from(*b)).sum::<u64>();
            frames.iter().map(sum).fold(0, u64::wrapping_add)
        });
    });
    group.bench_function("parse", |b| {
        b.iter(|| {
            let mut intake = Intake::new(&knobs(), Reading::Right, None);
            for (n, bytes) in frames.iter().enumerate() {
                black_box(intake.packet(&frame(n, bytes)));
            }
        });
    });
    group.bench_function("table", |b| {
        b.iter(|| {
            let mut collector = Collector::<()>::new(knobs(), Reading::Right, Share::WHOLE);
            let mut flows = Flows::default();
            for found in &packets {
                collector.packet(found, &[], &mut flows);
            }
            collector.resident()
        });
    });
    group.finish();
}

fn per_flow(c: &mut Criterion) {
    let flows = flows(&packets(&frames()));
    let options = Options { statistics: true, splt: 20, details: true, ..Options::DEFAULT };
    let schema = Arc::new(Schema::new(options));
    let mut out = Vec::new();
    let mut group = c.benchmark_group("flow");
    group.throughput(Throughput::Elements(flows.len() as u64));
    group.bench_function("baseline: copy a row", |b| {
        let rows = Kind::Json.of(Arc::clone(&schema));
        let mut row = Vec::new();
        rows.flow(&flows[0], &mut row);
        b.iter(|| {
            out.clear();
            for _ in &flows {
                out.extend_from_slice(&row);
            }
            out.len()
        });
    });
    for (name, format) in [("to JSON", Kind::Json), ("to CSV", Kind::Csv)] {
        let rows = format.of(Arc::clone(&schema));
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                for flow in &flows {
                    rows.flow(flow, &mut out);
                }
                out.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, per_packet, per_flow);
criterion_main!(benches);
