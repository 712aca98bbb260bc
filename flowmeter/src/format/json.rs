//! How is a flow written as a line of JSON?

use std::ops::Range;
use std::sync::Arc;

use super::{Existing, Format};
use crate::fields::Schema;
use crate::flow::Flow;

/// JSON objects, one per line.
pub struct Json {
    schema: Arc<Schema>,
    /// `{"id":`, `,"expiration_id":`, … of each column.
    names: Vec<Name>,
    id: Option<usize>,
}

impl Json {
    /// For flows with the columns of `schema`.
    pub fn new(schema: Arc<Schema>) -> Self {
        Self { names: names(&schema), id: super::id(&schema), schema }
    }
}

impl Format for Json {
    fn flow(&self, flow: &Flow, out: &mut Vec<u8>) -> Option<Range<usize>> {
        let mut id = None;
        let mut column = 0;
        let mut names = self.names.iter();
        self.schema.visit(flow, |value| {
            if let Some(name) = names.next() {
                name.push(out);
            }
            let start = out.len();
            value.push_json(out);
            if self.id == Some(column) {
                id = Some(start..out.len());
            }
            column += 1;
        });
        out.extend_from_slice(b"}\n");
        id
    }

    fn record(&self, record: &serde_json::Value, out: &mut Vec<u8>) -> bool {
        serde_json::to_writer(&mut *out, record).expect("a `Value` has string keys");
        out.push(b'\n');
        true
    }

    fn head(&self) -> Vec<u8> {
        Vec::new()
    }

    fn existing(&self) -> Existing {
        Existing::Kept
    }
}

/// What stands before a value. Its head is of one size, so that copying it is a few instructions and
/// no call.
#[derive(Clone)]
struct Name {
    head: [u8; Self::HEAD],
    length: usize,
    /// Of names that are longer: those of plugins alone.
    rest: Box<[u8]>,
}

impl Name {
    const HEAD: usize = 48;

    fn new(text: &[u8]) -> Self {
        let (start, rest) = text.split_at(text.len().min(Self::HEAD));
        let mut head = [0; Self::HEAD];
        head[..start.len()].copy_from_slice(start);
        Self { head, length: start.len(), rest: rest.into() }
    }

    #[inline]
    fn push(&self, out: &mut Vec<u8>) {
        let length = out.len() + self.length;
        out.extend_from_slice(&self.head);
        out.truncate(length);
        if !self.rest.is_empty() {
            out.extend_from_slice(&self.rest);
        }
    }
}

fn names(schema: &Schema) -> Vec<Name> {
    let name = |(i, name): (usize, &str)| {
        let open = if i == 0 { '{' } else { ',' };
        Name::new(format!("{open}{}:", serde_json::Value::from(name)).as_bytes())
    };
    schema.names().enumerate().map(name).collect()
}

#[cfg(test)]
mod tests {
    use flowmeter_common::knobs::Knobs;

    use super::*;
    use crate::dissect::Layer7;
    use crate::fields::{self, TimeUnit};
    use crate::flow::example;

    const CORE: fields::Options = fields::Options {
        dissection: false,
        tunnels: false,
        extras: false,
        ..fields::Options::DEFAULT
    };

    fn line(options: fields::Options) -> String {
        let knobs = Knobs {
            statistics: options.statistics,
            splt: options.splt,
            tick_ns: options.unit.tick_ns(),
            ..Knobs::default()
        };
        let mut flow = example::handshake(&knobs);
        flow.layer7 = Some(Layer7 {
            application_name: "TLS".into(),
            requested_server_name: "a\"b\n".into(),
            ..Layer7::default()
        });
        let schema = Schema::new(options);
        let mut out = Vec::new();
        Json::new(Arc::new(schema)).flow(&flow, &mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn core_line() {
        assert_eq!(
            line(CORE),
            r#"{"id":0,"expiration_id":0,"src_ip":"10.0.0.1","src_mac":"02:00:00:00:00:aa","src_oui":"02:00:00","src_port":40000,"dst_ip":"192.0.2.7","dst_mac":"02:00:00:bb:00:01","dst_oui":"02:00:00","dst_port":443,"protocol":6,"ip_version":4,"vlan_id":0,"bidirectional_first_seen_ms":1700000000000,"bidirectional_last_seen_ms":1700000000022,"bidirectional_duration_ms":22,"bidirectional_packets":3,"bidirectional_bytes":460,"src2dst_first_seen_ms":1700000000000,"src2dst_last_seen_ms":1700000000022,"src2dst_duration_ms":22,"src2dst_packets":2,"src2dst_bytes":360,"dst2src_first_seen_ms":1700000000002,"dst2src_last_seen_ms":1700000000002,"dst2src_duration_ms":0,"dst2src_packets":1,"dst2src_bytes":100}
"#
        );
    }

    #[test]
    fn every_group_reads_back() {
        let all = fields::Options {
            statistics: true,
            splt: 5,
            sequences: 9,
            as_flowcontainer: false,
            dissection: true,
            details: true,
            tunnels: true,
            visibility: true,
            extras: true,
            ..CORE
        };
        let line: serde_json::Value = serde_json::from_str(&line(all)).expect("valid JSON");
        let object = line.as_object().expect("an object");
        assert_eq!(object.len(), fields::columns::all().count());
        assert_eq!(line["splt_direction"], serde_json::json!([0, 1, 0, -1, -1]));
        assert_eq!(line["splt_ps"], serde_json::json!([60, 100, 300, -1, -1]));
        assert_eq!(line["splt_piat_ms"], serde_json::json!([0, 2, 20, -1, -1]));
        assert_eq!(line["ip_lengths"], serde_json::json!([46, -86, 286]));
        assert_eq!(line["payload_lengths"], serde_json::json!([6, -46, 246]));
        assert_eq!(line["start_timestamp"].as_f64(), Some(1_700_000_000.000_5));
        assert_eq!(line["sequences_truncated"], false);
        assert_eq!(line["requested_server_name"], "a\"b\n");
        assert_eq!(line["system_process_pid"], -1);
        assert_eq!(line["flow_end_reason"], "idle timeout");
        assert_eq!(line["src2dst_tcp_flags"], 0x1a);
        assert_eq!(line["src2dst_icmp_type"], serde_json::Value::Null);
        assert_eq!(line["bidirectional_payload_bytes"], 298);
    }

    #[test]
    fn whole_means_have_a_fraction_and_whole_times_none() {
        let line = line(fields::Options { statistics: true, ..CORE });
        assert!(
            line.contains(r#""bidirectional_min_piat_ms":2,"bidirectional_mean_piat_ms":11.0,"#),
            "{line}"
        );
        assert!(
            line.contains(
                r#""dst2src_min_ps":100,"dst2src_mean_ps":100.0,"dst2src_stddev_ps":0.0,"#
            ),
            "{line}"
        );
    }

    #[test]
    fn finer_times_have_fractions_of_ms() {
        let options = fields::Options { statistics: true, splt: 4, unit: TimeUnit::Us, ..CORE };
        let line = line(options);
        assert!(
            line.contains(r#""bidirectional_min_piat_ms":1.7,"bidirectional_mean_piat_ms":10.9,"#),
            "{line}"
        );
        assert!(line.ends_with("\"splt_piat_ms\":[0.0,1.7,20.1,-1]}\n"), "{line}");
    }
}
