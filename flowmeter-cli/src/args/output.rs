//! Which options has the output, whatever is metered?

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use flowmeter::attribution::profile::Secrets;
use flowmeter::fields::anonymize::Anonymizer;
use flowmeter::fields::{self, Added, Schema};
use flowmeter::format::Kind;
use flowmeter::output::queue;
use flowmeter::output::{self, Destination};

use super::Exit;
use super::values::choice;
use crate::plan::LogPlan;

/// Options shared by all that write flows.
#[derive(Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Write the flows to this file; - is standard output. [default: -, or CAPTURE.csv for a
    /// capture with --format csv]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// How to write: json is one object per line, appended to the file; csv replaces the file.
    /// [default: csv if FILE ends in .csv, else json]
    #[arg(long, value_name = "FORMAT",
        value_parser = choice(&Kind::ALL))]
    format: Option<Kind>,

    /// Write only these columns, in this order, separated by commas. `flowmeter fields` lists
    /// them.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    columns: Option<Vec<String>>,

    /// Write keyed digests (`BLAKE2b`) instead of the values of these columns, separated by commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    columns_to_anonymize: Vec<String>,

    /// Read the digests' key from this file of 16 to 64 bytes, so that different runs can be joined
    /// by them. [default: a random key for this run]
    #[arg(long, value_name = "FILE", requires = "columns_to_anonymize")]
    anonymize_key_file: Option<PathBuf>,

    /// Replace secrets in arguments and URLs, such as passwords and tokens, with [redacted].
    /// Secrets that the built-in rules do not recognise are shown. [default: live yes, read no]
    #[arg(long, overrides_with = "no_redact")]
    redact: bool,

    /// Show arguments and URLs as they are.
    #[arg(long, overrides_with = "redact")]
    no_redact: bool,

    /// Begin a new file after this many flows: flows.0.csv, flows.1.csv, …; 0 for a single file.
    /// With json, numbering continues after the files that are already there.
    #[arg(long, value_name = "FLOWS", default_value_t = 0, allow_negative_numbers = true)]
    flows_per_file: u64,

    /// After this many files, begin again by overwriting the first; 0 for no limit.
    #[arg(long, value_name = "FILES", default_value_t = 0, allow_negative_numbers = true)]
    rotate_files: u64,
}

impl OutputArgs {
    /// Where to write, and how, flows with the columns of `schema`. `capture` is what is metered, if
    /// that is a file.
    pub fn log(&self, capture: Option<&Path>, schema: Arc<Schema>) -> Result<LogPlan, Exit> {
        let is_csv = |path: &Path| path.extension().is_some_and(|e| e == "csv");
        let by_name = self.output.as_deref().is_some_and(is_csv);
        let format = self.format.unwrap_or(if by_name { Kind::Csv } else { Kind::Json });
        let destination = match (&self.output, capture) {
            (Some(path), _) if path.as_os_str() == "-" => Destination::Stdout,
            (Some(path), _) => Destination::File(path.clone()),
            (None, Some(path)) if format == Kind::Csv && path.as_os_str() != "-" => {
                let mut path = path.as_os_str().to_owned();
                path.push(".csv");
                Destination::File(path.into())
            }
            (None, _) => Destination::Stdout,
        };
        let output = output::Options {
            destination,
            flows_per_file: NonZeroU64::new(self.flows_per_file),
            rotate_files: NonZeroU64::new(self.rotate_files),
        };
        if output.flows_per_file.is_some() && output.destination == Destination::Stdout {
            return Err(Exit::usage("--flows-per-file needs files; name the first with --output"));
        }
        if output.rotate_files.is_some() && output.flows_per_file.is_none() {
            return Err(Exit::usage("--rotate-files needs --flows-per-file"));
        }
        Ok(LogPlan { output, format, schema, queue: queue::Options::default() })
    }

    /// What becomes of secrets, if that is not said `by_default`.
    pub fn secrets(&self, by_default: Secrets) -> Secrets {
        match (self.redact, self.no_redact) {
            (true, _) => Secrets::Redacted,
            (_, true) => Secrets::Shown,
            _ => by_default,
        }
    }

    /// The columns: `added` are those of plugins and models, in order.
    pub fn schema(
        &self,
        options: fields::Options,
        added: impl IntoIterator<Item = Added>,
        secrets: Secrets,
    ) -> Result<Arc<Schema>, Exit> {
        let mut schema = with_added(options, added)?;
        if secrets == Secrets::Redacted {
            schema = schema.redact();
        }
        if let Some(names) = &self.columns {
            schema =
                schema.select(names).map_err(|e| Exit::usage(format_args!("--columns: {e}")))?;
        }
        if !self.columns_to_anonymize.is_empty() {
            let anonymizer = match &self.anonymize_key_file {
                Some(path) => Anonymizer::from_file(path).map_err(|e| {
                    let path = path.display();
                    Exit::usage(format_args!("--anonymize-key-file: cannot use `{path}`: {e}"))
                })?,
                None => Anonymizer::random()
                    .map_err(|e| Exit::usage(format_args!("failed to get a random key: {e}")))?,
            };
            schema = schema
                .anonymize(&self.columns_to_anonymize, anonymizer)
                .map_err(|e| Exit::usage(format_args!("--columns-to-anonymize: {e}")))?;
            for (hidden, shown) in schema.exposed() {
                eprintln!(
                    "flowmeter: warning: `{hidden}` is anonymized, but `{shown}` shows the same; \
                     anonymize it too, or leave it out with --columns"
                );
            }
        }
        Ok(Arc::new(schema))
    }
}

/// The columns that `options` give, and those of plugins or models.
pub fn with_added(
    options: fields::Options,
    added: impl IntoIterator<Item = Added>,
) -> Result<Schema, Exit> {
    let schema = Schema::new(options).with_added(added);
    schema.map_err(|e| Exit::usage(format_args!("--plugin and --model: {e}")))
}
