//! Why did the kernel refuse a program?

use std::error::Error;
use std::fmt;
use std::io;

use aya::programs::ProgramError;

use super::sys;

/// A program was not loaded or attached.
#[derive(Debug)]
pub struct Refusal {
    /// The system's error.
    error: String,
    /// The last of what the verifier said, if it was asked.
    words: Vec<String>,
}

impl Refusal {
    /// Whether the verifier has said something.
    pub(super) fn has_words(&self) -> bool {
        !self.words.is_empty()
    }
}

impl From<&ProgramError> for Refusal {
    fn from(error: &ProgramError) -> Self {
        let words = match error {
            ProgramError::LoadError { verifier_log, .. } => last_words(&verifier_log.to_string()),
            _ => Vec::new(),
        };
        let number = sys::os_error(error);
        let error = number.map_or_else(|| first_line(error), of_number);
        Self { error, words }
    }
}

fn of_number(number: i32) -> String {
    io::Error::from_raw_os_error(number).to_string()
}

fn first_line(error: &ProgramError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        if self.has_words() {
            f.write_str("; the verifier's last words:")?;
        }
        self.words.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl Error for Refusal {}

/// Lines that are shown.
const LINES: usize = 4;
/// Characters of a line that are shown: the state of all registers is in one.
const LENGTH: usize = 160;

/// What follows the verdict, and what the verifier tells itself as it looks back.
const NOT_TELLING: [&str; 8] = [
    "processed ",
    "verification time ",
    "stack depth ",
    "last_idx ",
    "regs=",
    "mark_precise: ",
    "parent ",
    "max_states",
];

/// The last lines of a verifier's log that tell something: where it stopped, and why.
fn last_words(log: &str) -> Vec<String> {
    let is_telling = |line: &&str| {
        !line.is_empty() && !NOT_TELLING.iter().any(|beginning| line.starts_with(beginning))
    };
    let mut words: Vec<String> = log
        .lines()
        .map(str::trim)
        .rev()
        .filter(is_telling)
        .take(LINES)
        .map(|line| line.chars().take(LENGTH).collect())
        .collect();
    words.reverse();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a kernel 6.1, shortened.
    const LOG: &str = "\
0: R1=ctx(off=0,imm=0) R10=fp0
; fn forward() @ meter.rs:480
211: (85) call bpf_skb_load_bytes#26
R3 min value is outside of the allowed memory range
verification time 11811 usec
stack depth 160+0
processed 8211 insns (limit 1000000) max_states_per_insn 8 total_states 331 peak_states 331 mark_read 40

";

    #[test]
    fn the_last_words_say_where_and_why() {
        assert_eq!(
            last_words(LOG),
            [
                "0: R1=ctx(off=0,imm=0) R10=fp0",
                "; fn forward() @ meter.rs:480",
                "211: (85) call bpf_skb_load_bytes#26",
                "R3 min value is outside of the allowed memory range",
            ]
        );
    }

    #[test]
    fn what_is_shown_is_bounded_and_has_no_noise() {
        let noise =
            "last_idx 93 first_idx 86\nregs=2 stack=0 before 92: (61) r1 = *(u32 *)(r6 +0)\n";
        let long = format!("{noise}94: {}\n{noise}", "é".repeat(1000)).repeat(10);
        let words = last_words(&long);
        assert_eq!(words.len(), LINES);
        for line in words {
            assert!(line.starts_with("94: é") && line.chars().count() == LENGTH, "{line}");
        }
        assert!(last_words("").is_empty());
    }

    #[test]
    fn a_refusal_without_a_log_is_its_error() {
        let refusal = Refusal { error: of_number(libc::EINVAL), words: last_words("") };
        assert_eq!(refusal.to_string(), "Invalid argument (os error 22)");
    }
}
