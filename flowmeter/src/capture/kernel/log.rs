//! Where do the programs' log messages go?

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{LevelFilter, Log, Metadata, Record};

/// Prints what the programs log.
pub struct Logger(EbpfLogger<&'static dyn Log>);

impl Logger {
    /// Starts; `None` if the programs were built without a log.
    pub fn start(ebpf: &mut Ebpf) -> Option<Self> {
        log::set_max_level(LevelFilter::Trace);
        EbpfLogger::init_with_logger(ebpf, &Stderr as &'static dyn Log).ok().map(Self)
    }

    /// Prints what has been logged by now.
    pub fn print(&mut self) {
        self.0.flush();
    }
}

/// Standard error, a message a line.
struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        eprintln!("kernel: {}", record.args());
    }

    fn flush(&self) {}
}
