//! What does a virtual machine start with?

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::packages::Unpacked;
use crate::command::{find, run};

/// The first process of the machine.
const INIT: &str = include_str!("init.sh");

/// Writes the initial file system, with the script `job`, into `folder`, and says where it is.
pub fn write(unpacked: &Unpacked, job: &str, folder: &Path) -> Result<PathBuf> {
    let tree = folder.join("initramfs");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    fs::create_dir_all(tree.join("bin"))?;
    fs::create_dir_all(tree.join("modules"))?;
    let busybox = find("busybox").context("no busybox; `cargo xtask setup --tests` installs it")?;
    fs::copy(busybox, tree.join("bin/busybox"))?;
    for name in unpacked.order.lines() {
        let file = format!("{name}.ko");
        fs::copy(unpacked.modules.join(&file), tree.join("modules").join(&file))?;
    }
    fs::write(tree.join("modules/order"), &unpacked.order)?;
    fs::write(tree.join("job.sh"), job)?;
    fs::write(tree.join("init"), INIT)?;
    fs::set_permissions(tree.join("init"), fs::Permissions::from_mode(0o755))?;
    let archive = folder.join("initramfs.cpio");
    let mut pack = Command::new("sh");
    pack.args(["-c", "find . | cpio --quiet -o -H newc -R 0:0 >\"$0\""]).arg(&archive);
    run(pack.current_dir(&tree))?;
    Ok(archive)
}
