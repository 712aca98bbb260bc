//! What works on this machine, and what can be done about the rest?

use std::fmt::Write as _;

use flowmeter::capture::kernel::probe::{self, Finding, State};
use flowmeter::dissect;
use serde_json::{Value, json};

use crate::plan;

/// Looks at everything that `flowmeter live` needs.
pub fn examine() -> Vec<Finding> {
    let mut findings = probe::probe();
    // In this process, as `--dissector in-process` does it, and in a child, as is the default.
    let here = dissect::place::here();
    findings.push(ndpi(&here));
    findings.push(containment(&here));
    findings
}

/// Starts a dissector as `live` and `read` do by default, and asks it.
fn containment(here: &Result<(), dissect::Error>) -> Finding {
    use dissect::contained::Landlock;
    let advice = "Landlock adds a layer on Linux 5.13 and later, if the kernel has it enabled";
    let user = dissect::User::NOBODY;
    match dissect::place::contained(plan::this_program(), user) {
        Ok(landlock) => {
            let (state, word) = match landlock {
                Landlock::Full => (State::Works, "Landlock"),
                Landlock::Partial => (State::Works, "Landlock as far as this kernel supports it"),
                Landlock::Absent => (State::Limited, "no Landlock"),
            };
            let found = format!(
                "child process: user {} if started by root, no capabilities, no new privileges, \
                 seccomp, limits, {word}",
                user.uid
            );
            Finding::new("containment", state, found, advice)
        }
        Err(e) => {
            let advice = match here {
                Ok(()) => {
                    "use `--dissector in-process`, with which a hostile packet can crash the meter"
                }
                Err(_) => "fix nDPI first, see above; `--n-dissections 0` meters without it",
            };
            Finding::new("containment", State::Missing, e.to_string(), advice)
        }
    }
}

fn ndpi(here: &Result<(), dissect::Error>) -> Finding {
    let advice = "5.0 has NFStream's application names, older versions have fewer (server names \
                  and JA4 are the same): build it from https://github.com/ntop/nDPI, and flowmeter \
                  against it, as docs/ndpi.md explains";
    match (dissect::version(), here) {
        (Some(version), Ok(())) => {
            let major = version.split('.').next().and_then(|n| n.parse::<u32>().ok());
            let state = if major >= Some(5) { State::Works } else { State::Limited };
            Finding::new("nDPI", state, version, advice)
        }
        (Some(_), Err(e)) => {
            let advice = match e {
                dissect::Error::Incompatible { .. } => {
                    "`ldd` on flowmeter says which file was loaded; `--n-dissections 0` meters \
                     without nDPI"
                }
                _ => "`--n-dissections 0` meters without nDPI",
            };
            Finding::new("nDPI", State::Missing, e.to_string(), advice)
        }
        (None, _) => Finding::new(
            "nDPI",
            State::Limited,
            "not built in",
            "without it applications are guessed by port, except for TLS, DTLS and QUIC; build \
             with the feature `ndpi`",
        ),
    }
}

/// Whether `flowmeter live` works.
pub fn is_well(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.state != State::Missing)
}

/// For people: what is said of each thing begins in one column, whatever the things are called.
pub fn table(findings: &[Finding]) -> String {
    let longest = findings.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let state = word(finding.state);
        let mut lines = finding.found.lines();
        // Writing to a string does not fail.
        let _ =
            writeln!(text, "{state:8} {:longest$} {}", finding.what, lines.next().unwrap_or(""));
        for line in lines {
            let _ = writeln!(text, "{:8} {:longest$} {line}", "", "");
        }
        if !finding.advice.is_empty() {
            let _ = writeln!(text, "{:8} {:longest$} → {}", "", "", finding.advice);
        }
    }
    text
}

/// For programs.
pub fn json(findings: &[Finding]) -> Value {
    findings
        .iter()
        .map(|finding| {
            json!({
                "what": finding.what,
                "state": word(finding.state),
                "found": finding.found,
                "advice": finding.advice,
            })
        })
        .collect()
}

fn word(state: State) -> &'static str {
    match state {
        State::Works => "works",
        State::Limited => "limited",
        State::Missing => "missing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_to_its_longest_name() {
        let findings = [
            Finding::new("XDP", State::Works, "loads", ""),
            Finding::new("tp_btf/sched_process_exec", State::Limited, "no BTF\nat all", "get it"),
        ];
        let expected = "\
works    XDP                       loads
limited  tp_btf/sched_process_exec no BTF
                                   at all
                                   → get it
";
        assert_eq!(table(&findings), expected);
    }
}
