//! How is a kernel had from Debian, without installing it?

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::kernels::Kernel;
use super::modules::Modules;
use crate::command::{output, run};

/// What is needed of a kernel, unpacked.
pub struct Unpacked {
    /// The package that it is from.
    pub package: String,
    /// The kernel.
    pub kernel: PathBuf,
    /// The folder of the modules that a machine needs.
    pub modules: PathBuf,
    /// Their names by lines, in the order in which they are inserted.
    pub order: String,
}

/// Packages tried before giving up: lists may name newer ones than the mirror has.
const TRIES: usize = 3;

/// Debian's keys, where its package `debian-archive-keyring` leaves them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The kernel's files in the folder `vm`: those that are there, or those of the newest package that
/// can be had.
pub fn fetch(kernel: &Kernel, vm: &Path) -> Result<Unpacked> {
    if !cfg!(target_arch = "x86_64") {
        bail!("kernels are tried on x86-64 machines, and with programs for these, only");
    }
    let folder = vm.join("kernels").join(kernel.name);
    if let Ok(unpacked) = Unpacked::find(&folder) {
        return Ok(unpacked);
    }
    let suite = Suite::update(kernel.suite, vm)?;
    let names = suite.names()?;
    let images = kernel.images(names.iter().map(String::as_str));
    if images.is_empty() {
        bail!("Debian's suite {} has no kernel {} any more", kernel.suite, kernel.name);
    }
    let mut last = None;
    for image in images.into_iter().take(TRIES) {
        match suite.download(image, &names).and_then(|debs| unpack(image, &debs, &folder)) {
            Ok(()) => return Unpacked::find(&folder),
            Err(e) => last = Some(e),
        }
    }
    Err(last.context("no package was tried")?)
}

impl Unpacked {
    fn find(folder: &Path) -> Result<Self> {
        let package = fs::read_to_string(folder.join("package"))?;
        let modules = folder.join("modules");
        let order = fs::read_to_string(modules.join("order"))?;
        Ok(Self { package, kernel: folder.join("vmlinuz"), modules, order })
    }
}

/// A suite of Debian that is not this machine's, with lists of its own.
struct Suite {
    folder: PathBuf,
}

impl Suite {
    /// Fetches the lists of the suite from the mirrors of this machine.
    fn update(name: &str, vm: &Path) -> Result<Self> {
        let suite = Self { folder: vm.join("apt").join(name) };
        for folder in ["lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(suite.folder.join(folder))?;
        }
        let sources = sources(&sites()?, name, Path::new(KEYRING).exists())?;
        fs::write(suite.folder.join("sources.list"), sources)?;
        // One of the mirrors may have dropped a suite that another still has: what counts is
        // whether there are packages.
        if let Err(e) = run(suite.apt("apt-get").args(["update", "-q", "-q"])) {
            eprintln!("xtask: {e:#}");
        }
        Ok(suite)
    }

    /// One of apt's programs, with the lists, the cache and the sources of this suite alone.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let at = |name: &str| self.folder.join(name).display().to_string();
        for option in [
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            format!("Dir::State::lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            "Dir::Etc::sourceparts=/dev/null".into(),
            "Dir::Etc::preferences=/dev/null".into(),
            "Dir::Etc::preferencesparts=/dev/null".into(),
            "Dir::State::status=/dev/null".into(),
            "APT::Default-Release=".into(),
            "APT::Sandbox::User=root".into(),
            "Acquire::Languages=none".into(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }

    /// Names of the suite's packages with kernels.
    fn names(&self) -> Result<Vec<String>> {
        let names = output(self.apt("apt-cache").args(["pkgnames", "linux-"]))
            .context("`apt-cache pkgnames` failed")?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads the package, and those that newer kernels keep the rest in.
    fn download(&self, image: &str, names: &[String]) -> Result<Vec<PathBuf>> {
        let parts = ["linux-binary", "linux-modules"].map(|p| image.replace("linux-image", p));
        let parts = parts.iter().filter(|part| names.contains(part)).map(String::as_str);
        let packages = self.folder.join("packages");
        fs::remove_dir_all(&packages)?;
        fs::create_dir_all(&packages)?;
        let mut command = self.apt("apt-get");
        command.args(["download", "-q", "-q", image]).args(parts);
        run(command.current_dir(&packages))?;
        let debs = fs::read_dir(&packages)?.map(|entry| Ok(entry?.path()));
        debs.collect()
    }
}

/// What apt may fetch from on this machine.
fn sites() -> Result<String> {
    let mut command = Command::new("apt-get");
    output(command.args(["indextargets", "--format", "$(SITE)", "Created-By: Packages"]))
        .context("kernels are taken from Debian's packages, and there is no apt here")
}

/// The lines of a `sources.list` for `suite`, with the mirrors of Debian among `sites`.
fn sources(sites: &str, suite: &str, has_keyring: bool) -> Result<String> {
    let signed = if has_keyring { format!(" [signed-by={KEYRING}]") } else { String::new() };
    let mut lines = Vec::new();
    for site in sites.lines() {
        let suite = match site.trim_end_matches('/').rsplit('/').next() {
            Some("debian") => suite.to_owned(),
            // Backports have no security updates of their own.
            Some("debian-security") if !suite.contains('-') => format!("{suite}-security"),
            _ => continue,
        };
        let line = format!("deb{signed} {site} {suite} main\n");
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    if lines.is_empty() {
        bail!("kernels are taken from Debian's mirrors, and apt knows none here");
    }
    Ok(lines.concat())
}

/// Takes out of the packages what is needed, and leaves it in `folder`: all of it or nothing.
fn unpack(image: &str, debs: &[PathBuf], folder: &Path) -> Result<()> {
    let (new, tree) = (folder.with_extension("new"), folder.with_extension("tree"));
    for folder in [folder, &new, &tree] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    fs::create_dir_all(new.join("modules"))?;
    for deb in debs {
        run(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(&tree))?;
        // They are large.
        fs::remove_file(deb)?;
    }
    let mut files = Vec::new();
    list(&tree, &mut files)?;
    let is_kernel = |file: &&PathBuf| {
        file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
    };
    let kernel = files.iter().find(is_kernel);
    let kernel = kernel.with_context(|| format!("{image} has no kernel in it"))?;
    fs::copy(kernel, new.join("vmlinuz"))?;
    let modules = new.join("modules");
    let order = Modules::among(&files).copy_to(&modules)?;
    fs::write(modules.join("order"), order)?;
    fs::remove_dir_all(&tree)?;
    fs::write(new.join("package"), image)?;
    Ok(fs::rename(&new, folder)?)
}

/// The files below a folder; links are left alone.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::sources;

    const SITES: &str = "\
        http://mirror.example/debian\n\
        http://mirror.example/debian\n\
        http://mirror.example/debian-security/\n\
        https://other.example/node_20.x\n";

    #[test]
    fn sources_are_the_mirrors_of_this_machine() {
        assert_eq!(
            sources(SITES, "bookworm", false).ok().as_deref(),
            Some(
                "deb http://mirror.example/debian bookworm main\n\
                 deb http://mirror.example/debian-security/ bookworm-security main\n"
            )
        );
        let backports = sources(SITES, "trixie-backports", true).unwrap_or_default();
        assert_eq!(backports.lines().count(), 1);
        assert!(backports.starts_with("deb [signed-by=/usr/share/keyrings/"));
        assert!(backports.ends_with("debian trixie-backports main\n"));
    }

    #[test]
    fn without_a_mirror_there_is_nothing_to_fetch_from() {
        assert!(sources("https://other.example/ubuntu\n", "trixie", true).is_err());
    }
}
