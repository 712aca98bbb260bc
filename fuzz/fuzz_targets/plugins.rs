//! Do the shipped plugins read any packet without a panic, and give each flow a value per column?
//!
//! The first byte of the input chooses: whether the rest is a packet for those that read bytes, or a
//! capture for all, and their settings.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use flowmeter::fields::Schema;
use flowmeter::flow::{Flow, Own};
use flowmeter::format::Kind;
use flowmeter::plugin::Plugins;
use flowmeter::plugin::shipped::{Dhcp, Ja4, Mdns, Shipped};
use flowmeter::{Knobs, ReadOptions, Run};
use libfuzzer_sys::fuzz_target;

/// A run reads files.
static CAPTURE: LazyLock<PathBuf> = LazyLock::new(|| {
    let name = format!("flowmeter-fuzz-{}.pcap", std::process::id());
    std::env::temp_dir().join(name)
});

fuzz_target!(|data: &[u8]| {
    let [choice, bytes @ ..] = data else { return };
    if choice & 0x80 != 0 { packet(bytes) } else { capture(*choice, bytes) }
});

fn packet(ip: &[u8]) {
    if let Some(changes) = Dhcp::changes(ip) {
        assert!(changes.kind.is_none_or(|kind| (1..=8).contains(&kind)));
    }
    assert!(Mdns::names(ip).iter().all(|name| !name.contains(',')));
    let hellos = [Ja4::client(ip), Ja4::server(ip)].map(|hello| hello.ok().flatten());
    assert!(hellos.iter().flatten().all(|hello| hello.random.len() <= 64));
    assert!(hellos.iter().flatten().count() < 2, "a message is of one side");
}

fn capture(choice: u8, file: &[u8]) {
    let few = 1 + (choice & 3);
    let settings = [
        format!("slicer:packets={},bytes=9000,seconds=2", 10 * u32::from(few)),
        format!("splt:length={few},accounting_mode={}", choice >> 2 & 3),
        "dhcp".to_owned(),
        "mdns".to_owned(),
        "ja4".to_owned(),
        format!("wavelet:active_timeout=2,levels={few}"),
        format!("payload:packets={few},bytes=9"),
        format!("headers:packets={few}"),
    ];
    let shipped = settings.map(|text| text.parse::<Shipped>().expect("they are valid"));
    let plugins = shipped.into_iter().fold(Plugins::default(), |all, plugin| plugin.add_to(all));
    std::fs::write(&*CAPTURE, file).expect("there is a folder for temporary files");
    let knobs = Knobs { n_dissections: 0, decode_tunnels: choice & 0x10 != 0, ..Knobs::default() };
    let mut options = ReadOptions::new([&*CAPTURE]).with_knobs(knobs).with_plugins(plugins);
    options.n_meters = 1;
    let columns: Vec<_> = options.plugins.columns().collect();
    let schema = Schema::new(options.columns()).with_added(columns.clone());
    let format = Kind::Json.of(schema.expect("no name is there twice").into());
    let packets = std::sync::Arc::new(AtomicU64::new(0));
    let seen = std::sync::Arc::clone(&packets);
    let to = move |flow: Flow| {
        seen.fetch_add(flow.record.packets(), Relaxed);
        assert_eq!(flow.own.len(), columns.len());
        for (own, column) in flow.own.iter().zip(&columns) {
            use flowmeter::fields::columns::Kind;
            let fits = match own {
                Own::Null => true,
                Own::U64(_) => column.kind == Kind::Unsigned,
                Own::F64(x) => column.kind == Kind::Float && x.is_finite(),
                Own::Text(_) => column.kind == Kind::Text,
                Own::Integers(_) => column.kind == Kind::List,
                Own::Texts(_) => column.kind == Kind::TextList,
                Own::I64(_) | Own::Bool(_) => false,
            };
            assert!(fits, "{own:?} in {}", column.name);
        }
        let mut row = Vec::new();
        format.flow(&flow, &mut row);
        assert!(std::str::from_utf8(&row).is_ok());
    };
    // What cannot be read ends it, with what was read before.
    if let Ok(report) = Run::read(options).to(to).run() {
        assert_eq!(report.given.packets, packets.load(Relaxed), "every packet is in a flow");
    }
}
