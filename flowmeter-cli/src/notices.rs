//! How does the command say what there is to say?

use flowmeter::notice::{Level, Notices};

/// Notices go to standard error, one line each.
pub fn to_stderr() -> Notices {
    Notices::new(|notice| match notice.level() {
        Level::Debug => eprintln!("kernel: {notice}"),
        Level::Info => eprintln!("flowmeter: {notice}"),
        Level::Warning => eprintln!("flowmeter: warning: {notice}"),
    })
}

/// Says that something goes wrong without which the run goes on.
pub fn warn(error: impl Into<anyhow::Error>) {
    eprintln!("flowmeter: warning: {}", causes(&error.into()));
}

/// An error and its causes, in one line.
pub fn causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.ends_with(&cause) {
            continue; // some errors print their source themselves
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}
