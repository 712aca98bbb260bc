//! What did the user write?
//!
//! The only place that knows `clap`. Arguments become a plan of [`crate::plan`] here, or an
//! [`Exit`] that says in a line what to change.

mod live;
mod meter;
mod output;
mod read;
mod values;

use std::ffi::OsString;
use std::io::{self, Write as _};

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::plan::{LivePlan, ReadPlan};

/// What to do.
pub enum Command {
    /// Meter interfaces.
    Live(Box<LivePlan>),
    /// Meter captures.
    Read(Box<ReadPlan>),
    /// Print the columns.
    Fields(Listing),
    /// Say what works on this machine.
    Doctor(Listing),
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// The run is over before it has begun: help was asked for, or the arguments are wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Exit {
    /// What to tell the user.
    pub text: String,
    /// The process's exit code: 0, or 2 for wrong arguments.
    pub code: u8,
}

/// Reads the command line, the program's name first.
pub fn parse<I, T>(args: I) -> Result<Command, Exit>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = Cli::try_parse_from(args).map_err(|e| Exit::from_clap(&e))?;
    Ok(match cli.action {
        Action::Live(args) => Command::Live(Box::new(args.plan()?)),
        Action::Read(args) => Command::Read(Box::new(args.plan()?)),
        Action::Fields(args) => Command::Fields(args.format),
        Action::Doctor(args) => Command::Doctor(args.format),
    })
}

impl Exit {
    /// Prints the text: errors on standard error, help on standard output.
    pub fn print(&self) -> io::Result<()> {
        if self.code == 0 {
            io::stdout().write_all(self.text.as_bytes())
        } else {
            io::stderr().write_all(self.text.as_bytes())
        }
    }

    fn usage(message: impl std::fmt::Display) -> Self {
        Self { text: format!("error: {message}\n"), code: 2 }
    }

    fn from_clap(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        if !error.use_stderr() {
            return Self { text, code: 0 };
        }
        if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            return Self { text, code: 2 };
        }
        let mut message = one_line(&text);
        if let ErrorKind::UnknownArgument
        | ErrorKind::InvalidSubcommand
        | ErrorKind::MissingSubcommand
        | ErrorKind::MissingRequiredArgument = error.kind()
        {
            message.push_str("; see `flowmeter --help`");
        }
        Self::usage(message)
    }
}

/// What clap says in paragraphs, without the synopsis.
fn one_line(text: &str) -> String {
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.is_empty());
    let mut message = String::new();
    for line in lines {
        match message.chars().last() {
            None => {}
            Some(':') => message.push(' '),
            Some(_) if line.starts_with('[') => message.push(' '),
            Some(_) => message.push_str("; "),
        }
        message.push_str(line.strip_prefix("error: ").unwrap_or(line));
    }
    message
}

/// A Linux host flow meter: bidirectional flows with process, application and statistics.
#[derive(Parser)]
#[command(name = "flowmeter", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Meter the packets of interfaces until interrupted.
    Live(Box<live::LiveArgs>),
    /// Meter the packets of capture files.
    Read(Box<read::ReadArgs>),
    /// Print the columns of a flow record: name, type, unit and meaning.
    Fields(ListingArgs),
    /// Report what works on this machine, and what to do about the rest.
    Doctor(ListingArgs),
}

#[derive(Args)]
struct ListingArgs {
    /// How to print the list.
    #[arg(long, value_name = "FORMAT", default_value = "table",
        value_parser = values::choice(&[("table", Listing::Table), ("json", Listing::Json)]))]
    format: Listing,
}

#[cfg(test)]
mod tests;
