//! What does a model make of a flow?
//!
//! A [`Model`] is an ONNX file, as scikit-learn and others export them, which onnxruntime
//! runs when a flow has ended. Its inputs are columns of the flow; its outputs become columns behind
//! those of plugins. The runtime is a library of the user's, loaded only if there is a model: no other
//! runs what those tools export, and it is too large to carry along.

mod inputs;
mod outputs;
mod running;
mod runtime;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use thiserror::Error;

use self::inputs::Inputs;
use self::outputs::Outputs;
pub(crate) use self::running::Scorer;
use crate::fields::{Added, Schema};

/// Why a model cannot be run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no onnxruntime.
    #[error(
        "cannot load onnxruntime, which runs models: {0}. It comes with `pip install onnxruntime` \
         as capi/libonnxruntime.so.VERSION and as a package of the system; 1.17 or later is needed"
    )]
    Runtime(String),
    /// The file cannot be read.
    #[error("cannot read the model `{}`", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// onnxruntime does not take it.
    #[error("cannot use the model `{}`: {why}", file.display())]
    Invalid {
        /// The file.
        file: PathBuf,
        /// Why.
        why: String,
    },
}

/// A model that has been tried, with the columns that it takes and gives.
#[derive(Clone)]
pub struct Model(Arc<Loaded>);

struct Loaded {
    file: PathBuf,
    bytes: Vec<u8>,
    schema: Schema,
    inputs: Inputs,
    outputs: Outputs,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Model").field(&self.0.file).finish()
    }
}

impl Model {
    /// Reads the model, and runs it once, on nothing, to know what it gives.
    ///
    /// `features` are the columns that it takes, in its order; without any, those that its own
    /// metadata has as `features`, separated by commas, or else those that its inputs are named
    /// after. `schema` has all columns of the run, those of plugins included. `library` is
    /// onnxruntime's; without it, the system's loader looks for one. The first that is loaded stays
    /// for all models of the process.
    pub fn load(
        file: &Path,
        features: &[String],
        schema: &Schema,
        library: Option<&Path>,
    ) -> Result<Self, Error> {
        let bytes =
            std::fs::read(file).map_err(|source| Error::Read { file: file.to_owned(), source })?;
        runtime::load(library).map_err(Error::Runtime)?;
        let invalid = |why: String| Error::Invalid { file: file.to_owned(), why };
        let mut session = runtime::session(&bytes).map_err(|e| invalid(e.to_string()))?;
        let inputs = Inputs::of(&session, features, schema).map_err(invalid)?;
        let outputs = Outputs::tried(&mut session, &inputs, &name(file)).map_err(invalid)?;
        let schema = schema.clone();
        Ok(Self(Arc::new(Loaded { file: file.to_owned(), bytes, schema, inputs, outputs })))
    }

    /// Its columns, in order.
    pub fn columns(&self) -> &[Added] {
        &self.0.outputs.columns
    }
}

/// What stands in its columns' names for a model: its file's name, without the ending.
fn name(file: &Path) -> String {
    word(&file.file_stem().unwrap_or_default().to_string_lossy())
}

/// A text as part of a column's name.
fn word(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    text.chars().map(plain).collect()
}

/// The models of a run, in order.
#[derive(Clone, Debug, Default)]
pub struct Models {
    models: Vec<Model>,
    /// Flows that a model could not be run on.
    failures: Arc<AtomicU64>,
}

impl Models {
    /// Adds a model behind the others.
    #[must_use]
    pub fn with(mut self, model: Model) -> Self {
        self.models.push(model);
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// The columns of all, in order: they stand behind those of plugins.
    pub fn columns(&self) -> impl Iterator<Item = Added> {
        self.models.iter().flat_map(|model| model.columns().iter().cloned())
    }

    /// Flows that a model could not be run on, so that its columns are null.
    pub fn failures(&self) -> u64 {
        self.failures.load(std::sync::atomic::Ordering::Relaxed)
    }
}
