//! Which file does a process run?
//!
//! The kernel gives a path and marks those of files that are gone, in the same text: a file may be
//! called `x (deleted)`. What a path stands for depends on the mount namespace too. So no path is
//! believed that has not been compared with the file, by its device and inode.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{
    AtFlags, CWD, MemfdFlags, StatxFlags, fstat, major, makedev, memfd_create, minor, statx,
};

/// The file that a program was loaded from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Executable {
    /// Its path, also after it has gone.
    pub path: Option<String>,
    /// From where the path leads to the file; none without a path.
    pub view: Option<View>,
    /// Whether the file's name is gone, or another file's by now; none if that is not known. What is
    /// only in memory never had a name.
    pub is_deleted: Option<bool>,
    /// Whether it was only ever in memory (`memfd_create(2)`).
    pub is_memory: Option<bool>,
    /// The file.
    pub file: Option<FileId>,
}

/// From where a path leads to its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// From the meter's mount namespace.
    Host,
    /// From that of the process alone, where a container's files are.
    Process,
    /// The process asked for it so, which is all that is known: it may be relative, or a link.
    Asked,
}

impl View {
    /// The word in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Process => "process",
            Self::Asked => "asked",
        }
    }
}

/// A file, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// The device, as `stat(2)` gives it.
    pub device: u64,
    /// The inode.
    pub inode: u64,
}

impl FileId {
    /// Major and minor number of the device, as `ls` and `mountinfo` write them.
    pub fn major_minor(self) -> [u32; 2] {
        [major(self.device), minor(self.device)]
    }
}

/// What the kernel says after the path of a file that has lost its name.
const DELETED: &[u8] = b" (deleted)";

impl Executable {
    /// Of the process in this folder of procfs, which has to be checked to be the same afterwards;
    /// none if it is gone or may not be looked at.
    pub fn read(folder: &Path) -> Option<Self> {
        let link = fs::read_link(folder.join("exe")).ok()?.into_os_string();
        let Some(found) = Found::at(&folder.join("exe")) else {
            // Without a right: the text alone does not say what it means.
            return Some(Self::default());
        };
        let file = Some(found.file);
        if memory_device() == Some(found.file.device) {
            let name = link.as_bytes().strip_suffix(DELETED).unwrap_or(link.as_bytes());
            return Some(Self {
                path: Some(text(name)),
                view: Some(View::Host),
                is_deleted: Some(false),
                is_memory: Some(true),
                file,
            });
        }
        let known = |path: &OsStr, view, is_deleted| Self {
            path: Some(text(path.as_bytes())),
            view: Some(view),
            is_deleted,
            is_memory: Some(false),
            file,
        };
        if found.is_at(Path::new(&link)) {
            return Some(known(&link, View::Host, Some(false)));
        }
        let mounts = |folder: &Path| fs::read_link(folder.join("ns/mnt")).ok();
        let is_ours =
            mounts(folder).is_some_and(|its| Some(its) == mounts(Path::new("/proc/self")));
        let view = if is_ours { View::Host } else { View::Process };
        if !is_ours {
            if let Some(path) = found.seen_from_here(folder, &link) {
                return Some(known(path.as_os_str(), View::Host, Some(false)));
            }
            if found.is_at(&beneath(&folder.join("root"), &link)) {
                return Some(known(&link, View::Process, Some(false)));
            }
        }
        let Some(name) = link.as_bytes().strip_suffix(DELETED) else {
            // Its name is there, though not to be reached: something is mounted over it.
            return Some(known(&link, view, Some(false)));
        };
        if found.links == 0 || is_ours {
            let name = OsStr::from_bytes(name);
            // Where it was is the same place here if the folder is.
            let is_here = is_ours || is_same_folder(folder, name);
            let view = if is_here { View::Host } else { View::Process };
            return Some(known(name, view, Some(true)));
        }
        Some(known(&link, view, None))
    }

    /// Of a process that has gone: as the program was asked for, and the file that it was.
    pub fn asked(path: &str, file: Option<FileId>, links: u32) -> Self {
        let mut asked = Self { file, ..Self::default() };
        if !path.is_empty() {
            (asked.path, asked.view) = (Some(path.to_owned()), Some(View::Asked));
        }
        let Some(file) = file else { return asked };
        asked.is_memory = memory_device().map(|device| device == file.device);
        if links == 0 && asked.is_memory == Some(false) {
            asked.is_deleted = Some(true);
        }
        let found = Found { file, links: 0, mount: None };
        if path.starts_with('/')
            && let Ok(real) = fs::canonicalize(path)
            && found.is_at(&real)
        {
            asked.path = Some(text(real.as_os_str().as_bytes()));
            (asked.view, asked.is_deleted) = (Some(View::Host), Some(false));
        }
        asked
    }
}

/// A file as it was found.
struct Found {
    file: FileId,
    /// How many names it has.
    links: u32,
    /// The mount by which it was found, if the kernel tells that.
    mount: Option<u64>,
}

impl Found {
    fn at(path: &Path) -> Option<Self> {
        let wanted = StatxFlags::INO | StatxFlags::NLINK | StatxFlags::MNT_ID;
        // Whoever serves the files of a network or of a user is not asked, who might not answer.
        let found = statx(CWD, path, AtFlags::STATX_DONT_SYNC, wanted).ok()?;
        let device = makedev(found.stx_dev_major, found.stx_dev_minor);
        let has_mount = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        Some(Self {
            file: FileId { device, inode: found.stx_ino },
            links: found.stx_nlink,
            mount: has_mount.then_some(found.stx_mnt_id),
        })
    }

    fn is_at(&self, path: &Path) -> bool {
        Self::at(path).is_some_and(|other| other.file == self.file)
    }

    /// Where the file is for us, if its file system is mounted here too: of a container's, most are.
    fn seen_from_here(&self, folder: &Path, link: &OsStr) -> Option<PathBuf> {
        let its = mounts(&folder.join("mountinfo"));
        let its = its.iter().find(|mount| Some(mount.id) == self.mount)?;
        let inside = its.root.join(Path::new(link).strip_prefix(&its.point).ok()?);
        let ours = mounts(Path::new("/proc/thread-self/mountinfo"));
        let same = ours.iter().filter(|mount| mount.device == its.device);
        let paths =
            same.filter_map(|mount| Some(mount.point.join(inside.strip_prefix(&mount.root).ok()?)));
        paths.into_iter().find(|path| self.is_at(path))
    }
}

/// Whether the folder of a path is the same for the process and for us.
fn is_same_folder(process: &Path, path: &OsStr) -> bool {
    let Some(parent) = Path::new(path).parent() else { return false };
    let its = Found::at(&beneath(&process.join("root"), parent.as_os_str()));
    its.is_some_and(|its| its.is_at(parent))
}

/// A path of the process's, from its root.
fn beneath(root: &Path, path: &OsStr) -> PathBuf {
    root.join(Path::new(path).strip_prefix("/").unwrap_or(Path::new(path)))
}

/// A line of `mountinfo` (`proc_pid_mountinfo(5)`).
struct Mount {
    id: u64,
    device: Vec<u8>,
    /// The folder of the file system that is mounted.
    root: PathBuf,
    /// Where.
    point: PathBuf,
}

/// By hand, as the crate procfs does not decode spaces in names.
fn mounts(path: &Path) -> Vec<Mount> {
    let lines = fs::read(path).unwrap_or_default();
    let mount = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let device = fields.nth(1)?.to_owned();
        let mut path = || Some(PathBuf::from(OsString::from_vec(unescape(fields.next()?))));
        Some(Mount { id, device, root: path()?, point: path()? })
    };
    lines.split(|byte| *byte == b'\n').filter_map(mount).collect()
}

/// `\040` is a space, and so on.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\');
        let octal =
            octal.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    bytes
}

/// The device that files are on which are only in memory: the kernel's own, mounted nowhere.
fn memory_device() -> Option<u64> {
    static DEVICE: OnceLock<Option<u64>> = OnceLock::new();
    *DEVICE.get_or_init(|| {
        let file = memfd_create("flowmeter", MemfdFlags::CLOEXEC).ok()?;
        fstat(&file).ok().map(|stat| stat.st_dev)
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::{MetadataExt as _, symlink};
    use std::process::{Child, Command};

    use super::*;

    /// A folder with copies of `sleep` under many names, gone with the value.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("fm-exe-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).expect("a directory");
            Self(folder.canonicalize().expect("it is there"))
        }

        fn program(&self, name: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::copy("/bin/sleep", &path).expect("sleep is there");
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// A process that sleeps, gone with the value.
    struct Sleeper(Child);

    impl Sleeper {
        fn new(path: &Path) -> Self {
            Self(Command::new(path).arg("60").spawn().expect("it runs"))
        }

        fn executable(&self) -> Executable {
            Executable::read(Path::new(&format!("/proc/{}", self.0.id()))).expect("it is there")
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn of(path: &Path) -> Executable {
        Sleeper::new(path).executable()
    }

    fn id(path: &Path) -> FileId {
        let meta = fs::metadata(path).expect("it is there");
        FileId { device: meta.dev(), inode: meta.ino() }
    }

    fn host(
        path: &Path,
        is_deleted: bool,
    ) -> (Option<&str>, Option<View>, Option<bool>, Option<bool>) {
        (path.to_str(), Some(View::Host), Some(is_deleted), Some(false))
    }

    fn told(e: &Executable) -> (Option<&str>, Option<View>, Option<bool>, Option<bool>) {
        (e.path.as_deref(), e.view, e.is_deleted, e.is_memory)
    }

    #[test]
    fn a_file_of_that_name_is_not_deleted() {
        let folder = Folder::new("named");
        let path = folder.program("x (deleted)");
        let executable = of(&path);
        assert_eq!(told(&executable), host(&path, false));
        assert_eq!(executable.file, Some(id(&path)));
    }

    #[test]
    fn what_is_deleted_or_replaced_keeps_its_path() {
        let folder = Folder::new("gone");
        for (name, is_replaced, has_another_name) in
            [("a", false, false), ("b (deleted)", true, false), ("c", true, true)]
        {
            let path = folder.program(name);
            let file = id(&path);
            if has_another_name {
                fs::hard_link(&path, folder.0.join("other")).expect("a link");
            }
            let sleeper = Sleeper::new(&path);
            fs::remove_file(&path).expect("it is ours");
            if is_replaced {
                folder.program(name);
            }
            let executable = sleeper.executable();
            assert_eq!(told(&executable), host(&path, true), "{name}");
            assert_eq!(executable.file, Some(file), "{name}: not the new one");
        }
    }

    #[test]
    fn a_link_is_what_it_leads_to() {
        let folder = Folder::new("link");
        let (path, link) = (folder.program("real"), folder.0.join("link"));
        symlink(&path, &link).expect("a link");
        assert_eq!(told(&of(&link)), host(&path, false));
        let asked = Executable::asked(link.to_str().expect("ASCII"), Some(id(&path)), 1);
        assert_eq!(told(&asked), host(&path, false));
    }

    #[test]
    fn what_is_in_memory_says_so() {
        let memory = memfd_create("hidden", MemfdFlags::empty()).expect("memory");
        let mut file = fs::File::from(memory);
        let mut sleep = fs::File::open("/bin/sleep").expect("sleep is there");
        std::io::copy(&mut sleep, &mut file).expect("room");
        // Open for writing it cannot be run.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let readable = fs::File::open(&path).expect("it is ours");
        drop(file);
        let executable = of(Path::new(&format!("/proc/self/fd/{}", readable.as_raw_fd())));
        assert_eq!(
            told(&executable),
            (Some("/memfd:hidden"), Some(View::Host), Some(false), Some(true))
        );
        let asked = Executable::asked("/proc/self/fd/3", executable.file, 0);
        assert_eq!(told(&asked), (Some("/proc/self/fd/3"), Some(View::Asked), None, Some(true)));
    }

    #[test]
    fn what_was_asked_for_is_believed_of_the_same_file_alone() {
        let folder = Folder::new("asked");
        let (path, other) = (folder.program("it"), folder.program("other"));
        let asked = Executable::asked(path.to_str().expect("ASCII"), Some(id(&other)), 1);
        assert_eq!(told(&asked), (path.to_str(), Some(View::Asked), None, Some(false)));
        let relative = Executable::asked("./it", Some(id(&path)), 1);
        assert_eq!(relative.view, Some(View::Asked));
        assert_eq!(Executable::asked("", None, 0), Executable::default());
    }

    /// As root: a file that only the process's mount namespace has at this path, and one that is
    /// mounted here too.
    #[test]
    fn mount_namespaces_and_roots_are_seen_through() {
        let folder = Folder::new("spaces");
        let script =
            "mount -t tmpfs none \"$1\" && cp /bin/sleep \"$1/mine\" && exec \"$1/mine\" 60";
        let run = |script: &str, at: &Path| {
            let mut command = Command::new("unshare");
            command.args(["-m", "--propagation", "private", "sh", "-c", script, "sh"]).arg(at);
            command.spawn().ok().map(Sleeper)
        };
        let (hidden, bound) = (folder.0.join("a b"), folder.0.join("bound"));
        for folder in [&hidden, &bound] {
            fs::create_dir_all(folder).expect("a directory");
        }
        let Some(mut sleeper) = run(script, &hidden) else {
            eprintln!("skipped: no unshare here");
            return;
        };
        let link = format!("/proc/{}/exe", sleeper.0.id());
        let becomes = |sleeper: &mut Sleeper, link: &str, name: &str| loop {
            if fs::read_link(link).is_ok_and(|path| path.ends_with(name)) {
                return true;
            }
            if !matches!(sleeper.0.try_wait(), Ok(None)) {
                return false;
            }
            std::thread::yield_now();
        };
        if !becomes(&mut sleeper, &link, "mine") {
            eprintln!("skipped: no mount namespace available");
            return;
        }
        let path = hidden.join("mine");
        assert_eq!(
            told(&sleeper.executable()),
            (path.to_str(), Some(View::Process), Some(false), Some(false))
        );
        // The same file by another path than here.
        let real = folder.program("real");
        let script = "mount --bind \"$(dirname \"$1\")\" \"$1\" && exec \"$1/real\" 60";
        let mut sleeper = run(script, &bound).expect("as above");
        let link = format!("/proc/{}/exe", sleeper.0.id());
        assert!(becomes(&mut sleeper, &link, "real"));
        assert_eq!(told(&sleeper.executable()), host(&real, false));
    }

    #[test]
    fn names_in_mountinfo_are_decoded() {
        assert_eq!(unescape(b"/a\\040b\\134c\\9\\04"), b"/a b\\c\\9\\04");
    }
}
