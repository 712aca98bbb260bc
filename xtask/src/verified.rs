//! What do the verifiers of several kernels make of the programs, by the committed table?

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context as _, Result, bail};

use crate::vm::kernels::by_age;

/// What a verifier makes of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It loads, after this many instructions were verified.
    Verified(u64),
    /// It loads; kernels before 5.16 do not count.
    Loads,
    /// It does not, and why.
    Refused(String),
}

/// Verdicts by program.
pub type Column = BTreeMap<String, Verdict>;

/// Columns by the kernel's name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table(BTreeMap<String, Column>);

/// What a kernel is compared with.
#[derive(Debug, PartialEq, Eq)]
pub enum Expected<'a> {
    /// Its own column.
    Own(&'a Column),
    /// The column of the nearest older kernel: what loads there loads here, and the counts of
    /// another verifier say nothing.
    Older(&'a str, &'a Column),
    /// There is none.
    Nothing,
}

const REFUSED: &str = "refused";

impl Table {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Result<Self> {
        let reasons: BTreeMap<_, _> = text.lines().filter_map(reason).collect();
        let mut rows = text.lines().filter_map(cells);
        let kernels = rows.next().context("there is no head")?;
        let mut table = Self::default();
        for row in rows {
            let [program, verdicts @ ..] = &row[..] else { bail!("there is an empty row") };
            if row.len() != kernels.len() {
                bail!("the row of `{program}` has not as many cells as the head");
            }
            for (kernel, cell) in kernels.iter().skip(1).zip(verdicts) {
                let why = reasons.get(&(*kernel, *program));
                if let Some(verdict) = Verdict::parse(cell, why)? {
                    let column = table.0.entry((*kernel).to_owned()).or_default();
                    column.insert((*program).to_owned(), verdict);
                }
            }
        }
        Ok(table)
    }

    /// A kernel's column.
    pub fn column(&self, kernel: &str) -> Option<&Column> {
        self.0.get(kernel)
    }

    /// Sets a kernel's column.
    pub fn set(&mut self, kernel: &str, column: Column) {
        self.0.insert(kernel.to_owned(), column);
    }

    /// What the kernel is compared with.
    pub fn expected(&self, kernel: &str) -> Expected<'_> {
        if let Some(column) = self.column(kernel) {
            return Expected::Own(column);
        }
        let older = self.0.iter().filter(|(name, _)| by_age(name, kernel).is_lt());
        match older.max_by(|(a, _), (b, _)| by_age(a, b)) {
            Some((name, column)) => Expected::Older(name, column),
            None => Expected::Nothing,
        }
    }
}

/// The cells of a row between bars.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// Kernel, program and why, of a line like `refused by 6.1: flowmeter_send: why`.
fn reason(line: &str) -> Option<((&str, &str), &str)> {
    let (kernel, rest) = line.strip_prefix(REFUSED)?.strip_prefix(" by ")?.split_once(": ")?;
    let (program, why) = rest.split_once(": ")?;
    Some(((kernel, program), why))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kernels: Vec<_> = self.0.keys().collect();
        kernels.sort_by(|a, b| by_age(a, b));
        let programs: BTreeSet<_> = self.0.values().flat_map(Column::keys).collect();
        let mut rows = vec![vec!["program".to_owned()]];
        rows[0].extend(kernels.iter().map(|kernel| (*kernel).clone()));
        for program in programs {
            let verdict = |kernel: &&String| self.0[*kernel].get(program).map(Verdict::cell);
            let verdicts = kernels.iter().map(|kernel| verdict(kernel).unwrap_or_default());
            rows.push(std::iter::once(program.clone()).chain(verdicts).collect());
        }
        f.write_str(&aligned(&rows))?;
        for kernel in kernels {
            for (program, verdict) in &self.0[kernel] {
                if let Verdict::Refused(why) = verdict {
                    // A reason is a line.
                    let why = why.lines().next().unwrap_or_default();
                    writeln!(f, "{REFUSED} by {kernel}: {program}: {why}")?;
                }
            }
        }
        Ok(())
    }
}

/// Rows of cells between bars, below each other: the first of each to the left, the others to the
/// right.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |i: usize| rows.iter().filter_map(|row| row.get(i)).map(|c| c.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|i| width(i).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let cell = if i == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") };
            text.push_str(if i == 0 { "| " } else { " | " });
            text.push_str(&cell);
        }
        text.push_str(" |\n");
    }
    text
}

impl Verdict {
    /// Whether the program can be used.
    pub fn loads(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }

    fn parse(cell: &str, why: Option<&&str>) -> Result<Option<Self>> {
        Ok(Some(match (cell, why) {
            ("", _) => return Ok(None),
            ("loads", _) => Self::Loads,
            (REFUSED, Some(why)) => Self::Refused((*why).to_owned()),
            (REFUSED, None) => bail!("a program is refused without a reason"),
            _ => Self::Verified(cell.parse().with_context(|| format!("`{cell}`"))?),
        }))
    }

    fn cell(&self) -> String {
        match self {
            Self::Verified(count) => count.to_string(),
            Self::Loads => "loads".into(),
            Self::Refused(_) => REFUSED.into(),
        }
    }
}

impl<'a> Expected<'a> {
    /// The column.
    pub fn column(&self) -> Option<&'a Column> {
        match *self {
            Self::Own(column) | Self::Older(_, column) => Some(column),
            Self::Nothing => None,
        }
    }

    /// What of the verdicts found is not as expected. A program that has grown by more than a
    /// quarter has lost what keeps its states apart, and will be refused one day.
    pub fn differences(&self, found: &Column) -> Vec<String> {
        let nothing = Column::new();
        let column = self.column().unwrap_or(&nothing);
        let is_own = matches!(self, Self::Own(_));
        let mut differences = Vec::new();
        for (name, verdict) in found {
            match (column.get(name), verdict) {
                (None, _) if is_own => {
                    differences.push(format!("`{name}` is not in xtask/verified.txt"));
                }
                (Some(Verdict::Refused(_)), Verdict::Refused(_)) => {}
                (_, Verdict::Refused(_)) if !is_own && is_made_up_for(name, found) => {}
                (_, Verdict::Refused(why)) => {
                    differences.push(format!("`{name}` is refused: {why}"));
                }
                (Some(Verdict::Refused(_)), _) if is_own => {
                    differences.push(format!("`{name}` is no longer refused"));
                }
                (Some(Verdict::Verified(before)), Verdict::Verified(now))
                    if is_own && *now > before + before / 4 =>
                {
                    differences.push(format!(
                        "`{name}` has grown from {before} to {now} instructions verified"
                    ));
                }
                _ => {}
            }
        }
        let gone = column.keys().filter(|name| !found.contains_key(*name));
        differences.extend(gone.map(|name| format!("there is no program `{name}`")));
        differences
    }
}

/// A program at a function that newer kernels do not have, and the one that it stands in for.
const STANDS_IN: (&str, &str) = ("flowmeter_send_page", "flowmeter_send");

/// Whether a program that a kernel refuses is not needed there.
fn is_made_up_for(name: &str, found: &Column) -> bool {
    let (stand_in, program) = STANDS_IN;
    let loads = |verdict: &Verdict| !matches!(verdict, Verdict::Refused(_));
    name == stand_in && found.get(program).is_some_and(loads)
}

#[cfg(test)]
mod tests {
    use super::{Column, Expected, Table, Verdict};

    fn column(programs: &[(&str, Verdict)]) -> Column {
        programs.iter().map(|(name, verdict)| ((*name).to_owned(), verdict.clone())).collect()
    }

    fn refused() -> Verdict {
        Verdict::Refused("no such hook".into())
    }

    fn differences(committed: &Verdict, found: &Verdict) -> Vec<String> {
        let [committed, found] = [committed, found].map(|v| column(&[("meter", v.clone())]));
        let own = Expected::Own(&committed).differences(&found);
        let older = Expected::Older("5.10", &committed).differences(&found);
        assert!(older.iter().all(|difference| own.contains(difference)), "{older:?} {own:?}");
        own
    }

    #[test]
    fn a_program_may_grow_by_a_quarter() {
        let [few, some, more, too_many] = [1, 100, 125, 126].map(Verdict::Verified);
        assert!(differences(&some, &more).is_empty());
        assert!(differences(&some, &few).is_empty());
        assert_eq!(differences(&some, &too_many).len(), 1);
        let (committed, found) = (column(&[("meter", some)]), column(&[("meter", too_many)]));
        assert!(Expected::Older("6.1", &committed).differences(&found).is_empty());
    }

    #[test]
    fn a_program_that_loads_goes_on_loading() {
        let some = Verdict::Verified(100);
        assert!(differences(&Verdict::Loads, &Verdict::Loads).is_empty());
        assert!(differences(&refused(), &Verdict::Refused("another word".into())).is_empty());
        assert_eq!(differences(&Verdict::Loads, &refused()), ["`meter` is refused: no such hook"]);
        assert_eq!(differences(&some, &refused()), ["`meter` is refused: no such hook"]);
        assert_eq!(differences(&refused(), &some), ["`meter` is no longer refused"]);
    }

    #[test]
    fn a_stand_in_need_not_load_where_what_it_stands_in_for_does() {
        let (stand_in, program) = super::STANDS_IN;
        let old = column(&[(stand_in, Verdict::Loads), (program, refused())]);
        let new = column(&[(stand_in, refused()), (program, Verdict::Loads)]);
        let neither = column(&[(stand_in, refused()), (program, refused())]);
        assert!(Expected::Older("6.1", &old).differences(&new).is_empty());
        assert_eq!(Expected::Older("6.1", &old).differences(&neither).len(), 1);
        assert_eq!(Expected::Own(&old).differences(&new).len(), 2, "its own column is exact");
    }

    #[test]
    fn programs_come_and_go_by_the_table() {
        let old = column(&[("old", Verdict::Loads)]);
        let new = column(&[("new", Verdict::Loads)]);
        assert_eq!(
            Expected::Own(&old).differences(&new),
            ["`new` is not in xtask/verified.txt", "there is no program `old`"]
        );
        assert!(Expected::Nothing.differences(&new).is_empty());
        assert_eq!(Expected::Nothing.differences(&column(&[("new", refused())])).len(), 1);
    }

    #[test]
    fn a_table_survives_writing() {
        let mut table = Table::default();
        table.set("6.12", column(&[("a", Verdict::Verified(1)), ("bb", Verdict::Verified(22))]));
        table.set("5.10", column(&[("a", refused()), ("c", Verdict::Loads)]));
        let text = table.to_string();
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "| program |    5.10 | 6.12 |",
                "| a       | refused |    1 |",
                "| bb      |         |   22 |",
                "| c       |   loads |      |",
                "refused by 5.10: a: no such hook",
            ]
        );
        assert_eq!(Table::parse(&text).ok(), Some(table));
        assert!(Table::parse("| program | 6.1 |\n| a |\n").is_err());
        assert!(Table::parse("| program | 6.1 |\n| a | x |\n").is_err());
        assert!(Table::parse("| program | 6.1 |\n| a | refused |\n").is_err());
        assert!(Table::parse("").is_err());
    }

    #[test]
    fn a_kernel_without_a_column_has_the_next_older_ones() {
        let mut table = Table::default();
        table.set("5.10", Column::new());
        table.set("6.1", Column::new());
        table.set("7.x", Column::new());
        let of = |kernel| match table.expected(kernel) {
            Expected::Own(_) => "own",
            Expected::Older("5.10", _) => "5.10",
            Expected::Older("6.1", _) => "6.1",
            Expected::Older(..) => "another",
            Expected::Nothing => "nothing",
        };
        assert_eq!(["6.1", "6.12", "5.15", "5.4"].map(of), ["own", "6.1", "5.10", "nothing"]);
    }
}
