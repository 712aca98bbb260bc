//! Where do the programs' log messages go?

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

use crate::notice::{Notice, Notices};

/// Passes on what the programs log.
pub struct Logger(EbpfLogger<ToNotices>);

impl Logger {
    /// Starts; `None` if the programs were built without a log.
    pub fn start(ebpf: &mut Ebpf, notices: &Notices) -> Option<Self> {
        EbpfLogger::init_with_logger(ebpf, ToNotices(notices.clone())).ok().map(Self)
    }

    /// Passes on what has been logged by now.
    pub fn drain(&mut self) {
        self.0.flush();
    }
}

/// Each message is a notice.
struct ToNotices(Notices);

impl Log for ToNotices {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        self.0.send(Notice::Kernel(record.args().to_string()));
    }

    fn flush(&self) {}
}
