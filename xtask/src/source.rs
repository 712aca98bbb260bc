//! What of a Rust file is code?
//!
//! Enough of a lexer to look for words without being misled by comments, strings and tests, or to
//! look for them in strings and doc comments. It does not know macros: what they make of their
//! arguments goes unseen.

use std::ops::Range;

/// The code of a file.
pub struct Source<'a> {
    text: &'a str,
    /// `text` with spaces for comments, the insides of strings, and test items; as long as `text`.
    code: String,
    /// The insides of strings, and doc comments, but for those of tests.
    prose: Vec<Range<usize>>,
}

/// A word of the code.
pub struct Word<'a> {
    /// Where it begins.
    pub at: usize,
    pub text: &'a str,
    /// The code before it, without the space between.
    pub before: &'a str,
    /// The code after it, without the space between.
    pub after: &'a str,
}

impl Word<'_> {
    /// Whether it is a later part of a path: `a::word`, but not `::word`.
    pub fn continues_path(&self) -> bool {
        self.before
            .strip_suffix("::")
            .is_some_and(|head| head.ends_with(|c: char| is_word(c) || c == '>'))
    }
}

impl<'a> Source<'a> {
    /// Finds what is code.
    pub fn read(text: &'a str) -> Self {
        let (code, mut prose) = without_text(text);
        let (code, tests) = without_tests(code);
        prose.retain(|range| !tests.iter().any(|test| test.contains(&range.start)));
        Self { text, code, prose }
    }

    /// The line of a place, from 1.
    pub fn line(&self, at: usize) -> usize {
        1 + self.code.bytes().take(at).filter(|b| *b == b'\n').count()
    }

    /// Names, keywords and numbers.
    pub fn words(&self) -> impl Iterator<Item = Word<'_>> {
        let mut end = 0;
        std::iter::from_fn(move || {
            let at = end + self.code.get(end..)?.find(is_word)?;
            let rest = self.code.get(at..)?;
            end = at + rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            Some(Word {
                at,
                text: self.code.get(at..end)?,
                before: self.code.get(..at)?.trim_end(),
                after: self.code.get(end..)?.trim_start(),
            })
        })
    }

    /// The modules of this crate that are named, and where: `a` and `b` of `crate::{a::X, b}`.
    pub fn imports(&self) -> Vec<(usize, &str)> {
        let mut imports = Vec::new();
        let mut words = self.words().peekable();
        while let Some(word) = words.next() {
            if word.text != "crate" || !word.after.starts_with("::") {
                continue;
            }
            let group = word.after.trim_start_matches("::").trim_start();
            if !group.starts_with('{') {
                imports.extend(words.peek().map(|word| (word.at, word.text)));
                continue;
            }
            // The group's words at its own level, each the first of its path.
            let begin = self.code.len() - group.len();
            let end = begin + closing(group, '{', '}').unwrap_or(group.len());
            while let Some(word) = words.next_if(|word| word.at < end) {
                let inside = self.code.get(begin..word.at).unwrap_or_default();
                let depth = inside.matches('{').count() - inside.matches('}').count();
                if depth == 1 && word.before.ends_with(['{', ',']) {
                    imports.push((word.at, word.text));
                }
            }
        }
        imports
    }

    /// What is written for people: strings, and doc comments that stand one below the other, line by
    /// line and each line with its place.
    pub fn prose(&self) -> Vec<Vec<(usize, &'a str)>> {
        let mut all: Vec<Vec<_>> = Vec::new();
        let mut end = 0;
        for range in &self.prose {
            let text = self.text.get(range.clone()).unwrap_or_default();
            let Some(line) = ["///", "//!"].iter().find_map(|mark| text.strip_prefix(mark)) else {
                let lines = text.split_inclusive('\n');
                all.push(lines.map(|line| (offset(self.text, line), line)).collect());
                continue;
            };
            let goes_on = self.text.get(end..range.start).is_some_and(|gap| gap.trim().is_empty());
            end = range.end;
            let line = (range.start, line);
            match all.last_mut().filter(|_| goes_on) {
                Some(lines) => lines.push(line),
                None => all.push(vec![line]),
            }
        }
        all
    }

    /// The string that is the only argument of the call at `at`, if it is one.
    pub fn text_after(&self, at: usize) -> Option<&str> {
        let open = at + self.code.get(at..)?.find('(')? + 1;
        let string = self.code.get(open..)?.trim_start();
        let begin = self.code.len() - string.len() + 1;
        let length = string.strip_prefix('"')?.find('"')?;
        self.text.get(begin..begin + length)
    }
}

/// Where a part of a text begins.
fn offset(text: &str, part: &str) -> usize {
    part.as_ptr().addr() - text.as_ptr().addr()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Spaces for all but line ends, byte for byte.
fn blank(text: &str) -> String {
    let space = |b| if b == b'\n' { '\n' } else { ' ' };
    text.bytes().map(space).collect()
}

/// The text without comments and the insides of strings and characters; and where in it strings and
/// doc comments are.
fn without_text(text: &str) -> (String, Vec<Range<usize>>) {
    let mut code = String::with_capacity(text.len());
    let mut prose = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_word = code.ends_with(is_word);
        let (kept, blanked) = if rest.starts_with("//") {
            (0, rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            (0, block_comment(rest))
        } else if first == '"' {
            (1, string(rest))
        } else if let Some((opening, inside)) = raw_string(rest).filter(|_| !after_word) {
            (opening, inside)
        } else if let Some(inside) = character(rest).filter(|_| first == '\'') {
            (1, inside)
        } else {
            (first.len_utf8(), 0)
        };
        let (kept, tail) = rest.split_at(kept);
        let (blanked, tail) = tail.split_at(blanked);
        code.push_str(kept);
        let is_doc = blanked.starts_with("//!")
            || blanked.starts_with("///") && !blanked.starts_with("////");
        if kept.ends_with('"') || is_doc {
            prose.push(code.len()..code.len() + blanked.len());
        }
        code.push_str(&blank(blanked));
        rest = tail;
        // The closing quote is neither blanked nor the beginning of another string.
        if (kept.ends_with('"') || kept == "'") && rest.starts_with(['"', '\'']) {
            code.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    (code, prose)
}

/// The length of a comment that may hold others.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of the inside of a string.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at - 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len() - 1
}

/// The lengths of the opening and of the inside of a raw string.
fn raw_string(text: &str) -> Option<(usize, usize)> {
    let hashes = text.trim_start_matches(['b', 'c']).strip_prefix('r')?;
    let inside = hashes.trim_start_matches('#').strip_prefix('"')?;
    let closing = format!("\"{}", "#".repeat(hashes.len() - inside.len() - 1));
    let length = inside.find(&closing).unwrap_or(inside.len());
    Some((text.len() - inside.len(), length))
}

/// The length of the inside of a character; none if it is a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut inside = text.get(1..)?.char_indices();
    let (_, first) = inside.next()?;
    if first == '\\' {
        inside.next();
        return inside.find(|(_, c)| *c == '\'').map(|(at, _)| at);
    }
    inside.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at)
}

/// The code without items for tests alone, and where they were.
fn without_tests(mut code: String) -> (String, Vec<Range<usize>>) {
    /// How the attributes begin that only tests fulfil.
    const TEST: [&str; 2] = ["#[cfg(test)]", "#[cfg(all(test,"];
    let mut tests = Vec::new();
    while let Some(begin) = TEST.iter().filter_map(|test| code.find(test)).min() {
        let end = begin + 1 + item(&code[begin + 1..]);
        let blanked = blank(&code[begin..end]);
        code.replace_range(begin..end, &blanked);
        tests.push(begin..end);
    }
    (code, tests)
}

/// The length of an item with its attributes: up to its body's end or its semicolon.
fn item(code: &str) -> usize {
    let mut at = 0;
    while let Some(rest) = code.get(at..) {
        let Some(next) = rest.find(['(', '[', '{', ';']) else {
            break;
        };
        let rest = &rest[next..];
        at += next;
        match rest.chars().next() {
            Some('(') => at += closing(rest, '(', ')').unwrap_or(rest.len()),
            Some('[') => at += closing(rest, '[', ']').unwrap_or(rest.len()),
            Some('{') => return at + closing(rest, '{', '}').unwrap_or(rest.len()),
            _ => return at + 1,
        }
    }
    code.len()
}

/// Where the bracket that the code begins with is closed: the place after it.
fn closing(code: &str, open: char, close: char) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return Some(at + 1);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::Source;

    fn words(text: &str) -> Vec<&str> {
        let source = Source::read(text);
        assert_eq!(source.code.len(), text.len());
        source.words().map(|word| &text[word.at..word.at + word.text.len()]).collect()
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        assert_eq!(words("a // b\nc"), ["a", "c"]);
        assert_eq!(words("a /* b /* c */ d */ e"), ["a", "e"]);
        assert_eq!(words(r#"a "b \" c // d" e"#), ["a", "e"]);
        assert_eq!(words("a r#\"b \" c\"# d"), ["a", "r", "d"]);
        assert_eq!(words(r#"a "" b "\\" c"#), ["a", "b", "c"]);
        assert_eq!(words("a \"\u{e4}\u{20ac}\" b /* \u{e4} */ c"), ["a", "b", "c"]);
    }

    #[test]
    fn a_quote_is_a_character_or_a_lifetime() {
        assert_eq!(words("a '\"' b '\\'' c '\u{e4}' d"), ["a", "b", "c", "d"]);
        assert_eq!(words("f<'a>(x: &'a str) 'b'"), ["f", "a", "x", "a", "str"]);
    }

    #[test]
    fn test_items_are_not_code() {
        assert_eq!(words("#[cfg(test)]\nmod tests { a { b } c }\nd"), ["d"]);
        assert_eq!(words("#[cfg(all(test, a = \"b\"))]\nmod tests { c }\nd"), ["d"]);
        assert_eq!(words("#[cfg(not(test))] a"), ["cfg", "not", "test", "a"]);
        assert_eq!(words("#[cfg(test)] #[x(y)] const A: [u8; 2] = [0; 2]; b"), ["b"]);
    }

    #[test]
    fn a_call_has_its_text() {
        let source = Source::read("x.expect(\n  \"no // comment\")");
        assert_eq!(source.text_after(2), Some("no // comment"));
        assert_eq!(Source::read("expect(token)").text_after(0), None);
    }
}
