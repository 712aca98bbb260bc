//! Where do the programs' log messages go?

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

use crate::notice::{Notice, Notices};

/// Tells what the programs log.
pub struct Logger(EbpfLogger<Told>);

impl Logger {
    /// Starts; `None` if the programs were built without a log.
    pub fn start(ebpf: &mut Ebpf, notices: &Notices) -> Option<Self> {
        EbpfLogger::init_with_logger(ebpf, Told(notices.clone())).ok().map(Self)
    }

    /// Tells what has been logged by now.
    pub fn tell(&mut self) {
        self.0.flush();
    }
}

/// Each message is a notice.
struct Told(Notices);

impl Log for Told {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        self.0.tell(Notice::Kernel(record.args().to_string()));
    }

    fn flush(&self) {}
}
