//! Where else does the text of a column stand?
//!
//! Who hides one column and writes another that has the same text has hidden nothing.

/// Columns whose text is in others, without the prefixes for the ends of a flow.
const PARTS: [(&str, &[&str]); 10] = [
    ("process_name", &["process_exe", "process_cmdline", "process_args"]),
    ("process_exe", &["process_cmdline", "process_args"]),
    ("process_cmdline", &["process_args"]),
    ("process_args", &["process_cmdline"]),
    ("process_user", &["process_uid"]),
    ("container_id", &["systemd_unit", "cgroup"]),
    ("pod_uid", &["systemd_slice", "cgroup"]),
    ("systemd_unit", &["cgroup"]),
    ("systemd_slice", &["cgroup"]),
    ("requested_server_name", &["http_url"]),
];

/// Whether the text of the column `hidden` stands in that of `shown` too, or can be told from it.
pub fn is_exposed(hidden: &str, shown: &str) -> bool {
    let (hidden_base, shown_base) = (base(hidden), base(shown));
    // The process at the local end is that at one of the two.
    let is_same = hidden != shown && hidden_base == shown_base;
    let parts = PARTS.iter().filter(|(part, _)| *part == hidden_base);
    is_same || parts.into_iter().any(|(_, wholes)| wholes.contains(&shown_base))
}

/// A process's column without the end of the flow that it is of; others as they are.
fn base(name: &str) -> &str {
    let stripped = ["src_", "dst_", "system_"].iter().find_map(|prefix| name.strip_prefix(prefix));
    let is_process = |name: &&str| {
        ["process_", "container_", "pod_", "systemd_", "cgroup"].iter().any(|p| name.starts_with(p))
    };
    stripped.filter(is_process).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::columns;

    #[test]
    fn the_same_text_is_known_wherever_it_stands() {
        for (hidden, shown) in [
            ("process_cmdline", "process_args"),
            ("src_process_cmdline", "dst_process_args"),
            ("src_process_name", "system_process_name"),
            ("system_process_name", "process_exe"),
            ("process_pid", "system_process_pid"),
            ("cgroup", "src_cgroup"),
            ("container_id", "dst_cgroup"),
        ] {
            assert!(is_exposed(hidden, shown), "{hidden} {shown}");
        }
        for (hidden, shown) in [
            ("src_ip", "dst_ip"),
            ("src_ip", "src_ip"),
            ("process_args", "process_args"),
            ("cgroup", "container_id"),
            ("src_port", "dst_port"),
        ] {
            assert!(!is_exposed(hidden, shown), "{hidden} {shown}");
        }
    }

    #[test]
    fn all_names_are_columns() {
        let is = |name: &&str| columns::all().any(|column| base(column.name) == *name);
        for (part, wholes) in PARTS {
            assert!(is(&part) && wholes.iter().all(&is), "{part}");
        }
    }
}
