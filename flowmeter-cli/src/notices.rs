//! How does the command pass on what a run has to say?

use flowmeter::notice::{Level, Notices};

/// Notices go to standard error, one line each.
pub fn to_stderr() -> Notices {
    Notices::new(|notice| match notice.level() {
        Level::Debug => eprintln!("kernel: {notice}"),
        Level::Info => eprintln!("flowmeter: {notice}"),
        Level::Warning => eprintln!("flowmeter: warning: {notice}"),
    })
}
