//! How are the shipped plugins listed for a reader?

use std::fmt::Write as _;

use super::{Shipped, USAGES};
use crate::fields::Added;

/// What each does, by its name, and what its settings are.
const WORDS: &[(&str, &str)] = &[
    (
        "slicer",
        "Ends a flow with the packet that reaches a limit: a number of packets, of bytes of frames, or of seconds \
         since its first packet; at least one of them is to be set. Its next packet begins a new flow. \
         With `packets` it is NFStream's FlowSlicer. It has no columns.",
    ),
    (
        "splt",
        "The first packets: NFStream's SPLT. Unlike `--splt-analysis` it has an accounting mode of its \
         own: 0 the frame, 1 the IP packet, 2 the transport segment, 3 the payload. Lists have `length` \
         values, −1 where there is no packet. By default 20 packets of mode 0.",
    ),
    (
        "dhcp",
        "What DHCP clients say in flows to port 67: NFStream's DHCP. A flow ends with ACK, NAK, INFORM and \
         DECLINE, and with each message from 0.0.0.0. A message that would end NFStream's meter is \
         ignored.",
    ),
    (
        "mdns",
        "Names announced in flows to port 5353: NFStream's MDNS. As there, IPv6 is not read, and a message \
         with a record of a type other than A, AAAA, NS, CNAME, PTR, SOA, MX, SRV, TXT, HINFO, NULL or OPT \
         is ignored as a whole. `--group l7-extended` reads more.",
    ),
    (
        "ja4",
        "Fingerprints of TLS in flows over TCP and IPv4 whose first packet opens the connection: NFStream's \
         JA4. As there, a hello is read from one packet only, and a server's that cannot be read has the \
         client's forgotten. Of unusual hellos the fingerprints differ from JA4's specification as NFStream's \
         do: GREASE next to GREASE, versions before TLS 1.0, protocols that are not ASCII, extensions that \
         are there twice. `--group l7-extended` has a `ja4` that follows the specification, also of hellos in \
         several packets.",
    ),
    (
        "wavelet",
        "Features of the stationary Haar transform of the IP bytes over time: NFStream's WFPlugin. Each \
         direction is a series of 2^`levels` sums over `active_timeout` seconds, the flow's first packet \
         left out. Packets later than `active_timeout` are left out too, so set it to `--active-timeout`. \
         By default 5 levels of 1800 s; at most 16 levels.",
    ),
    (
        "payload",
        "The first `bytes` of the first `packets` that have a payload. By default 64 bytes of 8 packets.",
    ),
    (
        "headers",
        "Fields of the first `packets`: lists with −1 where there is no packet, or no such field. By \
         default 8 packets.",
    ),
];

/// The plugins as `docs/plugins.md`.
pub fn markdown() -> String {
    let mut out = String::from(
        "<!-- Generated from flowmeter/src/plugin/shipped/; `UPDATE_EXPECT=1 cargo test -p flowmeter` rewrites it. -->\n\n\
         # Plugins\n\n\
         A plugin sees every packet of a flow, and adds columns to it that stand behind all others and begin \
         with `udps.`, as NFStream's do. `--plugin NAME[:KEY=VALUE,…]` adds one to `flowmeter read` or `flowmeter \
         live`; it may be repeated, each plugin once. Where NFStream ships a plugin, names and values are \
         NFStream's: the tests compare them with `--compat nfstream`.\n\n\
         With a plugin, `live` has the kernel forward every packet's bytes, up to `--snapshot-length`, not only \
         the first `--n-dissections` of each flow; this costs CPU time for every packet. A packet that \
         found no room on the way is counted in `dissection_lost` of the report and marks its flow \
         (`dissection_lost`): the flow's own counts are right, but its plugins have not seen the packet. Of packets \
         that the kernel has joined (GRO, GSO), the bytes beyond 16 KiB are missing. A flow that a plugin ends live \
         ends some milliseconds later: packets that come meanwhile still belong to it.\n\n\
         A program that uses the library adds its own: see `flowmeter::Plugin`.\n",
    );
    for (name, words) in WORDS {
        let usage = USAGES.iter().find(|usage| usage.split(':').next() == Some(name));
        let usage = usage.unwrap_or(name);
        put(&mut out, format_args!("\n## {name}\n\n`--plugin {usage}`\n\n{words}\n"));
        let columns = example(name).map(|plugin| plugin.columns()).unwrap_or_default();
        if columns.is_empty() {
            continue;
        }
        out.push_str("\n| column | type | unit | meaning |\n|---|---|---|---|\n");
        for Added { name, kind, unit, doc } in columns {
            put(&mut out, format_args!("| `{name}` | {} | {unit} | {doc} |\n", kind.name()));
        }
    }
    out
}

/// One with as few columns as it can have.
fn example(name: &str) -> Option<Shipped> {
    let settings = match name {
        "slicer" => "slicer:packets=1",
        "wavelet" => "wavelet:levels=1",
        _ => name,
    };
    settings.parse().ok()
}

fn put(out: &mut String, text: std::fmt::Arguments) {
    out.write_fmt(text).expect("memory takes every write");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::USAGES;
    use super::{WORDS, markdown};

    #[test]
    fn each_plugin_is_described() {
        let names = USAGES.iter().filter_map(|usage| usage.split(':').next());
        assert!(names.eq(WORDS.iter().map(|(name, _)| *name)));
    }

    #[test]
    fn docs_are_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/plugins.md");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, markdown()).expect("docs/ can be written");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == markdown(),
            "docs/plugins.md differs from the plugins; UPDATE_EXPECT=1 rewrites it"
        );
    }
}
