//! Does `flowmeter read` still write the rows that were committed, byte for byte?
//!
//! The captures are those of the conformance data. `tests/rows.txt` has digests of their rows, by
//! how they are read and by capture. Whoever changes rows on purpose writes it anew, and says in
//! the commit which rows and why:
//!
//! ```sh
//! cargo build --workspace
//! UPDATE_EXPECT=1 FLOWMETER_CONFORMANCE=DIR cargo test --package flowmeter-tests --test rows
//! ```
//!
//! Rows of dissected flows depend on nDPI. With another version than the file's, only readings
//! without dissection are compared.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use flowmeter_tests::captures::conformance;
use flowmeter_tests::configurations::{CONFIGURATIONS, is_dissecting};
use flowmeter_tests::root::is_set;
use flowmeter_tests::{ndpi, program};
use sha2::{Digest as _, Sha256};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rows.txt");

/// Digests of fewer rows than this would be of a program that failed.
const LEAST_ROWS: usize = 1000;

#[test]
fn every_row_is_as_committed() -> Result<()> {
    let Some(captures) = conformance("every_row_is_as_committed")? else {
        return Ok(());
    };
    let (readings, ndpi) = (readings(), ndpi::version()?);
    if is_set("UPDATE_EXPECT") {
        fs::write(TABLE, digests(&captures, &readings, &ndpi)?.to_string())?;
        return Ok(());
    }
    let mut expected = Digests::parse(&fs::read_to_string(TABLE).context("no `tests/rows.txt`")?)?;
    if expected.ndpi == ndpi {
        return expected.compare(&digests(&captures, &readings, &ndpi)?);
    }
    let (left_out, readings): (Vec<_>, Vec<_>) = readings.into_iter().partition(|r| r.is_dissected);
    println!(
        "left out: {} of {} readings, which dissect: the committed rows are of nDPI {}, here is {ndpi}",
        left_out.len(),
        left_out.len() + readings.len(),
        expected.ndpi
    );
    expected.forget_dissected(&left_out);
    expected.compare(&digests(&captures, &readings, &ndpi)?)
}

/// A way to read a capture.
struct Reading {
    /// As the table has it: configuration, rules and format.
    name: String,
    options: Vec<&'static str>,
    /// The numbers of workers to read with, which must write the same.
    workers: &'static [&'static str],
    is_dissected: bool,
}

impl Reading {
    fn new(configuration: &str, rules: &str, format: Format, options: &[&'static str]) -> Self {
        let is_dissected = is_dissecting(options);
        Self {
            name: format!("{configuration}/{rules}/{}", format.name()),
            options: [options, format.options()].concat(),
            // Where the flows are never shared out (for NFStream's order of rows, and for dissection
            // of captures this small), each number of workers has one of the formats, which halves
            // the time.
            workers: match (is_dissected || rules == "nfstream", format) {
                (false, _) => &["1", "3"],
                (true, Format::Json) => &["1"],
                (true, Format::Csv) => &["3"],
            },
            is_dissected,
        }
    }
}

#[derive(Clone, Copy)]
enum Format {
    Json,
    Csv,
}

impl Format {
    const ALL: [Self; 2] = [Self::Json, Self::Csv];

    fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Json => &["--format=json", "--output=-"],
            Self::Csv => &["--format=csv", "--output=-"],
        }
    }
}

/// Readings by flowmeter's own rules, for the columns that no configuration of NFStream's has.
const EXTRA: [(&str, &[&str]); 2] = [
    ("extended", &["--group=l7-extended"]),
    ("sequences", &["--sequences", "--n-dissections=0", "--time-unit=ns"]),
];

fn readings() -> Vec<Reading> {
    let mut readings = Vec::new();
    for format in Format::ALL {
        for (configuration, options) in CONFIGURATIONS {
            readings.push(Reading::new(configuration, "own", format, options));
            let nfstream = [options, &["--compat=nfstream"]].concat();
            readings.push(Reading::new(configuration, "nfstream", format, &nfstream));
        }
        for (configuration, options) in EXTRA {
            readings.push(Reading::new(configuration, "own", format, options));
        }
    }
    let options = ["--compat=flowcontainer", "--n-dissections=0", "--no-decode-tunnels"];
    readings.push(Reading::new("notunnel", "flowcontainer", Format::Json, &options));
    readings
}

/// What the table has.
#[derive(Default)]
struct Digests {
    /// The version of nDPI that dissected.
    ndpi: String,
    /// Of the rows of all captures, by the reading's name.
    readings: BTreeMap<String, String>,
    /// Of the rows of all readings, by the capture's name.
    captures: BTreeMap<String, OfCapture>,
}

/// The beginnings of two digests, which only help to find what differs.
#[derive(PartialEq)]
struct OfCapture {
    undissected: String,
    /// None where nothing was dissected.
    dissected: Option<String>,
}

impl Digests {
    /// Reads what [`fmt::Display`] writes.
    fn parse(text: &str) -> Result<Self> {
        let mut digests = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["nDPI", ref version @ ..] => digests.ndpi = version.join(" "),
                [reading, digest] => {
                    digests.readings.insert(reading.to_owned(), digest.to_owned());
                }
                [capture, undissected, dissected] => {
                    let undissected = undissected.to_owned();
                    let of = OfCapture { undissected, dissected: Some(dissected.to_owned()) };
                    digests.captures.insert(capture.to_owned(), of);
                }
                _ => bail!("a line of `tests/rows.txt` is neither a reading nor a capture: {line}"),
            }
        }
        Ok(digests)
    }

    /// Leaves what does not depend on nDPI.
    fn forget_dissected(&mut self, readings: &[Reading]) {
        for reading in readings {
            self.readings.remove(&reading.name);
        }
        for capture in self.captures.values_mut() {
            capture.dissected = None;
        }
    }

    /// Fails with the names of all that differs.
    fn compare(&self, found: &Self) -> Result<()> {
        ensure_same_names("captures", &self.captures, &found.captures)?;
        ensure_same_names("readings", &self.readings, &found.readings)?;
        let readings = unequal(&self.readings, &found.readings);
        let captures = unequal(&self.captures, &found.captures);
        let count = format!("{} readings of {} captures", self.readings.len(), self.captures.len());
        ensure!(
            readings.is_empty() && captures.is_empty(),
            "of {count}, rows differ from `tests/rows.txt`\n  in {}\n  of {}",
            list(&readings),
            list(&captures)
        );
        println!("{count} are as committed");
        Ok(())
    }
}

impl fmt::Display for Digests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# SHA-256 of all rows that `flowmeter read` writes of the conformance captures,"
        )?;
        writeln!(
            f,
            "# by configuration, rules and format. The top of tests/rows.rs tells how to write"
        )?;
        writeln!(f, "# this file anew.")?;
        writeln!(f, "nDPI {}", self.ndpi)?;
        for (reading, digest) in &self.readings {
            writeln!(f, "{reading} {digest}")?;
        }
        writeln!(f, "# By capture, without dissection and with it: the digests' beginnings.")?;
        for (capture, OfCapture { undissected, dissected }) in &self.captures {
            writeln!(f, "{capture} {undissected} {}", dissected.as_deref().unwrap_or("-"))?;
        }
        Ok(())
    }
}

fn ensure_same_names<T>(
    what: &str,
    committed: &BTreeMap<String, T>,
    found: &BTreeMap<String, T>,
) -> Result<()> {
    let missing: Vec<_> = committed.keys().filter(|name| !found.contains_key(*name)).collect();
    let new: Vec<_> = found.keys().filter(|name| !committed.contains_key(*name)).collect();
    ensure!(
        missing.is_empty() && new.is_empty(),
        "{what} of `tests/rows.txt` that are not here: {}; here and not there: {}",
        list(&missing),
        list(&new)
    );
    Ok(())
}

/// The names with different values, of those that both have.
fn unequal<'a, T: PartialEq>(
    committed: &'a BTreeMap<String, T>,
    found: &BTreeMap<String, T>,
) -> Vec<&'a String> {
    let differs = |(name, value): &(&String, &T)| found.get(*name).is_some_and(|f| f != *value);
    committed.iter().filter(differs).map(|(name, _)| name).collect()
}

/// The number of names, and as many of them as a reader wants to see.
fn list(names: &[&String]) -> String {
    const SHOWN: usize = 40;
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| name.as_str()).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}: {}{more}", names.len(), shown.join(", "))
}

/// Reads all captures in all ways, as many at a time as there are CPUs.
fn digests(captures: &[PathBuf], readings: &[Reading], ndpi: &str) -> Result<Digests> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Vec<Rows>)>> {
        let mut done = Vec::new();
        while let index = next.fetch_add(1, Ordering::Relaxed)
            && let Some(capture) = captures.get(index)
        {
            let rows = readings.iter().map(|reading| rows(capture, reading));
            done.push((index, rows.collect::<Result<_>>()?));
        }
        Ok(done)
    };
    let mut rows = thread::scope(|scope| {
        let workers: Vec<_> = (0..thread::available_parallelism().map_or(1, usize::from))
            .map(|_| scope.spawn(work))
            .collect();
        let mut rows = Vec::new();
        for worker in workers {
            rows.extend(worker.join().expect("what fails there is an error, not a panic")?);
        }
        anyhow::Ok(rows)
    })?;
    rows.sort_by_key(|(index, _)| *index);

    let mut digests = Digests { ndpi: ndpi.to_owned(), ..Digests::default() };
    let mut of_readings = vec![(Sha256::new(), 0); readings.len()];
    for (index, rows) in rows {
        let name = captures[index].file_name().context("a capture has a name")?.to_string_lossy();
        let (mut undissected, mut dissected) = (Sha256::new(), Sha256::new());
        for ((reading, rows), (digest, lines)) in readings.iter().zip(rows).zip(&mut of_readings) {
            digest.update(name.as_bytes());
            digest.update(rows.digest);
            *lines += rows.lines;
            if reading.is_dissected { &mut dissected } else { &mut undissected }
                .update(rows.digest);
        }
        let beginning = |digest: Sha256| hex(&digest.finalize()[..8]);
        let is_dissected = readings.iter().any(|reading| reading.is_dissected);
        let of = OfCapture {
            undissected: beginning(undissected),
            dissected: is_dissected.then(|| beginning(dissected)),
        };
        digests.captures.insert(name.into_owned(), of);
    }
    for (reading, (digest, lines)) in readings.iter().zip(of_readings) {
        ensure!(lines >= LEAST_ROWS, "{}: only {lines} rows", reading.name);
        digests.readings.insert(reading.name.clone(), hex(&digest.finalize()));
    }
    Ok(digests)
}

/// What was written of a capture.
#[derive(PartialEq)]
struct Rows {
    digest: [u8; 32],
    lines: usize,
}

fn rows(capture: &Path, reading: &Reading) -> Result<Rows> {
    let read = |workers: &&str| -> Result<Rows> {
        let output = Command::new(program("flowmeter")?)
            .args(["read", "--n-meters", workers])
            .args(&reading.options)
            .arg(capture)
            .output()?;
        let what = || format!("{} of `{}`", reading.name, capture.display());
        let stderr = || String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {}: {}", what(), output.status, stderr());
        let lines = output.stdout.split(|byte| *byte == b'\n').count() - 1;
        Ok(Rows { digest: Sha256::digest(&output.stdout).into(), lines })
    };
    let rows = reading.workers.iter().map(read).collect::<Result<Vec<_>>>()?;
    let is_same = rows.windows(2).all(|pair| pair[0] == pair[1]);
    let workers = reading.workers.join(" and ");
    let (name, capture) = (&reading.name, capture.display());
    ensure!(is_same, "{workers} workers write different rows: {name} of `{capture}`");
    rows.into_iter().next().context("each reading has a number of workers")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
