//! Is any capture metered without a panic, with every frame accounted for and every row valid?
//!
//! The first byte of the input chooses the options.

#![no_main]

use std::io::Cursor;
use std::path::Path;

use flowmeter::capture::pcap::Capture;
use flowmeter::collector::pcap::{Collector, Found, Intake, Next, Observer, Rank, Reading, Share};
use flowmeter::fields::{Options, Schema, TimeUnit};
use flowmeter::flow::Flow;
use flowmeter::format::{Format, Kind};
use flowmeter::table::{Ended, Seen};
use flowmeter_common::knobs::{Knobs, MILLISECOND};
use flowmeter_common::packet::Layer;
use libfuzzer_sys::fuzz_target;

struct Writer {
    rows: [std::sync::Arc<dyn Format>; 2],
    out: Vec<u8>,
    packets: u64,
}

impl Observer<()> for Writer {
    fn packet(&mut self, found: &Found, flow: Seen<'_, ()>, _: &[u8]) -> Next {
        assert!(flow.number > 0);
        // Some flows end by themselves, as plugins can have them.
        if found.packet.dst_port == 7 { Next::Ends } else { Next::GoesOn }
    }

    fn ended(&mut self, _: Rank, ended: Ended<()>) {
        self.packets += ended.record.packets();
        let flow = Flow::new(ended.reason, ended.record, ended.splt);
        for rows in &self.rows {
            self.out.clear();
            rows.flow(&flow, &mut self.out);
            assert!(std::str::from_utf8(&self.out).is_ok());
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let [choice, file @ ..] = data else { return };
    let bit = |n: u8| choice >> n & 1 != 0;
    let reading = match choice & 3 {
        0 => Reading::Nfstream,
        1 => Reading::Flowcontainer,
        _ => Reading::Right,
    };
    let timeout = if bit(2) { 0 } else { 1_000 * MILLISECOND };
    let layers = [Layer::Link, Layer::Ip, Layer::Transport, Layer::Payload];
    let accounting = layers[usize::from(choice >> 6)];
    let unit = if bit(5) { TimeUnit::Ns } else { TimeUnit::Ms };
    let knobs = Knobs {
        idle_ns: timeout,
        active_ns: timeout * 3,
        accounting,
        tick_ns: unit.tick_ns(),
        splt: 20,
        n_dissections: 3,
        statistics: bit(3),
        decode_tunnels: bit(4),
    };
    let options = Options {
        accounting,
        unit,
        statistics: bit(3),
        splt: 10,
        sequences: 20,
        as_flowcontainer: reading == Reading::Flowcontainer,
        dissection: true,
        details: true,
        tunnels: bit(4),
        visibility: true,
        extras: true,
    };
    let schema = std::sync::Arc::new(Schema::new(options));
    let mut writer = Writer {
        rows: [Kind::Json, Kind::Csv].map(|kind| kind.of(schema.clone())),
        out: Vec::new(),
        packets: 0,
    };
    let Ok(mut capture) = Capture::from_input(Path::new("fuzz"), Cursor::new(file.to_vec())) else {
        return;
    };
    let mut intake = Intake::new(&knobs, reading, None);
    let mut collector = Collector::new(knobs, reading, Share::WHOLE);
    while let Ok(Some(())) = capture.next(|frame| {
        if let Some(found) = intake.packet(&frame) {
            let ip = frame.bytes.get(usize::from(found.packet.network_offset)..);
            collector.packet(&found, ip.unwrap_or_default(), &mut writer);
        }
    }) {}
    collector.finish(&mut writer);
    let tally = intake.tally;
    let ignored: u64 = tally.ignored().map(|(_, n)| n).sum();
    assert_eq!(tally.seen, tally.metered + ignored, "every frame has a fate");
    assert_eq!(tally.metered, writer.packets, "every packet is in a row");
});
