//! Where are the fields of the kernel's structs?
//!
//! Its type information (BTF, Linux `Documentation/bpf/btf.rst`) tells. Only what is needed for
//! that is read; the loader's own reader does not give it out.

use std::fs;

/// The offsets that the socket programs are set to, by the names of their globals; bytes.
pub(super) type Offsets = Vec<(&'static str, u32)>;

/// Global, struct, and the way to the field.
const FIELDS: [(&str, &str, &[&str]); 22] = [
    ("TASK_LEADER", "task_struct", &["group_leader"]),
    ("TASK_PARENT", "task_struct", &["real_parent"]),
    ("TASK_TGID", "task_struct", &["tgid"]),
    ("TASK_START", "task_struct", &["start_boottime"]),
    ("TASK_COMM", "task_struct", &["comm"]),
    ("TASK_MM", "task_struct", &["mm"]),
    ("TASK_FLAGS", "task_struct", &["flags"]),
    ("MM_ARG_START", "mm_struct", &["arg_start"]),
    ("MM_ARG_END", "mm_struct", &["arg_end"]),
    ("BPRM_INTERP", "linux_binprm", &["interp"]),
    ("NET_COOKIE", "net", &["net_cookie"]),
    ("SOCKET_SOCK", "socket", &["sk"]),
    ("SOCK_FAMILY", "sock", &["__sk_common", "skc_family"]),
    ("SOCK_PORT", "sock", &["__sk_common", "skc_num"]),
    ("SOCK_PEER_PORT", "sock", &["__sk_common", "skc_dport"]),
    ("SOCK_ADDRESS", "sock", &["__sk_common", "skc_rcv_saddr"]),
    ("SOCK_PEER", "sock", &["__sk_common", "skc_daddr"]),
    ("SOCK_ADDRESS6", "sock", &["__sk_common", "skc_v6_rcv_saddr"]),
    ("SOCK_PEER6", "sock", &["__sk_common", "skc_v6_daddr"]),
    // A struct of just the pointer, where there are namespaces.
    ("SOCK_NET", "sock", &["__sk_common", "skc_net"]),
    // A struct of just the number.
    ("SOCK_COOKIE", "sock", &["__sk_common", "skc_cookie"]),
    ("SOCK_PROTOCOL", "sock", &["sk_protocol"]),
];

/// The same of fields that not every kernel has. What is not there is not told.
const OPTIONAL: [(&str, &str, &[&str]); 20] = [
    ("TASK_EXEC_ID", "task_struct", &["self_exec_id"]),
    ("TASK_CRED", "task_struct", &["cred"]),
    // With CONFIG_AUDIT.
    ("TASK_LOGIN", "task_struct", &["loginuid"]),
    ("CRED_EUID", "cred", &["euid"]),
    ("CRED_EGID", "cred", &["egid"]),
    ("TASK_PID", "task_struct", &["thread_pid"]),
    ("PID_LEVEL", "pid", &["level"]),
    ("PID_NUMBERS", "pid", &["numbers"]),
    ("UPID_SPACE", "upid", &["ns"]),
    ("PID_SPACE_NUMBER", "pid_namespace", &["ns", "inum"]),
    ("MM_EXE", "mm_struct", &["exe_file"]),
    ("FILE_INODE", "file", &["f_inode"]),
    ("INODE_NUMBER", "inode", &["i_ino"]),
    ("INODE_LINKS", "inode", &["i_nlink"]),
    ("INODE_SUPER", "inode", &["i_sb"]),
    ("SUPER_DEVICE", "super_block", &["s_dev"]),
    ("CGROUP_ROOT", "cgroup", &["root"]),
    ("CGROUP_NODE", "cgroup", &["kn"]),
    ("ROOT_HIERARCHY", "cgroup_root", &["hierarchy_id"]),
    ("NODE_ID", "kernfs_node", &["id"]),
];

/// What the helper `bpf_skc_to_mptcp_sock` calls in the kernel.
const MPTCP_LEADER: &str = "bpf_mptcp_sock_from_subflow";

/// Finds them all; none if one is not there that must be.
pub(super) fn offsets() -> Option<Offsets> {
    let types = Types::parse(fs::read("/sys/kernel/btf/vmlinux").ok()?)?;
    let find = |&(global, of, way): &(&'static str, &str, &[&str])| {
        Some((global, types.field(types.structure(of)?, way)?))
    };
    let mut offsets: Offsets = FIELDS.iter().map(find).collect::<Option<_>>()?;
    offsets.extend(OPTIONAL.iter().filter_map(find));
    // Since Linux 5.19, with CONFIG_MPTCP. No offset: that it is there.
    offsets.extend(types.named(kind::FUNC, MPTCP_LEADER).map(|_| ("KNOWS_MPTCP", 1)));
    Some(offsets)
}

/// The kernel's types.
struct Types {
    bytes: Vec<u8>,
    /// Where each type starts, by its number; 0 is `void`.
    starts: Vec<usize>,
    /// Where the names start.
    names: usize,
}

/// Kinds of types.
mod kind {
    pub const INT: u32 = 1;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const DECL_TAG: u32 = 17;
    pub const ENUM64: u32 = 19;
}

/// Anonymous structs in structs that are looked into.
const MAX_DEPTH: u32 = 8;

impl Types {
    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let mut types = Self { bytes, starts: vec![0], names: 0 };
        if types.bytes.first_chunk::<2>() != Some(&0xeb9f_u16.to_ne_bytes()) {
            return None;
        }
        let header = types.word(4)? as usize;
        let mut at = header + types.word(8)? as usize;
        let end = at + types.word(12)? as usize;
        types.names = header + types.word(16)? as usize;
        while at < end {
            types.starts.push(at);
            let (kind, count) = types.info(at)?;
            at += 12
                + match kind {
                    kind::INT | kind::VAR | kind::DECL_TAG => 4,
                    kind::ARRAY => 12,
                    kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => count * 12,
                    kind::ENUM | kind::FUNC_PROTO => count * 8,
                    _ => 0,
                };
        }
        Some(types)
    }

    fn word(&self, at: usize) -> Option<u32> {
        self.bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    /// The kind of the type at a place, and how many members or the like it has.
    fn info(&self, at: usize) -> Option<(u32, usize)> {
        let info = self.word(at + 4)?;
        Some((info >> 24 & 31, (info & 0xffff) as usize))
    }

    fn is_named(&self, at: usize, name: &str) -> bool {
        let is = || {
            let found = self.bytes.get(self.names + self.word(at)? as usize..)?;
            Some(found.strip_prefix(name.as_bytes())?.first() == Some(&0))
        };
        is().unwrap_or(false)
    }

    fn structure(&self, name: &str) -> Option<usize> {
        self.named(kind::STRUCT, name)
    }

    /// The first type of a kind and name.
    fn named(&self, kind: u32, name: &str) -> Option<usize> {
        let is = |at: &usize| {
            self.info(*at).is_some_and(|(of, _)| of == kind) && self.is_named(*at, name)
        };
        self.starts.iter().skip(1).copied().find(is)
    }

    /// Where a field is in the struct at a place; bytes.
    fn field(&self, structure: usize, way: &[&str]) -> Option<u32> {
        let (first, rest) = way.split_first()?;
        let (offset, of) = self.member(structure, first, MAX_DEPTH)?;
        let inner = if rest.is_empty() { 0 } else { self.field(of, rest)? };
        Some(offset + inner)
    }

    /// Where a member is, in anonymous structs and unions too, and its type.
    fn member(&self, structure: usize, name: &str, depth: u32) -> Option<(u32, usize)> {
        let (kind, count) = self.info(structure)?;
        if !matches!(kind, kind::STRUCT | kind::UNION) || depth == 0 {
            return None;
        }
        // With the flag, the upper 8 bits are the width of a bit field.
        let has_widths = self.word(structure + 4)? >> 31 == 1;
        for number in 0..count {
            let at = structure + 12 + number * 12;
            let bits = self.word(at + 8)?;
            let offset = if has_widths { bits & 0x00ff_ffff } else { bits } / 8;
            let of = self.starts.get(self.word(at + 4)? as usize).copied()?;
            if self.is_named(at, name) {
                return Some((offset, of));
            }
            if self.word(at)? == 0
                && let Some((inner, of)) = self.member(of, name, depth - 1)
            {
                return Some((offset + inner, of));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernels_sockets_start_with_their_addresses() {
        if !fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false) {
            println!("left out: this kernel has no BTF");
            return;
        }
        let offsets = offsets().expect("every field is there");
        let at = |name| offsets.iter().find(|(global, _)| *global == name).map(|(_, at)| *at);
        // So for as long as there has been `sock_common` (Linux, include/net/sock.h).
        let known = [("SOCK_PEER", 0), ("SOCK_ADDRESS", 4), ("SOCK_PEER_PORT", 12)];
        for (name, offset) in known {
            assert_eq!(at(name), Some(offset), "{name}");
        }
        assert_eq!((at("SOCK_PORT"), at("SOCK_FAMILY")), (Some(14), Some(16)));
        assert!(at("TASK_COMM") > at("TASK_TGID"));
    }

    #[test]
    fn garbage_has_no_types() {
        assert!(Types::parse(Vec::new()).is_none());
        assert!(Types::parse(vec![0; 100]).is_none());
        let mut cut = 0xeb9f_u16.to_ne_bytes().to_vec();
        cut.extend([0xff; 40]);
        assert!(Types::parse(cut).is_none());
    }
}
