//! What does a process's cgroup say about it?
//!
//! Container engines, Kubernetes and systemd name the folders that they make; the path alone says
//! what they belong to.

/// What a path says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The container's engine.
    pub runtime: Option<&'static str>,
    /// The container's id, or a machine's name.
    pub container: Option<String>,
    /// The uid of its Kubernetes pod.
    pub pod: Option<String>,
    /// The systemd unit.
    pub unit: Option<String>,
    /// The innermost systemd slice.
    pub slice: Option<String>,
}

/// Engines by what stands before the id in a scope's name (systemd's cgroup driver).
const SCOPES: [(&str, &str); 5] = [
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("crio-", "cri-o"),
    ("libpod-", "podman"),
    ("nerdctl-", "containerd"),
];

/// Engines by the folder that the id's folder is in (the cgroupfs driver).
const FOLDERS: [(&str, &str); 4] = [
    ("docker", "docker"),
    ("libpod_parent", "podman"),
    ("crio", "cri-o"),
    ("default", "containerd"),
];

/// Shortest and longest id of a container: 64 hexadecimal digits, or less where it was cut.
const ID: std::ops::RangeInclusive<usize> = 12..=64;

impl Place {
    /// Reads a path as `/proc/PID/cgroup` has it.
    pub fn of(path: &str) -> Self {
        let mut place = Self::default();
        let mut above = "";
        for part in path.split('/').filter(|part| !part.is_empty()) {
            place.take(part, above);
            above = part;
        }
        place
    }

    fn take(&mut self, part: &str, above: &str) {
        if let Some(name) = part.strip_suffix(".slice") {
            self.slice = Some(unescape(part));
            // kubepods-burstable-pod1234_5678.slice
            self.pod =
                name.rsplit_once("-pod").map(|(_, uid)| uid.replace('_', "-")).or(self.pod.take());
        } else if let Some(name) = part.strip_suffix(".scope") {
            self.unit = Some(unescape(part));
            let engine = SCOPES.iter().find_map(|(before, engine)| {
                Some((*engine, name.strip_prefix(before).filter(|id| is_id(id))?))
            });
            if let Some((engine, id)) = engine {
                self.contain(engine, id);
            } else if let Some(machine) = name.strip_prefix("machine-") {
                self.contain("systemd-nspawn", &unescape(machine));
            }
        } else if let Some(name) = part.strip_suffix(".service") {
            self.unit = Some(unescape(part));
            if let Some(machine) = name.strip_prefix("systemd-nspawn@") {
                self.contain("systemd-nspawn", &unescape(machine));
            }
        } else if let Some(uid) = part.strip_prefix("pod").filter(|uid| is_uid(uid)) {
            self.pod = Some(uid.to_owned());
        } else if let Some((before, id)) = part.split_once('-').filter(|(_, id)| is_id(id)) {
            // libpod-<id>, crio-<id>, also with -conmon behind where only the monitor runs.
            let engine = SCOPES.iter().find(|(scope, _)| scope.strip_suffix('-') == Some(before));
            if let Some((_, engine)) = engine {
                self.contain(engine, id);
            }
        } else if is_id(part) {
            let engine = FOLDERS.iter().find(|(folder, _)| *folder == above);
            match (engine, &self.pod) {
                (Some((_, engine)), _) => self.contain(engine, part),
                // Kubernetes with cgroupfs: the path does not tell which engine.
                (None, Some(_)) => self.contain("kubernetes", part),
                (None, None) => {}
            }
        }
    }

    fn contain(&mut self, runtime: &'static str, id: &str) {
        self.runtime = Some(runtime);
        self.container = Some(id.to_owned());
    }
}

fn is_id(text: &str) -> bool {
    ID.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_uid(text: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_hexdigit() || b == b'-' || b == b'_';
    (32..=36).contains(&text.len()) && text.bytes().all(is_part)
}

/// `\x2d` and the like, as systemd writes characters that paths of units must not have.
fn unescape(name: &str) -> String {
    let mut parts = name.split("\\x");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(byte) = byte.filter(u8::is_ascii) {
            text.push(char::from(byte));
            text.push_str(&part[2..]);
        } else {
            text.push_str("\\x");
            text.push_str(part);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Place;

    const ID: &str = "7be92808767a667f35c8505cbf40d14e931ef6db5b0210329cf193b15ba9d605";

    /// Runtime, container, pod, unit and slice.
    fn place(path: &str) -> [Option<String>; 5] {
        let place = Place::of(&path.replace("ID", ID));
        let runtime = place.runtime.map(str::to_owned);
        [runtime, place.container, place.pod, place.unit, place.slice]
    }

    #[test]
    fn containers_by_engine_and_cgroup_driver() {
        for (path, runtime) in [
            // Docker: systemd's driver, cgroupfs, and within another container.
            ("/system.slice/docker-ID.scope", "docker"),
            ("/docker/ID", "docker"),
            ("/docker/aaaaaaaaaaaaaaaa/docker/ID", "docker"),
            // containerd by CRI, by ctr and by nerdctl.
            ("/kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope", "containerd"),
            ("/default/ID", "containerd"),
            ("/system.slice/nerdctl-ID.scope", "containerd"),
            // CRI-O.
            ("/kubepods.slice/kubepods-pod1.slice/crio-ID.scope", "cri-o"),
            ("/kubepods/pod1/crio-ID", "cri-o"),
            // podman, as root and as a user.
            ("/machine.slice/libpod-ID.scope/container", "podman"),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope", "podman"),
            ("/libpod_parent/libpod-ID", "podman"),
        ] {
            let [found, id, ..] = place(path);
            assert_eq!((found.as_deref(), id.as_deref()), (Some(runtime), Some(ID)), "{path}");
        }
    }

    #[test]
    fn machines_of_nspawn_have_names() {
        for path in [
            "/machine.slice/machine-deb\\x2d12.scope/payload",
            "/machine.slice/systemd-nspawn@deb\\x2d12.service/payload",
        ] {
            let [runtime, name, ..] = place(path);
            assert_eq!(runtime.as_deref(), Some("systemd-nspawn"), "{path}");
            assert_eq!(name.as_deref(), Some("deb-12"), "{path}");
        }
    }

    #[test]
    fn pods_have_uids() {
        let uid = Some("2a0b3f5e-1c2d-4e5f-8a9b-0c1d2e3f4a5b".to_owned());
        for path in [
            "/kubepods.slice/kubepods-burstable.slice/\
             kubepods-burstable-pod2a0b3f5e_1c2d_4e5f_8a9b_0c1d2e3f4a5b.slice/cri-containerd-ID.scope",
            "/kubepods/besteffort/pod2a0b3f5e-1c2d-4e5f-8a9b-0c1d2e3f4a5b/ID",
        ] {
            let [runtime, id, pod, ..] = place(path);
            assert!(runtime.is_some() && id.as_deref() == Some(ID), "{path}");
            assert_eq!(pod, uid, "{path}");
        }
    }

    #[test]
    fn units_and_slices() {
        let [_, container, _, unit, slice] =
            place("/system.slice/system-getty.slice/getty@tty1.service");
        assert_eq!(container, None);
        assert_eq!(unit.as_deref(), Some("getty@tty1.service"));
        assert_eq!(slice.as_deref(), Some("system-getty.slice"));
        let [.., unit, slice] = place("/user.slice/user-1000.slice/session-2.scope");
        assert_eq!(unit.as_deref(), Some("session-2.scope"));
        assert_eq!(slice.as_deref(), Some("user-1000.slice"));
        assert_eq!(Place::of("/"), Place::default());
        assert_eq!(Place::of("/a\\xzz.scope").unit.as_deref(), Some("a\\xzz.scope"));
    }
}
