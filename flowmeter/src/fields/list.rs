//! How are the columns listed for a reader?

use std::fmt::Write as _;

use serde_json::json;

use super::columns::{self, Group};

/// The columns as aligned text, then the groups and when they are there.
pub fn table() -> String {
    let rows: Vec<[&str; 5]> = std::iter::once(["COLUMN", "TYPE", "UNIT", "GROUP", "MEANING"])
        .chain(columns::all().map(|c| [c.name, c.kind.name(), c.unit, c.group.name(), c.doc]))
        .collect();
    let width = |i: usize| rows.iter().map(|row| row[i].len()).max().unwrap_or(0);
    let [w0, w1, w2, w3] = [0, 1, 2, 3].map(width);
    let mut out = String::new();
    for [name, kind, unit, group, doc] in &rows {
        put(&mut out, format_args!("{name:w0$}  {kind:w1$}  {unit:w2$}  {group:w3$}  {doc}\n"));
    }
    out.push_str("\nGROUP       PRESENT\n");
    for group in groups() {
        put(&mut out, format_args!("{:10}  {}\n", group.name(), group.condition()));
    }
    out
}

/// The columns as a JSON array of objects.
pub fn json() -> serde_json::Value {
    columns::all()
        .map(|c| {
            json!({
                "name": c.name,
                "group": c.group.name(),
                "present": c.group.condition(),
                "type": c.kind.name(),
                "unit": (!c.unit.is_empty()).then_some(c.unit),
                "description": c.doc,
            })
        })
        .collect()
}

/// The columns as `docs/fields.md`.
pub fn markdown() -> String {
    let mut out = String::from(
        "<!-- Generated from flowmeter/src/fields/columns.rs; `UPDATE_EXPECT=1 cargo test -p flowmeter` rewrites it. -->\n\n\
         # Columns\n\n\
         In the order in which they are written. The first are NFStream's, with the same names and values.\n\n\
         | group | present |\n|---|---|\n",
    );
    for group in groups() {
        put(&mut out, format_args!("| {} | {} |\n", group.name(), group.condition()));
    }
    out.push_str("\n| column | type | unit | group | meaning |\n|---|---|---|---|---|\n");
    for c in columns::all() {
        put(
            &mut out,
            format_args!(
                "| `{}` | {} | {} | {} | {} |\n",
                c.name,
                c.kind.name(),
                c.unit,
                c.group.name(),
                c.doc
            ),
        );
    }
    out
}

/// The groups in the order of their first columns.
fn groups() -> Vec<Group> {
    let mut groups = Vec::new();
    for column in columns::all() {
        if !groups.contains(&column.group) {
            groups.push(column.group);
        }
    }
    groups
}

fn put(out: &mut String, text: std::fmt::Arguments) {
    out.write_fmt(text).expect("memory takes every write");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn docs_are_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/fields.md");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, markdown()).expect("docs/ can be written");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == markdown(),
            "docs/fields.md differs from the columns; UPDATE_EXPECT=1 rewrites it"
        );
    }

    #[test]
    fn names_are_unique_and_plain() {
        let mut seen = HashSet::new();
        for column in columns::all() {
            assert!(seen.insert(column.name), "`{}` is there twice", column.name);
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            assert!(column.name.bytes().all(plain), "`{}`", column.name);
        }
    }

    #[test]
    fn nfstream_columns_come_first() {
        let own = columns::all().position(|c| c.group == Group::Sequences);
        // The core with tunnel_id, the statistics, the lists, layer 7, the process.
        assert_eq!(own, Some(29 + 48 + 3 + 9 + 2));
    }
}
