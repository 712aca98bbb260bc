//! Prints the flows of a capture: `cargo run --example capture -- FILE`.

use std::error::Error;

use flowmeter::{Flow, Layer, ReadOptions, Run, Side};

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args_os().nth(1).ok_or("which capture?")?;
    let report = Run::read(ReadOptions::new([file])).to(|flow: Flow| print(&flow)).run()?;
    println!("{} flows, {} packets", report.given.flows, report.given.packets);
    Ok(())
}

fn print(flow: &Flow) {
    let (src, dst) = (flow.src(), flow.dst());
    let sums = flow.totals(Side::Both, Layer::Link);
    println!(
        "{}:{} → {}:{} {} packets, {} bytes, {}",
        src.ip,
        src.port,
        dst.ip,
        dst.port,
        sums.packets,
        sums.bytes[Layer::Link as usize],
        flow.layer7.as_ref().map_or("not dissected", |layer7| &layer7.application_name),
    );
}
