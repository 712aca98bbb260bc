//! A Linux host flow meter as a library. It meters the flows of interfaces, inside the kernel, and
//! those of captures, with the same columns.
//!
//! Every use begins with [`Run`], which takes options and outputs. An output is a closure, a
//! channel, or whatever implements [`Output`] and takes rows in some format. Nothing here prints,
//! handles signals or changes settings of the process.
//!
//! The flows of a capture, each passed to a closure:
//!
//! ```
//! use flowmeter::{Flow, Layer, ReadOptions, Run, Side};
//!
//! # // A UDP packet of 3 bytes from 10.0.0.1:40000 to 10.0.0.2:53.
//! # let capture = std::env::temp_dir().join(format!("flowmeter-doc-{}.pcap", std::process::id()));
//! # let mut bytes = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
//! # bytes.extend([0; 8]);
//! # bytes.extend([0, 0, 1, 0, 101, 0, 0, 0]);
//! # bytes.extend([0; 8]);
//! # bytes.extend([31, 0, 0, 0, 31, 0, 0, 0]);
//! # bytes.extend([0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
//! # bytes.extend([0x9c, 0x40, 0, 53, 0, 11, 0, 0, 1, 2, 3]);
//! # std::fs::write(&capture, bytes)?;
//! let options = ReadOptions::new([&capture]);
//! let report = Run::read(options)
//!     .to(|flow: Flow| {
//!         let sums = flow.totals(Side::Both, Layer::Link);
//!         println!("{} → {}: {} packets", flow.src().ip, flow.dst().ip, sums.packets);
//! #       assert_eq!((flow.dst().port, sums.packets), (53, 1));
//!     })
//!     .run()?;
//! assert_eq!(report.given.flows, 1);
//! # std::fs::remove_file(&capture)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The flows of an interface, sent to a channel, until there is one to port 9. This needs root, or
//! the capabilities BPF, `NET_ADMIN` and PERFMON:
//!
//! ```
//! use std::sync::mpsc::sync_channel;
//! use std::thread;
//!
//! use flowmeter::{Knobs, LiveOptions, Outlet, Run};
//!
//! # if let Err(missing) = flowmeter::capture::kernel::capabilities::check() {
//! #     assert!(std::env::var_os("FLOWMETER_REQUIRE_ROOT").is_none(), "{missing}");
//! #     eprintln!("skipped: {missing}");
//! #     return Ok(());
//! # }
//! let knobs = Knobs { idle_ns: 500_000_000, ..Knobs::default() };
//! let (sender, flows) = sync_channel(1_000);
//! let run = Run::live(LiveOptions::new(["lo"]).with_knobs(knobs))?.to(Outlet::channel(sender));
//! let control = run.control();
//! let meter = thread::spawn(|| run.run());
//! # std::net::UdpSocket::bind("127.0.0.1:0")?.send_to(b"hello", "127.0.0.1:9")?;
//! for flow in flows {
//!     println!("port {}: {:?}", flow.dst().port, flow.local_owner());
//!     if flow.dst().port == 9 {
//!         // The loop goes on until every resident flow has arrived.
//!         control.stop();
//!     }
//! }
//! let report = meter.join().expect("the meter does not panic")?;
//! println!("{}", report.json());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/` has both as programs. The modules stand in data order, from the packet to the row:
//! see `ARCHITECTURE.md`.

pub mod notice;
mod redact;
mod stat;
mod users;
pub mod capture;
pub mod table;
pub mod collector;
pub mod dissect;
pub mod attribution;
pub mod flow;
pub mod fields;
pub mod plugin;
pub mod model;
pub mod format;
pub mod output;
pub mod report;
pub mod run;

pub use fields::{Schema, Value};
pub use flow::{Flow, Side};
pub use flowmeter_common::knobs::Knobs;
pub use flowmeter_common::packet::Layer;
pub use format::Format;
pub use model::{Model, Models};
pub use notice::{Notice, Notices};
pub use output::Output;
pub use plugin::{Plugin, Plugins};
pub use report::Report;
pub use run::{Control, LiveOptions, Outlet, ReadOptions, Run};
