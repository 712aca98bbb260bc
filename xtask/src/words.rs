//! Which words are not to come back?
//!
//! What users read was put into plain English once. It stays so because these phrases are looked for
//! in documents, and in the strings and doc comments of the crates: not in code, other comments and
//! tests.

use crate::source::Source;

/// Phrases, and what to say instead. A full stop stands for the end of a clause.
const PHRASES: &[(&str, &str)] = &[
    ("as many again", "twice as many"),
    ("as much again", "twice as much"),
    ("at the least.", "at least"),
    ("at the most.", "at most"),
    ("expression is none", "expression is invalid"),
    ("line a flow", "line per flow"),
    ("object a line", "object per line"),
    ("one a", "one per"),
    ("silent longest", "idle longest"),
    ("so many", "this many"),
    ("so often", "this often"),
    ("tell of", "report"),
    ("telling of", "reporting"),
    ("tells of", "reports"),
    ("those there are", "those that exist"),
    ("to be had", "available"),
    ("told of", "reported"),
    ("unless said", "by default"),
    ("what is none", "anything else"),
    ("whose it is", "what it belongs to"),
    ("whose they are", "what they belong to"),
    ("without rights", "without privileges"),
];

/// The phrases in a Rust file's strings and doc comments, each with its line.
pub fn in_rust(text: &str) -> Vec<(usize, String)> {
    let source = Source::read(text);
    let prose = source.prose();
    let found = prose.iter().flat_map(|lines| found(lines));
    found.map(|(at, what)| (source.line(at), what)).collect()
}

/// The phrases in a document, each with its line; of a changelog, in what is not released.
pub fn in_markdown(text: &str) -> Vec<(usize, String)> {
    let mut faults = Vec::new();
    let mut paragraph = Vec::new();
    let (mut is_released, mut is_code) = (false, false);
    for (at, line) in text.lines().enumerate() {
        if let Some(title) = line.strip_prefix("## ") {
            is_released = title.starts_with(|c: char| c.is_ascii_digit() || c == '[');
        }
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        if line.trim().is_empty() || is_fence {
            faults.extend(found(&paragraph));
            paragraph.clear();
        } else if !is_code && !is_released {
            paragraph.push((at + 1, line));
        }
    }
    faults.extend(found(&paragraph));
    faults
}

/// A word, without what stands around it.
struct Word {
    place: usize,
    text: String,
    begins_clause: bool,
    ends_clause: bool,
}

impl Word {
    fn of(place: usize, text: &str) -> Self {
        let inner = text.trim_matches(|c: char| !c.is_alphanumeric());
        Self {
            place,
            text: inner.to_lowercase(),
            begins_clause: !text.starts_with(inner),
            ends_clause: !text.ends_with(inner),
        }
    }
}

/// The phrases in a text that goes on over these lines, with the lines' places.
fn found(lines: &[(usize, &str)]) -> Vec<(usize, String)> {
    let mut words = Vec::new();
    for (place, line) in lines {
        // The end of a line within a string is written out, or masked.
        let line = line.replace("\\n", "  ");
        let line = line.trim_end().trim_end_matches('\\');
        words.extend(line.split_whitespace().map(|word| Word::of(*place, word)));
    }
    if let Some(last) = words.last_mut() {
        last.ends_clause = true;
    }
    let mut faults = Vec::new();
    for begin in 0..words.len() {
        let words = &words[begin..];
        for (phrase, better) in PHRASES.iter().filter(|(phrase, _)| begins(words, phrase)) {
            let phrase = phrase.trim_end_matches('.');
            faults.push((words[0].place, format!("`{phrase}`: better `{better}`")));
        }
    }
    faults
}

/// Whether the words begin with the phrase, with nothing but space in between.
fn begins(words: &[Word], phrase: &str) -> bool {
    let clause = phrase.strip_suffix('.');
    let wanted: Vec<&str> = clause.unwrap_or(phrase).split(' ').collect();
    let Some(words) = words.get(..wanted.len()) else { return false };
    let is_same = words.iter().zip(&wanted).all(|(word, wanted)| word.text == *wanted);
    let is_joined = words.windows(2).all(|pair| !pair[0].ends_clause && !pair[1].begins_clause);
    let ends = words.last().is_some_and(|last| last.ends_clause);
    is_same && is_joined && (clause.is_none() || ends)
}

#[cfg(test)]
mod tests {
    use super::{in_markdown, in_rust};

    fn lines(faults: Vec<(usize, String)>) -> Vec<usize> {
        faults.into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn documents_are_read_by_paragraphs() {
        assert_eq!(
            in_markdown("It ends after so\nmany flows."),
            [(1, "`so many`: better `this many`".into())]
        );
        assert_eq!(lines(in_markdown("a\n\n* writes *one\n  line a flow*\n")), [4]);
        assert!(in_markdown("It says so\n\nmany times.").is_empty());
        assert!(in_markdown("It says so; many read it.").is_empty());
        assert!(in_markdown("```\nso many\n```\nso much\n").is_empty());
    }

    #[test]
    fn what_is_released_stays_as_it_was() {
        let changelog = "# Changelog\n\n## Unreleased\n\n* told of\n\n## 1.0\n\n* told of\n";
        assert_eq!(lines(in_markdown(changelog)), [5]);
    }

    #[test]
    fn strings_and_doc_comments_are_read() {
        assert_eq!(lines(in_rust("/// Stop after so\n    /// many flows.\nx: u8")), [1]);
        assert_eq!(lines(in_rust("//! One a\n//! processor.\n")), [1]);
        assert_eq!(lines(in_rust("f(\n\"none is \\\n   to be had: {e}\")")), [3]);
        assert_eq!(lines(in_rust("#[error(\"none to be had\")]\nX,")), [1]);
        assert_eq!(lines(in_rust("g(r#\"so many\"#)")), [1]);
    }

    #[test]
    fn code_comments_and_tests_are_not_read() {
        assert!(in_rust("// so many\nlet so = many; //// so many").is_empty());
        assert!(in_rust("#[cfg(test)]\nmod tests {\n/// so many\nf(\"so many\") }").is_empty());
        assert!(in_rust("/// It is so\nfn f() {}\n/// many").is_empty());
    }

    #[test]
    fn english_is_no_fault() {
        assert!(in_rust("/// Looks at the most recent one; a second one, a third.").is_empty());
        assert_eq!(lines(in_rust("/// Waits 10 s at the most.")), [1]);
        assert_eq!(lines(in_rust("/// Bytes at the most")), [1]);
        assert!(in_markdown("0 if there is none; whose items are written").is_empty());
    }
}
