//! What does NFStream itself say?

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

/// A run of NFStream over a capture.
#[derive(Clone, Debug)]
pub struct Job {
    /// The shipped plugin's name.
    pub plugin: &'static str,
    /// Its arguments.
    pub arguments: Value,
    /// The capture.
    pub capture: PathBuf,
    /// `NFStreamer`'s options.
    pub options: Value,
}

/// A Python that has NFStream: `$FLOWMETER_NFSTREAM`, or what `cargo xtask setup --tests` installs.
/// Where there is none, says that `test` does not run.
pub fn python(test: &str) -> Result<Option<PathBuf>> {
    if let Some(python) = std::env::var_os("FLOWMETER_NFSTREAM") {
        return Ok(Some(python.into()));
    }
    let test_program = std::env::current_exe().context("a test has a path")?;
    let python = test_program.ancestors().nth(3).map(|target| target.join("python/bin/python"));
    if let Some(python) = python.filter(|python| python.exists()) {
        return Ok(Some(python));
    }
    println!(
        "skipped: `{test}` compares with NFStream, which `cargo xtask setup --tests` installs"
    );
    Ok(None)
}

/// The flows of each job, in NFStream's order.
pub fn flows(python: &Path, jobs: &[Job]) -> Result<Vec<Vec<Value>>> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/plugins.py");
    let mut child = Command::new(python)
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to run `{}`", python.display()))?;
    let mut input = child.stdin.take().context("its input is piped")?;
    let lines: Vec<_> = jobs
        .iter()
        .map(|job| json!([job.plugin, job.arguments, job.capture, job.options]).to_string())
        .collect();
    let lines = lines.join("\n") + "\n";
    // It answers each before it reads the next, and neither is to wait for the other.
    let writer = thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "NFStream: {}", output.status);
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"["));
    lines.map(|line| Ok(serde_json::from_slice(line)?)).collect()
}
