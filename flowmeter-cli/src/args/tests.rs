use std::path::PathBuf;

use clap::CommandFactory as _;
use flowmeter_common::knobs::Knobs;
use flowmeter_common::packet::Layer;

use super::*;
use flowmeter::capture::kernel::{Direction, Ingress};
use flowmeter::collector::pcap::Reading;
use flowmeter::format::Kind;
use flowmeter::output::Destination;

fn plan(args: &str) -> Result<LivePlan, String> {
    let args = ["flowmeter", "live"].into_iter().chain(args.split(' '));
    match parse(args) {
        Ok(Command::Live(plan)) => Ok(*plan),
        Ok(_) => panic!("another command"),
        Err(exit) => {
            assert_eq!(exit.code, 2);
            assert_eq!(exit.text.lines().count(), 1, "{}", exit.text);
            Err(exit.text)
        }
    }
}

fn good(args: &str) -> LivePlan {
    plan(args).unwrap_or_else(|e| panic!("{e}"))
}

fn bad(args: &str) -> String {
    plan(args).err().unwrap_or_else(|| panic!("`{args}` passed"))
}

#[test]
fn definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn defaults_are_nfstreams_but_for_the_processes() {
    let plan = good("eth0");
    assert_eq!(plan.options.interfaces, ["eth0"]);
    assert_eq!(plan.options.knobs, Knobs::default());
    assert_eq!(plan.options.max_flows, 131_072);
    // More than NFStream's 1536.
    assert_eq!(plan.options.snapshot_length, 4_096);
    assert_eq!((plan.options.ingress, plan.options.direction), (Ingress::Auto, Direction::Both));
    assert!(plan.options.promiscuous && !plan.options.log_bpf);
    assert_eq!(plan.options.max_nflows, None);
    assert!(plan.options.visibility.is_some() && plan.needs().processes);
    let without = good("eth0 --system-visibility-mode 0");
    assert!(without.options.visibility.is_none() && !without.needs().processes);
    assert!(plan.log.schema.options().visibility && !without.log.schema.options().visibility);
    assert_eq!((plan.performance_report, plan.options.records), (None, None));
    assert_eq!(plan.log.output.destination, Destination::Stdout);
    assert_eq!(plan.log.format, Kind::Json);
}

#[test]
fn every_option_arrives() {
    let plan = good(
        "eth0 eth1 --idle-timeout 0 --active-timeout 2.5 --accounting-mode 3 --n-dissections 0 \
         --statistical-analysis --splt-analysis 255 --no-decode-tunnels --snapshot-length 64 \
         --no-promiscuous-mode --max-nflows 7 --performance-report 1 --meter-records 2 \
         --system-visibility-poll-ms 50 --max-flows 1000 \
         --ingress tcx --direction ingress -o a/b.log --log-bpf --time-unit us"
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .as_str(),
    );
    let knobs = Knobs {
        idle_ns: 0,
        active_ns: 2_500_000_000,
        accounting: Layer::Payload,
        tick_ns: 1_000,
        splt: 255,
        n_dissections: 0,
        statistics: true,
        decode_tunnels: false,
    };
    assert_eq!(plan.options.knobs, knobs);
    assert_eq!((plan.options.max_flows, plan.options.snapshot_length), (1_000, 64));
    assert_eq!((plan.options.ingress, plan.options.direction), (Ingress::Tcx, Direction::Ingress));
    assert!(!plan.options.promiscuous && plan.options.log_bpf);
    assert_eq!(plan.options.max_nflows, Some(7));
    assert_eq!(plan.options.visibility.map(|d| d.as_millis()), Some(50));
    assert_eq!(plan.performance_report.map(|d| d.as_secs()), Some(1));
    assert_eq!(plan.options.records.map(|d| d.as_secs()), Some(2));
    let path = PathBuf::from("a/b.log");
    assert_eq!(plan.log.output.destination, Destination::File(path));
    let options = plan.log.schema.options();
    assert!(options.statistics && options.visibility && !options.dissection && !options.tunnels);
}

#[test]
fn the_last_of_a_pair_counts() {
    assert!(!good("e --decode-tunnels --no-decode-tunnels").options.knobs.decode_tunnels);
    assert!(good("e --no-decode-tunnels --decode-tunnels").options.knobs.decode_tunnels);
    assert!(good("e --no-promiscuous-mode --promiscuous-mode").options.promiscuous);
}

#[test]
fn csv_by_name_or_by_word() {
    assert_eq!(good("e -o x.csv").log.format, Kind::Csv);
    assert_eq!(good("e -o x.csv --format json").log.format, Kind::Json);
    let rotated = good("e -o x.csv --flows-per-file 10 --rotate-files 3").log.output;
    assert_eq!(rotated.flows_per_file.map(u64::from), Some(10));
    assert_eq!(rotated.rotate_files.map(u64::from), Some(3));
}

#[test]
fn columns_are_selected_and_ordered() {
    let plan = good("e --columns dst_ip,id --columns-to-anonymize src_ip,dst_ip");
    let names: Vec<_> = plan.log.schema.names().collect();
    assert_eq!(names, ["dst_ip", "id"]);
}

#[test]
fn bad_values_are_told_in_a_line() {
    for (args, says) in [
        ("e --idle-timeout -1", "'--idle-timeout <SECS>': it must be 0 or more seconds"),
        ("e --active-timeout ever", "it must be a number of seconds, such as 120 or 0.5"),
        ("e --active-timeout 1e11", "it must be at most 18446744073 seconds"),
        ("e --active-timeout nan", "it must be a number"),
        ("e --accounting-mode 4", "[possible values: 0, 1, 2, 3]"),
        ("e --n-dissections 256", "256 is not in 0..=255"),
        ("e --splt-analysis 256", "'256': --splt-analysis and --max-sequence are at most 255 live"),
        ("e --splt-analysis -1", "-1 is not in 0..=65535"),
        ("e --snapshot-length 63", "63 is not in 64..=65535"),
        ("e --max-flows 0", "0 is not in 1..=16777216"),
        ("e --system-visibility-mode 2", "[possible values: 0, 1]"),
        ("e --system-visibility-poll-ms 0", "0 is not in 1..=3600000"),
        ("e --ingress ebpf", "[possible values: auto, xdp, tcx]"),
        ("e --time-unit s", "[possible values: ms, us, ns]"),
        ("e --idle-timeot 3", "a similar argument exists: '--idle-timeout'"),
        ("--log-bpf", "required arguments were not provided: <IFACE>..."),
        ("e e", "interface `e` is named twice"),
        ("e --columns src_up", "no column is named `src_up`"),
        ("e --columns splt_ps", "it is present with --splt-analysis"),
        ("e --columns id,id", "column `id` is named twice"),
        ("e --columns-to-anonymize src_up", "no column is named `src_up`"),
        ("e --columns-to-anonymize id --anonymize-key-file /none", "cannot use `/none`: No such"),
        ("e --flows-per-file 5", "--flows-per-file needs files"),
        ("e -o f --rotate-files 5", "--rotate-files needs --flows-per-file"),
        ("e -o f.csv --meter-records 5", "--meter-records needs --format json"),
    ] {
        let text = bad(args);
        assert!(text.starts_with("error: ") && text.contains(says), "{args}: {text}");
    }
}

#[test]
fn help_is_no_error() {
    let exit = parse(["flowmeter", "live", "--help"]).err();
    let exit = exit.unwrap_or_else(|| panic!("help is not a command"));
    assert_eq!(exit.code, 0);
    assert!(exit.text.contains("--idle-timeout <SECS>"), "{}", exit.text);
}

#[test]
fn listings() {
    let format = |args: &[&str]| match parse(args) {
        Ok(Command::Fields(format) | Command::Doctor(format)) => Some(format),
        _ => None,
    };
    assert_eq!(format(&["flowmeter", "fields"]), Some(Listing::Table));
    assert_eq!(format(&["flowmeter", "doctor", "--format", "json"]), Some(Listing::Json));
    assert_eq!(format(&["flowmeter", "fields", "--format", "xml"]), None);
}

fn read_plan(args: &str) -> Result<ReadPlan, String> {
    let args = ["flowmeter", "read"].into_iter().chain(args.split(' '));
    match parse(args) {
        Ok(Command::Read(plan)) => Ok(*plan),
        Ok(_) => panic!("another command"),
        Err(exit) => Err(exit.text),
    }
}

fn good_read(args: &str) -> ReadPlan {
    read_plan(args).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn captures_have_options_of_their_own() {
    let plan = good_read("a.pcap b.pcap --n-meters 3 --bpf-filter tcp --splt-analysis 65535");
    assert_eq!(plan.options.files, [PathBuf::from("a.pcap"), PathBuf::from("b.pcap")]);
    assert_eq!((plan.options.n_meters, plan.options.reading), (3, Reading::Right));
    assert_eq!(plan.options.bpf_filter.as_deref(), Some("tcp"));
    assert_eq!(plan.options.knobs.splt, 65_535);
    for (args, says) in [
        ("", "a value is required for '<FILE>...'"),
        ("a --bpf-filter tcp/", "'--bpf-filter <EXPRESSION>': "),
        ("a --n-meters -1", "-1 is not in 0..=65535"),
        ("a --max-sequence 0", "0 is not in 1..=16777216"),
        ("a --compat nfstreamer", "[possible values: nfstream, flowcontainer]"),
    ] {
        let text = read_plan(args).err().unwrap_or_else(|| panic!("`{args}` passed"));
        assert!(text.starts_with("error: ") && text.contains(says), "{args}: {text}");
    }
}

#[test]
fn the_csv_of_a_capture_stands_beside_it() {
    let destination = |args| good_read(args).log.output.destination;
    let beside = Destination::File("d.csv/a.pcap.csv".into());
    assert_eq!(destination("d.csv/a.pcap --format csv"), beside);
    assert_eq!(destination("a.pcap --format csv -o -"), Destination::Stdout);
    assert_eq!(destination("- --format csv"), Destination::Stdout);
    assert_eq!(destination("a.pcap"), Destination::Stdout);
}

#[test]
fn figures_go_where_they_are_wanted_and_not_into_the_log() {
    let plan = good("e --metrics-listen [::1]:9812 --metrics-file a.prom -o a.log");
    assert_eq!(plan.metrics.listen.map(|address| address.port()), Some(9812));
    assert_eq!(plan.metrics.file, Some("a.prom".into()));
    // The connections that may be open at once.
    assert!(plan.descriptors() > good("e").descriptors());
    assert!(bad("e --metrics-file a.log -o a.log").contains("`a.log` is where the flows go"));
    assert!(bad("e --metrics-listen 9812").contains("--metrics-listen"));
}

#[test]
fn flowcontainer_has_sequences_and_no_timeouts() {
    let plan = good_read("a --compat flowcontainer --max-sequence 9");
    assert_eq!(
        (plan.options.knobs.splt, plan.options.knobs.idle_ns, plan.options.knobs.active_ns),
        (9, u64::MAX, u64::MAX)
    );
    assert_eq!(plan.log.schema.options().sequences, 9);
    assert_eq!(good("e --sequences").options.knobs.splt, 255);
    assert!(bad("e --sequences --max-sequence 256").contains("at most 255 live"));
}
