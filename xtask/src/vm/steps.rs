//! What is run in a virtual machine?

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::run::target_dir;
use crate::{ebpf, root};

/// The step that asks `flowmeter doctor`.
pub const DOCTOR: &str = "doctor";
/// The step that loads every program.
pub const VERIFY: &str = "verify";

/// The test programs, and those of their tests that are run: a few minutes of an emulated machine
/// for all that can depend on the kernel.
const TESTS: [(&str, &[&str]); 6] = [
    (
        "parity",
        &[
            "verdicts::verdicts_agree_on_generated_packets",
            "records::records_agree",
            "offload::super_packets_are_accounted_as_their_segments",
            "balance::nothing_is_lost_silently",
            "balance::a_stalled_reader_is_counted",
            "reaper::the_reaper_waits_for_room",
            "sockets::a_flow_has_no_sockets_but_its_packets_own",
            "clock::a_step_cuts_no_flow_and_the_next_one_has_it",
        ],
    ),
    (
        "live",
        &[
            "xdp_and_tcx_agree_with_the_other_end",
            "tcx_and_tcx_agree_with_the_other_end",
            "tagged_frames_have_their_vlans",
            "a_silent_flow_is_written_soon_after_its_timeout",
            "the_active_timeout_cuts_at_the_packet_that_reaches_it",
            "ten_thousand_resident_flows_are_written_at_the_end",
            "nothing_stays_attached",
            "each_flow_has_its_interface_and_the_loopback_counts_once",
            "one_direction_alone_can_be_metered",
            "names_applications_and_processes",
        ],
    ),
    (
        "attribution",
        &[
            "a_process_that_becomes_another_program_has_each_at_its_time",
            "a_socket_belongs_to_whom_it_was_handed",
            "both_ends_of_the_loopback_are_known",
            "raw_sockets_have_processes",
            "containers::containers_are_known_by_their_cgroups",
            "namespaces::sockets_stay_where_they_were_made",
            "fragments::fragments_that_are_passed_on_do_not_make_others_so",
            "shared::who_only_peeks_does_not_serve",
            "hands::on_the_host",
            "hands::all_ways_of_mptcp_are_of_who_has_its_socket",
        ],
    ),
    (
        "chain",
        &[
            "whoever_was_first_in_tcx_is_not_any_more",
            "who_comes_later_comes_behind",
            "filters_of_the_first_priority_come_behind_too",
            "by_clsact_it_comes_first_too",
            "a_hook_that_others_blind_is_reported",
            "packets_that_others_drop_behind_the_hook_are_reported",
        ],
    ),
    ("plugins", &["live_each_packet_is_seen_once_and_in_order", "live_a_plugin_ends_a_flow_soon"]),
    (
        "clock",
        &[
            "a_meter_in_a_time_namespace_has_the_right_time",
            "a_clock_that_is_set_cuts_no_flow_and_dates_the_next",
        ],
    ),
];

/// How many times longer the tests wait in an emulated machine.
const PATIENCE: u32 = 10;

/// Lists the machine's processes when it is asked to: a line on its second serial port does.
const WATCH: &str = include_str!("watch.sh");

/// A step of the job.
pub struct Step {
    /// What it is called in the report.
    pub name: &'static str,
    /// How many tests are chosen, if it is a test program.
    pub tests: Option<usize>,
    command: Vec<String>,
}

impl Step {
    /// A step that runs `command`.
    pub fn new(name: &'static str, tests: Option<usize>, command: Vec<String>) -> Self {
        Self { name, tests, command }
    }
}

/// The steps, with what has been built: the programs, and the tests, which are built here if they
/// are not. Of the tests, those in whose name is `only`, as in `live::nothing_stays_attached`.
pub fn plan(update: bool, only: &str) -> Result<Vec<Step>> {
    let built = |name: &str| target_dir().join("debug").join(name).display().to_string();
    let doctor = vec![built("flowmeter"), "doctor".into(), "--format=json".into()];
    let mut verify = vec![built("xtask"), "verify".into()];
    if update {
        verify.push("--update".into());
    }
    let mut steps = vec![Step::new(DOCTOR, None, doctor), Step::new(VERIFY, None, verify)];
    let programs = test_programs()?;
    for (name, chosen) in TESTS {
        let is_wanted = |test: &&&str| format!("{name}::{test}").contains(only);
        let chosen: Vec<&str> = chosen.iter().filter(is_wanted).copied().collect();
        if chosen.is_empty() {
            continue;
        }
        let program = programs.iter().find(|(target, _)| target == name);
        let (_, program) = program.with_context(|| format!("there is no test program `{name}`"))?;
        let mut command = vec![program.display().to_string()];
        command.extend(["--exact", "--show-output", "--color=never"].map(str::to_owned));
        command.extend(chosen.iter().map(|test| (*test).to_owned()));
        steps.push(Step::new(name, Some(chosen.len()), command));
    }
    ensure!(
        steps.iter().any(|step| step.tests.is_some()),
        "no test of the list has `{only}` in its name"
    );
    Ok(steps)
}

/// Builds the workspace and its tests, and gives the test programs by their names.
fn test_programs() -> Result<Vec<(String, PathBuf)>> {
    let cargo = |args: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(args).current_dir(root()).env("FLOWMETER_BPF_OBJECT", ebpf::object());
        command
    };
    crate::command::run(&mut cargo(&["build", "--workspace", "--quiet"]))?;
    // With what all of the workspace wants of a crate, as all tests are built.
    let mut tests = cargo(&["test", "--workspace", "--no-run", "--quiet", "--message-format=json"]);
    tests.args(TESTS.iter().flat_map(|(name, _)| ["--test", name]));
    let output = tests.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("the tests do not build");
    }
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

/// The test programs that cargo says it has built, by the names of their targets.
fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_test = message["target"]["kind"][0] == "test";
        let name = message["target"]["name"].as_str().filter(|_| is_test)?;
        Some((name.to_owned(), message["executable"].as_str()?.into()))
    };
    messages.lines().filter_map(executable).collect()
}

/// The script that runs the steps, marking its own lines, as [`Report`](super::results::Report)
/// reads them. It runs as the machine's first process and does not end: the machine is ended when
/// it is done.
///
/// An emulated machine can starve a process for seconds. So a test program that fails is run once
/// more, for all to see; what fails twice has failed.
pub fn script(steps: &[Step], mark: &str) -> String {
    let mut lines = vec![
        "exec </dev/null >/dev/ttyS1 2>&1".to_owned(),
        WATCH.into(),
        "export PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin HOME=/root LC_ALL=C".into(),
        "export TMPDIR=/run/vm/tmp FLOWMETER_REQUIRE_ROOT=1 FLOWMETER_MAY_SET_CLOCK=1".into(),
        format!("export FLOWMETER_PATIENCE={PATIENCE}"),
        format!("export FLOWMETER_BPF_OBJECT={}", quoted(&ebpf::object())),
        format!("cd {}", quoted(&root().join("tests"))),
        format!("say() {{ printf '\\n@{mark} %s\\n' \"$*\"; }}"),
        "say kernel \"$(uname -r)\"".into(),
    ];
    for Step { name, tests, command } in steps {
        let command: Vec<_> = command.iter().map(|word| quoted(Path::new(word))).collect();
        let once =
            format!("say begin {name}\n{}\ncode=$?\nsay end {name} $code", command.join(" "));
        lines.push(once.clone());
        if tests.is_some() {
            lines.push(format!("if [ $code -ne 0 ]; then\necho 'once more: {name}'\n{once}\nfi"));
        }
    }
    lines.push("say done".into());
    lines.push("while :; do sleep 60; done".into());
    lines.join("\n") + "\n"
}

/// A word that a shell takes as it is.
fn quoted(word: &Path) -> String {
    format!("'{}'", word.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Step, executables, quoted, script};

    #[test]
    fn test_programs_are_where_cargo_says() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"live"},"executable":"/t/lib"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"live"},"executable":"/t/live-1"}
{"reason":"build-finished","success":true}
not JSON"#;
        assert_eq!(executables(messages), [("live".to_owned(), PathBuf::from("/t/live-1"))]);
    }

    #[test]
    fn the_script_marks_each_step() {
        let command = vec!["/a b".to_owned(), "c".to_owned()];
        let script = script(&[Step::new("one", None, command)], "77");
        let once = "say begin one\n'/a b' 'c'\ncode=$?\nsay end one $code\n";
        assert!(script.contains(once), "{script}");
        assert!(!script.contains("once more"), "{script}");
        assert!(script.contains("@77 "), "{script}");
        assert_eq!(script.lines().filter(|line| line.ends_with('&')).count(), 1, "{script}");
        let watch = script.find("\nwatch </dev/ttyS1 &\n").expect("a job that is watched");
        assert!(watch < script.find("say begin").expect("a job with a step"), "{script}");
        assert_eq!(quoted(Path::new("it's")), r"'it'\''s'");
    }
}
