//! Which modules does a virtual machine need, and in which order?

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _};

use crate::command::run;

/// What a machine uses; kernels have some of it built in, and what these need themselves differs.
const WANTED: [&str; 13] = [
    // The host's files.
    "virtio_pci",
    "9pnet_virtio",
    "9p",
    "overlay",
    // What the tests make.
    "veth",
    "dummy",
    "8021q",
    "sch_ingress",
    "cls_bpf",
    // What `ss` asks.
    "tcp_diag",
    "udp_diag",
    "raw_diag",
    "unix_diag",
];

/// Modules of a kernel, by name.
pub struct Modules(BTreeMap<String, PathBuf>);

impl Modules {
    /// Those among files that have been unpacked.
    pub fn among(files: &[PathBuf]) -> Self {
        let named = |file: &PathBuf| Some((name_of(file)?, file.clone()));
        Self(files.iter().filter_map(named).collect())
    }

    /// Copies those that a machine needs, not compressed, into a folder. Gives their names, each
    /// after those that it needs itself, by lines.
    pub fn copy_to(&self, folder: &Path) -> Result<String> {
        let mut order = Vec::new();
        for name in WANTED {
            self.add(name, folder, &mut order)?;
        }
        Ok(order.join("\n") + "\n")
    }

    fn add(&self, name: &str, folder: &Path, order: &mut Vec<String>) -> Result<()> {
        let Some(file) = self.0.get(name) else {
            // It is built in, or this kernel has it under another name.
            return Ok(());
        };
        if order.iter().any(|there| there == name) {
            return Ok(());
        }
        let plain = plain(file)?;
        for needed in needs(&fs::read(&plain)?).with_context(|| file.display().to_string())? {
            self.add(&needed, folder, order)?;
        }
        fs::copy(&plain, folder.join(format!("{name}.ko")))?;
        order.push(name.to_owned());
        Ok(())
    }
}

/// The module's name, if the file is one: files may have hyphens.
fn name_of(file: &Path) -> Option<String> {
    let (name, compressed) = file.file_name()?.to_str()?.split_once(".ko")?;
    matches!(compressed, "" | ".xz" | ".zst").then(|| name.replace('-', "_"))
}

/// The module's file when it is not compressed.
fn plain(module: &Path) -> Result<PathBuf> {
    let with = match module.extension().and_then(|e| e.to_str()) {
        Some("ko") => return Ok(module.to_owned()),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => bail!("`{}` is compressed in a way that is not known", module.display()),
    };
    let plain = module.with_extension("");
    if !plain.exists() {
        run(Command::new(with).args(["-q", "--decompress", "--keep"]).arg(module))?;
    }
    Ok(plain)
}

/// What a module needs, by its own word: `depends=virtio,virtio_ring`.
fn needs(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let section = file.section_by_name(".modinfo").context("it is not a module")?;
    let info = String::from_utf8_lossy(section.data()?).into_owned();
    let named = info.split('\0').find_map(|entry| entry.strip_prefix("depends="));
    let named = named.unwrap_or("").split(',').filter(|name| !name.is_empty());
    Ok(named.map(|name| name.replace('-', "_")).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::name_of;

    #[test]
    fn a_module_is_named_by_its_file() {
        let name = |file| name_of(Path::new(file));
        assert_eq!(name("/lib/virtio-rng.ko.xz").as_deref(), Some("virtio_rng"));
        assert_eq!(name("/lib/9p.ko").as_deref(), Some("9p"));
        assert_eq!(name("/boot/vmlinuz-6.1"), None);
        assert_eq!(name("/boot/a.kode"), None);
    }
}
