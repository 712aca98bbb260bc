//! May a test that needs root run here, and what if not?

use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, bail};

/// Whether this process is root. If not, says that `test` does not run and why, so that the caller
/// returns; with `FLOWMETER_REQUIRE_ROOT=1`, as in CI, not running is a failure.
pub fn available(test: &str) -> Result<bool> {
    let uid = std::fs::metadata("/proc/self").context("failed to read `/proc/self`")?.uid();
    if uid == 0 {
        return Ok(true);
    }
    if is_set("FLOWMETER_REQUIRE_ROOT") {
        bail!("`{test}` needs root, is user {uid}, and FLOWMETER_REQUIRE_ROOT is set");
    }
    println!("skipped: `{test}` loads BPF programs, which needs root; this is user {uid}");
    Ok(false)
}

/// Whether an environment variable is set to something but 0.
pub fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
}
