//! Where is onnxruntime, and how does it run?

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::LoadDynamicError;
use ort::environment::{Environment, EnvironmentBuilder};
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use procfs::process::Process;

/// What the system's loader is asked for: with the library's version as packages install it, and
/// as development packages do.
const NAMES: [&str; 2] = ["libonnxruntime.so.1", "libonnxruntime.so"];

/// A process has one, and keeps it.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// Loads the runtime, if that was not done before. An error says where it was looked for.
pub fn load(library: Option<&Path>) -> Result<(), String> {
    let mut environment = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if environment.is_some() {
        return Ok(());
    }
    be_silent()?;
    let begun = if let Some(path) = library {
        // It takes a relative path as one beside the program.
        std::path::absolute(path).map_err(|e| e.to_string()).and_then(begin)
    } else {
        let [first, other] = NAMES.map(PathBuf::from);
        begin(first).or_else(|why| begin(other).map_err(|_| why))
    }?;
    let built = begun.with_name("flowmeter").with_telemetry(false).build();
    *environment = Some(built.map_err(|e| e.to_string())?);
    Ok(())
}

/// Some builds of onnxruntime (Microsoft's, from 1.29 on) begin to collect what they send home as soon
/// as they are initialized, unless this says 1.
const SILENCE: &str = "ORT_DISABLE_TELEMETRY";

/// Sets that variable. An error says that whoever runs the process must.
#[expect(unsafe_code, reason = "the environment is changed")]
fn be_silent() -> Result<(), String> {
    if std::env::var_os(SILENCE).is_some_and(|value| value == "1") {
        return Ok(());
    }
    let status = Process::myself().and_then(|this| this.status());
    if status.is_ok_and(|status| status.threads == 1) {
        // SAFETY: this thread is the only one, so that none reads the environment meanwhile.
        unsafe { std::env::set_var(SILENCE, "1") };
        return Ok(());
    }
    Err(format!(
        "it may report to its maker unless {SILENCE}=1 is set in the environment; set it first"
    ))
}

fn begin(library: PathBuf) -> Result<EnvironmentBuilder, String> {
    ort::init_from(library).map_err(|e| match &e {
        // Why, in the loader's own words, which name the library.
        LoadDynamicError::Dlopen { error, .. } => {
            error.source().map_or_else(|| e.to_string(), ToString::to_string)
        }
        _ => e.to_string(),
    })
}

/// The model, ready to run in the thread that asks, and no other.
pub fn session(model: &[u8]) -> ort::Result<Session> {
    let environment = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    let environment = environment.as_ref().ok_or_else(|| ort::Error::new("no runtime"))?;
    let builder = Session::builder(environment)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_optimization_level(GraphOptimizationLevel::All)?;
    let mut builder = builder;
    builder.commit_from_memory(model)
}
