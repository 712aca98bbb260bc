//! Prints the flows of an interface and their processes until Enter is pressed, as root:
//! `cargo build --example interface && sudo target/debug/examples/interface eth0`.

use std::error::Error;
use std::sync::mpsc::sync_channel;
use std::{env, io, thread};

use flowmeter::dissect::{Containment, User, contained};
use flowmeter::{Knobs, LiveOptions, Notices, Outlet, Run};

fn main() -> Result<(), Box<dyn Error>> {
    // A dissector without privileges is this program too, which starts itself.
    if contained::child::run(env::args()).is_some() {
        return Ok(());
    }
    let interface = env::args().nth(1).ok_or("which interface?")?;
    let (program, user) = (env::current_exe()?, User::NOBODY);
    let options = LiveOptions::new([interface])
        .with_knobs(Knobs { idle_ns: 5_000_000_000, ..Knobs::default() })
        .with_containment(Containment::Child { program, user, quarantine: None })
        .with_notices(Notices::new(|notice| eprintln!("{notice}")));
    let (sender, flows) = sync_channel(10_000);
    let run = Run::live(options)?.to(Outlet::channel(sender));
    let control = run.control();
    let meter = thread::spawn(|| run.run());
    thread::spawn(move || {
        let _ = io::stdin().read_line(&mut String::new());
        control.stop();
    });
    for flow in flows {
        let name = flow.local_owner().map_or("unknown", |owner| &owner.name);
        println!("{} → {} by {name}", flow.src().ip, flow.dst().ip);
    }
    println!("{}", meter.join().map_err(|_| "the meter panicked")??.json());
    Ok(())
}
