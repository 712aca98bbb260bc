//! Which columns are there?
//!
//! [`COLUMNS`] is the declaration: name, type, unit, meaning and where the value comes from. First
//! `NFStream`'s, in its order of emission, then ours.

use flowmeter_common::knobs::MILLISECOND;
use flowmeter_common::owner::Ids;
use flowmeter_common::packet::{Layer, protocol};
use flowmeter_common::record::{Direction, mark};
use flowmeter_common::tunnel;

use super::sequence::{Measure, Packets, Sequence};
use super::value::{List, Part, Value};
use super::{Options, Row};
use crate::attribution::{Owner, Peer, Profile, Shared};
use crate::dissect::{Details, Fingerprints, Layer7};
use crate::flow::Side::{Both, Dst2Src, Src2Dst};
use crate::flow::{Moments, end_reason, expiration_id};

/// A column.
pub struct Column {
    /// Its name in every output.
    pub name: &'static str,
    /// The columns it comes and goes with.
    pub group: Group,
    /// The type of its values.
    pub kind: Kind,
    /// The unit of its values; empty without.
    pub unit: &'static str,
    /// What it says.
    pub doc: &'static str,
    /// Its value in a flow.
    pub get: for<'a> fn(&Row<'a>) -> Value<'a>,
}

/// Columns that come and go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// `NFStream`'s core.
    Core,
    /// `NFStream`'s tunnel number.
    Tunnel,
    /// `NFStream`'s statistics.
    Statistics,
    /// `NFStream`'s first packets: directions, sizes, times.
    Splt,
    /// `NFStream`'s layer 7.
    Layer7,
    /// flowcontainer's sequences.
    Sequences,
    /// `NFStream`'s process.
    Process,
    /// Where and why the record was made.
    Record,
    /// Times in ns.
    Times,
    /// Bytes on all layers at once.
    Layers,
    /// From the transport headers.
    Headers,
    /// Fingerprints under names of their own, and what else is in a `ClientHello`.
    Fingerprints,
    /// What else is known of layer 7.
    L7Extended,
    /// The processes at both ends.
    Owners,
    /// How the record falls short.
    Marks,
}

/// The type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A count or a code.
    Unsigned,
    /// A number that may be negative.
    Signed,
    /// A number with a fraction.
    Float,
    /// A time: a count with `--time-unit ms`, else a number with a fraction.
    Time,
    /// Yes or no.
    Bool,
    /// A text.
    Text,
    /// The same, in which secrets are redacted.
    Url,
    /// A list of [`Kind::Signed`].
    List,
    /// A list of [`Kind::Time`].
    TimeList,
    /// A list of [`Kind::Float`].
    FloatList,
    /// A list of [`Kind::Text`].
    TextList,
}

impl Group {
    /// Whether its columns are there.
    pub fn is_in(self, options: &Options) -> bool {
        match self {
            Self::Core => true,
            Self::Tunnel => options.tunnels,
            Self::Statistics => options.statistics,
            Self::Splt => options.splt > 0,
            Self::Layer7 => options.dissection,
            Self::Sequences => options.sequences > 0,
            Self::Process => options.visibility,
            Self::Fingerprints => options.extras && options.dissection,
            Self::L7Extended => options.dissection && options.details,
            Self::Owners => options.extras && options.visibility,
            Self::Record | Self::Times | Self::Layers | Self::Headers | Self::Marks => {
                options.extras
            }
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Tunnel => "tunnel",
            Self::Statistics => "statistics",
            Self::Splt => "splt",
            Self::Layer7 => "layer7",
            Self::Sequences => "sequences",
            Self::Process => "process",
            Self::Record => "record",
            Self::Times => "times",
            Self::Layers => "layers",
            Self::Headers => "headers",
            Self::Fingerprints => "fingerprints",
            Self::L7Extended => "l7-extended",
            Self::Owners => "owners",
            Self::Marks => "marks",
        }
    }

    /// When its columns are there.
    pub fn condition(self) -> &'static str {
        match self {
            Self::Core => "always",
            Self::Tunnel => "with --decode-tunnels (the default)",
            Self::Statistics => "with --statistical-analysis",
            Self::Splt => "with --splt-analysis",
            Self::Layer7 => "unless --n-dissections is 0",
            Self::Fingerprints => "unless --n-dissections is 0; not in NFStream",
            Self::L7Extended => "with --group l7-extended; not in NFStream",
            Self::Sequences => "with --sequences",
            Self::Process | Self::Owners => "live, unless --system-visibility-mode is 0",
            Self::Record | Self::Times | Self::Layers | Self::Headers | Self::Marks => {
                "always; not in NFStream"
            }
        }
    }
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Signed => "integer",
            Self::Float => "float",
            Self::Time => "unsigned or float",
            Self::Bool => "boolean",
            Self::Text | Self::Url => "text",
            Self::List => "list of integers",
            Self::TimeList => "list of integers or floats",
            Self::FloatList => "list of floats",
            Self::TextList => "list of texts",
        }
    }
}

/// All columns, in order.
pub fn all() -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().copied().flatten()
}

macro_rules! column {
    ($name:expr, $group:ident, $kind:ident, $unit:expr, $doc:expr, $get:expr) => {
        Column {
            name: $name,
            group: Group::$group,
            kind: Kind::$kind,
            unit: $unit,
            doc: $doc,
            get: $get,
        }
    };
}

/// The core columns of a side.
macro_rules! seen {
    ($side:literal, $which:ident, $whose:literal) => {
        &[
            column!(
                concat!($side, "_first_seen_ms"),
                Core,
                Unsigned,
                "ms",
                concat!(
                    "Time of the first packet ",
                    $whose,
                    " since the epoch; 0 if there is none."
                ),
                |r| Value::U64(r.side($which).first_ns / MILLISECOND)
            ),
            column!(
                concat!($side, "_last_seen_ms"),
                Core,
                Unsigned,
                "ms",
                concat!(
                    "Time of the last packet ",
                    $whose,
                    " since the epoch; 0 if there is none."
                ),
                |r| Value::U64(r.side($which).last_ns / MILLISECOND)
            ),
            column!(
                concat!($side, "_duration_ms"),
                Core,
                Unsigned,
                "ms",
                concat!(
                    "From the first to the last packet ",
                    $whose,
                    ": the difference of the two times in ms."
                ),
                |r| {
                    let t = r.side($which);
                    Value::U64((t.last_ns / MILLISECOND).saturating_sub(t.first_ns / MILLISECOND))
                }
            ),
            column!(
                concat!($side, "_packets"),
                Core,
                Unsigned,
                "packets",
                concat!("Packets ", $whose, "."),
                |r| Value::U64(r.side($which).packets)
            ),
            column!(
                concat!($side, "_bytes"),
                Core,
                Unsigned,
                "bytes",
                concat!("Bytes of the packets ", $whose, ", by --accounting-mode."),
                |r| Value::U64(r.side($which).bytes[r.options.accounting as usize])
            ),
        ]
    };
}

/// The packet sizes of a side.
macro_rules! sizes {
    ($side:literal, $which:ident, $whose:literal) => {
        &[
            column!(
                concat!($side, "_min_ps"),
                Statistics,
                Unsigned,
                "bytes",
                concat!("Smallest packet ", $whose, ", by --accounting-mode; 0 if there is none."),
                |r| Value::U64(r.side($which).sizes.min)
            ),
            column!(
                concat!($side, "_mean_ps"),
                Statistics,
                Float,
                "bytes",
                concat!("Mean size of the packets ", $whose, "; 0 if there is none."),
                |r| Value::F64(r.side($which).sizes.mean())
            ),
            column!(
                concat!($side, "_stddev_ps"),
                Statistics,
                Float,
                "bytes",
                concat!(
                    "Sample standard deviation of the sizes of the packets ",
                    $whose,
                    "; 0 for fewer than two."
                ),
                |r| Value::F64(r.side($which).sizes.stddev())
            ),
            column!(
                concat!($side, "_max_ps"),
                Statistics,
                Unsigned,
                "bytes",
                concat!("Largest packet ", $whose, ", by --accounting-mode; 0 if there is none."),
                |r| Value::U64(r.side($which).sizes.max)
            ),
        ]
    };
}

/// The inter-arrival times of a side.
macro_rules! piats {
    ($side:literal, $which:ident, $whose:literal) => {
        &[
            column!(
                concat!($side, "_min_piat_ms"),
                Statistics,
                Time,
                "ms",
                concat!(
                    "Shortest time between successive packets ",
                    $whose,
                    "; 0 for fewer than two."
                ),
                |r| r.options.unit.value(r.side($which).piats.min)
            ),
            column!(
                concat!($side, "_mean_piat_ms"),
                Statistics,
                Float,
                "ms",
                concat!("Mean time between successive packets ", $whose, "; 0 for fewer than two."),
                |r| ms(r, &r.side($which).piats, Moments::mean)
            ),
            column!(
                concat!($side, "_stddev_piat_ms"),
                Statistics,
                Float,
                "ms",
                concat!(
                    "Sample standard deviation of the times between successive packets ",
                    $whose,
                    "; 0 for fewer than three packets."
                ),
                |r| ms(r, &r.side($which).piats, Moments::stddev)
            ),
            column!(
                concat!($side, "_max_piat_ms"),
                Statistics,
                Time,
                "ms",
                concat!(
                    "Longest time between successive packets ",
                    $whose,
                    "; 0 for fewer than two."
                ),
                |r| r.options.unit.value(r.side($which).piats.max)
            ),
        ]
    };
}

/// The TCP flags of a side, in `NFStream`'s order; the number is the flag's bit.
macro_rules! flags {
    ($side:literal, $which:ident, $whose:literal) => {
        flags!($side, $which, $whose, "syn" 1, "cwr" 7, "ece" 6, "urg" 5, "ack" 4, "psh" 3, "rst" 2, "fin" 0)
    };
    ($side:literal, $which:ident, $whose:literal, $($flag:literal $bit:literal),*) => {
        &[$(column!(
            concat!($side, "_", $flag, "_packets"), Statistics, Unsigned, "packets",
            concat!("Packets ", $whose, " with TCP flag ", $flag, "."),
            |r| Value::U64(r.side($which).flags[$bit])
        )),*]
    };
}

macro_rules! times {
    ($side:literal, $which:ident, $whose:literal) => {
        &[
            column!(
                concat!($side, "_first_seen_ns"),
                Times,
                Unsigned,
                "ns",
                concat!(
                    "Time of the first packet ",
                    $whose,
                    " since the epoch; 0 if there is none."
                ),
                |r| Value::U64(r.side($which).first_ns)
            ),
            column!(
                concat!($side, "_last_seen_ns"),
                Times,
                Unsigned,
                "ns",
                concat!(
                    "Time of the last packet ",
                    $whose,
                    " since the epoch; 0 if there is none."
                ),
                |r| Value::U64(r.side($which).last_ns)
            ),
        ]
    };
}

macro_rules! layers {
    ($side:literal, $which:ident, $whose:literal) => {
        &[
            column!(
                concat!($side, "_link_bytes"),
                Layers,
                Unsigned,
                "bytes",
                concat!("Bytes of the frames ", $whose, ", including tunnel headers."),
                |r| Value::U64(r.side($which).bytes[Layer::Link as usize])
            ),
            column!(
                concat!($side, "_ip_bytes"),
                Layers,
                Unsigned,
                "bytes",
                concat!("Bytes of the (innermost) IP packets ", $whose, "."),
                |r| Value::U64(r.side($which).bytes[Layer::Ip as usize])
            ),
            column!(
                concat!($side, "_transport_bytes"),
                Layers,
                Unsigned,
                "bytes",
                concat!("Bytes of the packets ", $whose, ", from the transport header on."),
                |r| Value::U64(r.side($which).bytes[Layer::Transport as usize])
            ),
            column!(
                concat!($side, "_payload_bytes"),
                Layers,
                Unsigned,
                "bytes",
                concat!("Bytes of the packets ", $whose, ", after the transport header."),
                |r| Value::U64(r.side($which).bytes[Layer::Payload as usize])
            ),
        ]
    };
}

/// The header columns of a direction; 0 is the initiator's.
macro_rules! headers {
    ($side:literal, $index:literal, $whose:literal) => {
        &[
            column!(
                concat!($side, "_tcp_flags"),
                Headers,
                Unsigned,
                "",
                concat!(
                    "All TCP flags of the packets ",
                    $whose,
                    ", OR'd together; FIN is 1, CWR 128. Null unless TCP."
                ),
                |r| match r.flow.record.key.protocol {
                    protocol::TCP =>
                        Value::U64(u64::from(r.flow.record.directions[$index].tcp_flags)),
                    _ => Value::Null,
                }
            ),
            column!(
                concat!($side, "_icmp_type"),
                Headers,
                Unsigned,
                "",
                concat!(
                    "Type of the first ICMP or ICMPv6 packet ",
                    $whose,
                    ". Null if there is none."
                ),
                |r| icmp(r, &r.flow.record.directions[$index], |d| d.icmp_type)
            ),
            column!(
                concat!($side, "_icmp_code"),
                Headers,
                Unsigned,
                "",
                concat!(
                    "Code of the first ICMP or ICMPv6 packet ",
                    $whose,
                    ". Null if there is none."
                ),
                |r| icmp(r, &r.flow.record.directions[$index], |d| d.icmp_code)
            ),
        ]
    };
}

macro_rules! owner {
    ($side:ident, $whose:literal) => {
        &[
            column!(
                concat!(stringify!($side), "_process_pid"),
                Owners,
                Unsigned,
                "",
                concat!(
                    "Process at ",
                    $whose,
                    "'s end, by its number in the `/proc` that the meter sees. Null if unknown, \
                     not on this host, or outside the pid namespace of that `/proc`."
                ),
                |r| number(r.flow.owners.$side.as_ref().map(|o| o.pid).filter(|pid| *pid != 0))
            ),
            column!(
                concat!(stringify!($side), "_process_name"),
                Owners,
                Text,
                "",
                concat!(
                    "Name of the process at ",
                    $whose,
                    "'s end; in full if the kernel cut it at 15 bytes and the first argument begins with those. Null if unknown or not on this host."
                ),
                |r| r.flow.owners.$side.as_ref().map_or(Value::Null, |o| Value::Str(&o.name))
            ),
        ]
    };
}

/// What is known of the other end of the flow's interface.
macro_rules! peer {
    ($name:literal, $kind:ident, $what:literal, $value:expr) => {
        column!(
            $name,
            Owners,
            $kind,
            "",
            concat!(
                "If the flow's interface is one end of a pair (veth) whose other end is in another \
                 network namespace: ",
                $what,
                ". Null otherwise, and if no process is in it."
            ),
            |r| {
                let value: fn(&Peer) -> Value<'_> = $value;
                r.flow.peer.as_deref().map_or(Value::Null, value)
            }
        )
    };
}

/// What is known of a process, under a prefix: of the one at the local end without, of those at the
/// ends with theirs.
macro_rules! process {
    ($prefix:literal, $which:ident, $whose:literal) => {
        &[
            process!(@ $prefix, "process_exe", $which, Text, "", "path of its executable, with links resolved, even after the file is gone", $whose, |_, p| text(p.executable.path.as_deref())),
            process!(@ $prefix, "process_exe_view", $which, Text, "", "where that path leads to the executable: host, in the meter's mount namespace; process, only in the process's own, as in a container; asked, the path as the process gave it, possibly relative or a link, if the process was gone too soon to look", $whose, |_, p| p.executable.view.map_or(Value::Null, |view| Value::Str(view.as_str()))),
            process!(@ $prefix, "process_exe_deleted", $which, Bool, "", "true if that path had been deleted, or led to another file, when it was looked at", $whose, |_, p| p.executable.is_deleted.map_or(Value::Null, Value::Bool)),
            process!(@ $prefix, "process_exe_memory", $which, Bool, "", "true if its executable only ever existed in memory (memfd_create)", $whose, |_, p| p.executable.is_memory.map_or(Value::Null, Value::Bool)),
            process!(@ $prefix, "process_exe_inode", $which, Unsigned, "", "inode of its executable", $whose, |_, p| p.executable.file.map_or(Value::Null, |file| Value::U64(file.inode))),
            process!(@ $prefix, "process_exe_device", $which, Text, "", "device of its executable, MAJOR:MINOR", $whose, |_, p| p.executable.file.map_or(Value::Null, |file| Value::Device(file.major_minor()))),
            process!(@ $prefix, "process_sha256", $which, Text, "", "SHA-256 of its executable, with --hash-executables, once computed", $whose, |_, p| text(p.sha256())),
            process!(@ $prefix, "process_sha256_missing", $which, Text, "", "why there is no hash: pending, if not computed yet; unreadable, if the executable was gone or changed before its turn; too_large; too_slow; user_budget, if its user's other executables used up that user's time; crowded, if too many were waiting; null with a hash, and without --hash-executables", $whose, |_, p| text(p.sha256_missing())),
            process!(@ $prefix, "process_cmdline", $which, Text, "", "command line, up to --max-cmdline; as it was when its program began, if the kernel reported that; secrets as [redacted] unless --no-redact", $whose, |_, p| text(p.cmdline.as_deref())),
            process!(@ $prefix, "process_args", $which, TextList, "", "arguments, likewise", $whose, |_, p| Value::Texts(&p.args)),
            process!(@ $prefix, "process_args_redacted", $which, Unsigned, "", "number of secrets in its arguments that are not shown", $whose, |_, p| Value::U64(u64::from(p.redacted))),
            process!(@ $prefix, "process_start_ms", $which, Unsigned, "ms", "time of its start since the epoch, to about 10 ms", $whose, |_, p| p.start_ms.map_or(Value::Null, Value::U64)),
            process!(@ $prefix, "process_ppid", $which, Unsigned, "", "parent process", $whose, |_, p| number(p.parent)),
            process!(@ $prefix, "process_parent_name", $which, Text, "", "parent's name", $whose, |_, p| text(p.parent_name.as_deref())),
            process!(@ $prefix, "process_ancestor_pids", $which, List, "", "the processes that it descends from, up to 8: the one that created it, the one that created that, and so on, even if it has another parent by now", $whose, |_, p| Value::Numbers(&p.lineage.pids)),
            process!(@ $prefix, "process_ancestor_names", $which, TextList, "", "their names; empty if unknown", $whose, |_, p| Value::Texts(&p.lineage.names)),
            process!(@ $prefix, "process_ancestor_exes", $which, TextList, "", "their executables' paths; empty if unknown", $whose, |_, p| Value::Texts(&p.lineage.executables)),
            process!(@ $prefix, "process_ancestor_starts_ms", $which, List, "ms", "when they started, since the epoch; 0 if unknown", $whose, |_, p| Value::Numbers(&p.lineage.starts_ms)),
            process!(@ $prefix, "process_uid", $which, Unsigned, "", "effective user when it used its socket", $whose, |o, _| id(o.ids.uid)),
            process!(@ $prefix, "process_user", $which, Text, "", "that user's name in /etc/passwd", $whose, |o, _| text(o.user.as_deref())),
            process!(@ $prefix, "process_ruid", $which, Unsigned, "", "real user: who started it", $whose, |o, _| id(o.ids.real_uid)),
            process!(@ $prefix, "process_gid", $which, Unsigned, "", "effective group", $whose, |o, _| id(o.ids.gid)),
            process!(@ $prefix, "process_rgid", $which, Unsigned, "", "real group", $whose, |o, _| id(o.ids.real_gid)),
            process!(@ $prefix, "process_loginuid", $which, Unsigned, "", "user who logged in, even if the user has changed since; null if nobody did", $whose, |o, _| id(o.ids.login_uid)),
            process!(@ $prefix, "container_id", $which, Text, "", "id of its container, or name of its machine", $whose, |_, p| text(p.place.container.as_deref())),
            process!(@ $prefix, "container_runtime", $which, Text, "", "docker, containerd, cri-o, podman, systemd-nspawn, or kubernetes if the engine is not known", $whose, |_, p| text(p.place.runtime)),
            process!(@ $prefix, "pod_uid", $which, Text, "", "uid of its Kubernetes pod", $whose, |_, p| text(p.place.pod.as_deref())),
            process!(@ $prefix, "systemd_unit", $which, Text, "", "systemd unit", $whose, |_, p| text(p.place.unit.as_deref())),
            process!(@ $prefix, "systemd_slice", $which, Text, "", "innermost systemd slice", $whose, |_, p| text(p.place.slice.as_deref())),
            process!(@ $prefix, "cgroup", $which, Text, "", "path of its cgroup", $whose, |_, p| text(p.cgroup.as_deref())),
        ]
    };
    (@ $prefix:literal, $name:literal, $which:ident, $kind:ident, $unit:literal, $doc:literal, $whose:literal, $get:expr) => {
        column!(
            concat!($prefix, $name),
            Owners,
            $kind,
            $unit,
            concat!("Of the process at ", $whose, ": ", $doc, ". Null if unknown."),
            |r| process(r.flow.$which(), $get)
        )
    };
}

/// A bit of the record's marks.
macro_rules! marked {
    ($name:literal, $bit:expr, $doc:literal) => {
        column!($name, Marks, Bool, "", $doc, |r| Value::Bool(r.flow.record.marks & $bit != 0))
    };
}

/// A text of the dissector.
macro_rules! layer7 {
    ($name:ident, $doc:literal) => {
        column!(stringify!($name), Layer7, Text, "", $doc, |r| layer7(r, |l| Value::Str(&l.$name)))
    };
}

/// A text of the dissector that most flows do not have.
macro_rules! fingerprint {
    ($name:ident, $doc:literal, $get:expr) => {
        column!(stringify!($name), Fingerprints, Text, "", $doc, |r| layer7(r, |l| {
            let get: fn(&Layer7) -> &str = $get;
            match get(l) {
                "" => Value::Null,
                text => Value::Str(text),
            }
        }))
    };
}

/// A text of [`Details`] that most flows do not have.
macro_rules! detail {
    ($name:ident, $doc:literal) => {
        column!(stringify!($name), L7Extended, Text, "", $doc, |r| detail(r, |d| {
            if d.$name.is_empty() { Value::Null } else { Value::Str(&d.$name) }
        }))
    };
}

/// The declaration of all columns, in order of emission.
#[rustfmt::skip]
pub static COLUMNS: &[&[Column]] = &[
    &[
        column!("id", Core, Unsigned, "", "Position of the flow in the order in which flows are written, from 0.",
            |r| Value::U64(r.flow.id)),
        column!("expiration_id", Core, Signed, "", "How the flow ended: 0 idle timeout or end of metering, 1 active timeout, -1 ended by itself.",
            |r| Value::I64(expiration_id(r.flow.reason))),
        column!("src_ip", Core, Text, "", "Address of the initiator, the sender of the first packet.",
            |r| Value::Ip(r.flow.src().ip)),
        column!("src_mac", Core, Text, "", "MAC address of the initiator in the first packet; zeros on links without MAC addresses.",
            |r| Value::Mac(r.flow.src().mac)),
        column!("src_oui", Core, Text, "", "Vendor part of src_mac.",
            |r| oui(r.flow.src().mac)),
        column!("src_port", Core, Unsigned, "", "Port of the initiator; 0 for protocols without ports.",
            |r| Value::U64(u64::from(r.flow.src().port))),
        column!("dst_ip", Core, Text, "", "Address of the responder.",
            |r| Value::Ip(r.flow.dst().ip)),
        column!("dst_mac", Core, Text, "", "MAC address of the responder in the first packet; zeros on links without MAC addresses.",
            |r| Value::Mac(r.flow.dst().mac)),
        column!("dst_oui", Core, Text, "", "Vendor part of dst_mac.",
            |r| oui(r.flow.dst().mac)),
        column!("dst_port", Core, Unsigned, "", "Port of the responder; 0 for protocols without ports.",
            |r| Value::U64(u64::from(r.flow.dst().port))),
        column!("protocol", Core, Unsigned, "", "IP protocol number, after IPv6 extension headers.",
            |r| Value::U64(u64::from(r.flow.record.key.protocol))),
        column!("ip_version", Core, Unsigned, "", "4 or 6.",
            |r| Value::U64(u64::from(r.flow.record.key.ip_version))),
        column!("vlan_id", Core, Unsigned, "", "Innermost VLAN id; 0 if there is none.",
            |r| Value::U64(u64::from(r.flow.record.key.vlan))),
        column!("tunnel_id", Tunnel, Unsigned, "", "The tunnel that was decoded: 0 none, 1 GTP-U, 2 CAPWAP, 3 TZSP, 4 VXLAN, 5 GENEVE, 6 GRE, 7 ERSPAN, 8 Teredo.",
            |r| Value::U64(u64::from(r.flow.record.key.tunnel))),
    ],
    seen!("bidirectional", Both, "of both directions"),
    seen!("src2dst", Src2Dst, "from the initiator"),
    seen!("dst2src", Dst2Src, "from the responder"),
    sizes!("bidirectional", Both, "of both directions"),
    sizes!("src2dst", Src2Dst, "from the initiator"),
    sizes!("dst2src", Dst2Src, "from the responder"),
    piats!("bidirectional", Both, "of both directions"),
    piats!("src2dst", Src2Dst, "from the initiator"),
    piats!("dst2src", Dst2Src, "from the responder"),
    flags!("bidirectional", Both, "of both directions"),
    flags!("src2dst", Src2Dst, "from the initiator"),
    flags!("dst2src", Dst2Src, "from the responder"),
    &[
        column!("splt_direction", Splt, List, "", "Directions of the first packets: 0 from the initiator, 1 from the responder, -1 no packet.",
            |r| list(r, Part::Direction)),
        column!("splt_ps", Splt, List, "bytes", "Sizes of the first packets, by --accounting-mode; -1 no packet.",
            |r| list(r, Part::Size)),
        column!("splt_piat_ms", Splt, TimeList, "ms", "Time from the flow's previous packet to each of the first packets, 0 for the first; -1 no packet.",
            |r| list(r, Part::Piat)),
    ],
    &[
        layer7!(application_name, "Application protocol, as nDPI names it. Layer-7 columns are null if dissection failed."),
        layer7!(application_category_name, "Category of the application."),
        column!("application_is_guessed", Layer7, Unsigned, "", "1 if the application was guessed from addresses and ports alone.",
            |r| layer7(r, |l| Value::U64(u64::from(l.application_is_guessed)))),
        column!("application_confidence", Layer7, Unsigned, "", "How the application was found, in nDPI 5.0's numbers: 0 not at all, 1 by port, 2 by nDPI's filter rules, 3 by partial dissection, 4 and 5 likewise with what was learnt from other flows, 6 by dissection, 7 by address, 8 by aggressive guessing, 9 by a user's rule.",
            |r| layer7(r, |l| Value::U64(u64::from(l.application_confidence)))),
        layer7!(requested_server_name, "Name that the client asked for: TLS or QUIC server name, HTTP host, DNS query."),
        layer7!(client_fingerprint, "Fingerprint of the client: JA4 for TLS, DTLS and QUIC, HASSH for SSH, the list of options for DHCP."),
        layer7!(server_fingerprint, "Fingerprint of the server: JA3S for TLS, HASSH for SSH."),
        layer7!(user_agent, "HTTP or QUIC user agent."),
        layer7!(content_type, "HTTP content type."),
    ],
    &[
        column!("system_process_pid", Process, Signed, "", "Process at the local end, the initiator's if both are local; -1 if unknown, or if it has no number in the pid namespace of the meter's `/proc`.",
            |r| r.flow.local_owner().filter(|o| o.pid != 0).map_or(Value::I64(-1), |o| Value::I64(i64::from(o.pid)))),
        column!("system_process_name", Process, Text, "", "Name of that process; empty if unknown.",
            |r| Value::Str(r.flow.local_owner().map_or("", |o: &Owner| &o.name))),
    ],
    &[
        column!("ip_lengths", Sequences, List, "bytes", "Lengths of the IP packets; negative from the responder.",
            |r| sequence(r, Measure::IpLength, Packets::All)),
        column!("ip_timestamps", Sequences, FloatList, "s", "Times of these packets since the epoch.",
            |r| sequence(r, Measure::Time, Packets::All)),
        column!("payload_lengths", Sequences, List, "bytes", "Lengths of the non-empty payloads of TCP, UDP and ICMP; negative from the responder.",
            |r| sequence(r, Measure::PayloadLength, Packets::WithPayload)),
        column!("payload_timestamps", Sequences, FloatList, "s", "Times of the packets with these payloads since the epoch.",
            |r| sequence(r, Measure::Time, Packets::WithPayload)),
        column!("start_timestamp", Sequences, Float, "s", "Time of the flow's first packet since the epoch.",
            |r| Value::Seconds(span(r).0)),
        column!("end_timestamp", Sequences, Float, "s", "Time of the flow's last packet since the epoch.",
            |r| Value::Seconds(span(r).1)),
        column!("sequences_truncated", Sequences, Bool, "", "True if the flow has more packets than the sequences, which have at most --max-sequence.",
            |r| Value::Bool(r.side(Both).packets > u64::from(r.flow.record.splt_packets.min(r.options.sequences)))),
    ],
    &[
        column!("interface", Record, Text, "", "Interface that the flow was seen on. Null for captures.",
            |r| r.flow.interface.as_deref().map_or(Value::Null, Value::Str)),
        column!("flow_end_reason", Record, Text, "", "Why the record was closed, in RFC 5102's words: idle timeout, active timeout, end of flow detected, forced end, lack of resources.",
            |r| Value::Str(end_reason(r.flow.reason))),
        column!("outer_vlan_id", Record, Unsigned, "", "Outermost VLAN id of frames with several tags; 0 if there is none.",
            |r| Value::U64(u64::from(r.flow.record.key.outer_vlan))),
        column!("tunnel_vni", Record, Unsigned, "", "Network identifier of VXLAN or GENEVE. Null if there is none.",
            |r| match r.flow.record.key.tunnel {
                tunnel::VXLAN | tunnel::GENEVE => Value::U64(u64::from(r.flow.record.key.vni)),
                _ => Value::Null,
            }),
    ],
    times!("bidirectional", Both, "of both directions"),
    times!("src2dst", Src2Dst, "from the initiator"),
    times!("dst2src", Dst2Src, "from the responder"),
    layers!("bidirectional", Both, "of both directions"),
    layers!("src2dst", Src2Dst, "from the initiator"),
    layers!("dst2src", Dst2Src, "from the responder"),
    headers!("src2dst", 0, "from the initiator"),
    headers!("dst2src", 1, "from the responder"),
    &[
        fingerprint!(ja4, "JA4 of the client's hello in TLS, DTLS and QUIC. Null if there is none.",
            |l| &l.ja4),
        fingerprint!(ja3, "JA3 of the client's hello in TLS, DTLS and QUIC. Null if there is none.",
            |l| &l.ja3),
        fingerprint!(ja3s, "JA3S of the server's hello in TLS. Null if there is none.",
            |l| if l.fingerprints == Fingerprints::Tls { &l.server_fingerprint } else { "" }),
        fingerprint!(hassh_client, "HASSH of the client in SSH. Null if there is none.",
            |l| if l.fingerprints == Fingerprints::Ssh { &l.client_fingerprint } else { "" }),
        fingerprint!(hassh_server, "HASSH of the server in SSH. Null if there is none.",
            |l| if l.fingerprints == Fingerprints::Ssh { &l.server_fingerprint } else { "" }),
        fingerprint!(dhcp_fingerprint, "Options that a DHCP client asks for, in the client's order. Null if there is none.",
            |l| if l.fingerprints == Fingerprints::Dhcp { &l.client_fingerprint } else { "" }),
        fingerprint!(alpn, "Application protocols that the client's hello offers, in order of preference, separated by commas. Null if there is none.",
            |l| &l.alpn),
    ],
    &[
        column!("flow_risk", L7Extended, TextList, "", "What is wrong with the flow, in nDPI's names; empty if nothing is.",
            |r| detail(r, |d| Value::Texts(&d.risks))),
        column!("flow_risk_score", L7Extended, Unsigned, "", "nDPI's score of all risks together; 0 if there are none.",
            |r| detail(r, |d| Value::U64(u64::from(d.risk_score)))),
        detail!(tls_version, "Version of TLS, DTLS or QUIC's TLS as nDPI saw it, such as TLSv1.2. Null if there is none."),
        detail!(tls_cipher, "Cipher suite that the server chose, by its IANA name, or its number if nDPI does not know it. Null if there is none."),
        detail!(tls_issuer_cn, "Common name of the issuer of the server's certificate, as far as nDPI read it: up to TLS 1.2 it is sent in the clear. Null if there is none."),
        detail!(tls_subject_cn, "Common name of the subject of the server's certificate, likewise. Null if there is none."),
        detail!(dns_query, "Name in the first question of DNS, mDNS or LLMNR. Null if there is none."),
        detail!(dns_query_type, "Type of that question, such as AAAA, or TYPE and a number (RFC 3597). Null if there is none."),
        detail!(dns_rcode, "Code of the first response, such as NXDOMAIN. Null if there is none."),
        column!("dns_addresses", L7Extended, TextList, "", "IPv4 and IPv6 addresses in the first response, up to 16. Null for anything but DNS.",
            |r| detail(r, |d| if d.dns_rcode.is_empty() { Value::Null } else { Value::Texts(&d.dns_addresses) })),
        detail!(http_method, "Method of the first HTTP/1 request. Null if there is none."),
        column!("http_url", L7Extended, Url, "", "Host and target of that request, such as www.example.org/index.html; a target that includes its host is shown as it is. Secrets as [redacted] with --redact. Null if there is none.",
            |r| detail(r, |d| if d.http_url.is_empty() { Value::Null } else { Value::Str(&d.http_url) })),
        column!("http_status", L7Extended, Unsigned, "", "Status of the first HTTP/1 response. Null if there is none.",
            |r| detail(r, |d| if d.http_status == 0 { Value::Null } else { Value::U64(u64::from(d.http_status)) })),
        detail!(ssh_client_banner, "Identification string of the SSH client (RFC 4253, section 4.2). Null if there is none."),
        detail!(ssh_server_banner, "Identification string of the SSH server. Null if there is none."),
    ],
    &[
        column!("attribution_method", Owners, Text, "", "How the process at the local end was found: socket if the kernel reported its use of the socket, procfs if a poll saw the socket, none if it is not known.",
            |r| Value::Str(r.flow.local_owner().map_or("none", |o| o.method.as_str()))),
        column!("attribution_shared", Owners, Text, "", "If several programs used the socket at the local end during the flow: that the process shown is the first of them, and of how many, as in first of 2. Null if only one did.",
            |r| shared(r).map_or(Value::Null, |shared| Value::Str(&shared.users))),
        column!("attribution_others", Owners, TextList, "", "Pid and name of the others, at most 8. Null if there are none.",
            |r| shared(r).map_or(Value::Null, |shared| Value::Texts(&shared.others))),
        column!("attribution_origin", Owners, Text, "", "What is known about a flow without a process: kernel if the kernel itself answered, forwarded if this host passed on packets of others, unknown otherwise. Null for flows with a process.",
            |r| r.flow.origin().map_or(Value::Null, |origin| Value::Str(origin.as_str()))),
        peer!("peer_netns", Unsigned, "number of that namespace, as `lsns` shows it", |peer| Value::U64(peer.netns)),
        peer!("peer_container_runtime", Text, "engine of the container that the other end belongs to", |peer| text(peer.runtime)),
        peer!("peer_container_id", Text, "id of that container, or name of the machine; null if several share the namespace", |peer| text(peer.container.as_deref())),
        peer!("peer_pod_uid", Text, "uid of the Kubernetes pod that the other end belongs to", |peer| text(peer.pod.as_deref())),
    ],
    process!("", local_owner, "the local end"),
    owner!(src, "the initiator"),
    process!("src_", src_owner, "the initiator's end"),
    owner!(dst, "the responder"),
    process!("dst_", dst_owner, "the responder's end"),
    &[
        marked!("late_expiry", mark::LATE_EXPIRY, "True if a timeout passed while the ring to userspace was full, so that the record went on."),
        marked!("splt_lost", mark::SPLT_LOST, "True if there was no room for the directions, sizes and times of some of the first packets."),
        marked!("dissection_lost", mark::DISSECTION_LOST, "True if packets for the dissector were lost on the way, or the dissector that had the flow died."),
    ],
];

fn oui([a, b, c, ..]: [u8; 6]) -> Value<'static> {
    Value::Oui([a, b, c])
}

/// A mean or deviation of ticks, in ms.
fn ms(r: &Row, piats: &Moments, of: fn(&Moments) -> f64) -> Value<'static> {
    Value::F64(of(piats) / r.options.unit.per_ms())
}

fn list<'a>(r: &Row<'a>, part: Part) -> Value<'a> {
    Value::List(List { slots: &r.flow.splt, length: r.options.splt, part, unit: r.options.unit })
}

/// A sequence. flowcontainer's lengths are positive from the end with the larger port, or from the
/// receiver of the first packet; IPv6's are without its header, UDP's payloads with theirs.
fn sequence<'a>(r: &Row<'a>, measure: Measure, packets: Packets) -> Value<'a> {
    let as_flowcontainer = r.options.as_flowcontainer;
    let key = &r.flow.record.key;
    let extra = match measure {
        Measure::IpLength if key.ip_version == 6 => -40,
        Measure::PayloadLength if key.protocol == protocol::UDP => 8,
        _ => 0,
    };
    Value::Sequence(Sequence {
        slots: &r.flow.splt,
        limit: r.options.sequences,
        measure,
        packets,
        is_reversed: as_flowcontainer && r.flow.src().port <= r.flow.dst().port,
        extra: if as_flowcontainer { extra } else { 0 },
    })
}

/// Times of the first and the last packet; as flowcontainer, of those with payload.
fn span(r: &Row) -> (u64, u64) {
    let both = r.side(Both);
    if r.options.as_flowcontainer {
        let mut times = r.flow.splt.iter().filter(|s| s.payload_bytes > 0).map(|s| s.time_ns);
        let first = times.next().unwrap_or(both.first_ns);
        return (first, times.next_back().unwrap_or(first));
    }
    (both.first_ns, both.last_ns)
}

fn process<'a>(
    owner: Option<&'a Owner>,
    get: fn(&'a Owner, &'a Profile) -> Value<'a>,
) -> Value<'a> {
    owner.and_then(|o| Some(get(o, o.profile.as_deref()?))).unwrap_or(Value::Null)
}

fn shared<'a>(r: &Row<'a>) -> Option<&'a Shared> {
    r.flow.local_owner()?.shared.as_ref()
}

fn text(text: Option<&str>) -> Value<'_> {
    text.map_or(Value::Null, Value::Str)
}

/// The number of a user or group.
fn id(id: u32) -> Value<'static> {
    number(Ids::known(id))
}

fn number(number: Option<u32>) -> Value<'static> {
    number.map_or(Value::Null, |number| Value::U64(u64::from(number)))
}

fn layer7<'a>(r: &Row<'a>, get: fn(&'a Layer7) -> Value<'a>) -> Value<'a> {
    r.flow.layer7.as_ref().map_or(Value::Null, get)
}

fn detail<'a>(r: &Row<'a>, get: fn(&'a Details) -> Value<'a>) -> Value<'a> {
    let details = r.flow.layer7.as_ref().and_then(|layer7| layer7.details.as_deref());
    details.map_or(Value::Null, get)
}

fn icmp(r: &Row, d: &Direction, get: fn(&Direction) -> u8) -> Value<'static> {
    match r.flow.record.key.protocol {
        protocol::ICMP | protocol::ICMPV6 if d.packets > 0 => Value::U64(u64::from(get(d))),
        _ => Value::Null,
    }
}
