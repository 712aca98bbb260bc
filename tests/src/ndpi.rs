//! Which nDPI does the program have?

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::program;

/// Its version, as `4.2.0`; where there is none, what `doctor` says instead.
pub fn version() -> Result<String> {
    let output = Command::new(program("flowmeter")?).args(["doctor", "--format=json"]).output()?;
    let findings: Value = serde_json::from_slice(&output.stdout)?;
    let found = findings.as_array().context("a list")?.iter().find(|f| f["what"] == "nDPI");
    Ok(found.and_then(|f| f["found"].as_str()).context("no nDPI")?.to_owned())
}
