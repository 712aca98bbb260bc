//! What works on this machine, and what to do about the rest?

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::capture::kernel::probe::{self, Finding, State};
use crate::dissect;

/// Looks at everything that `flowmeter live` needs.
pub fn examine() -> Vec<Finding> {
    let mut findings = probe::probe();
    findings.push(ndpi());
    findings
}

fn ndpi() -> Finding {
    let advice = "5.0 is the recommended version: it names a fifth more flows than 4.2 does";
    match dissect::version() {
        Some(version) => {
            let major = version.split('.').next().and_then(|n| n.parse::<u32>().ok());
            let state = if major >= Some(5) { State::Works } else { State::Limited };
            Finding::new("nDPI", state, version, advice)
        }
        None => Finding::new(
            "nDPI",
            State::Limited,
            "not built in",
            "without it TLS, DTLS and QUIC are the only applications known; build with the feature `ndpi`",
        ),
    }
}

/// Whether `flowmeter live` works.
pub fn is_well(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.state != State::Missing)
}

/// For people.
pub fn table(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let state = word(finding.state);
        // Writing to a string does not fail.
        let _ = writeln!(text, "{state:8} {:16} {}", finding.what, finding.found);
        if !finding.advice.is_empty() {
            let _ = writeln!(text, "{:25} → {}", "", finding.advice);
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
