//! Are the captures that fuzzing found still read without a fault?
//!
//! A finding is kept in `fuzz/regressions`, under a name that says what it is.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use flowmeter_tests::program;

#[test]
fn findings_stay_mended() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/regressions");
    let mut files = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        for compat in [&[][..], &["--compat=nfstream"], &["--compat=flowcontainer"]] {
            let mut command = Command::new(program("flowmeter")?);
            let output = command.arg("read").args(compat).arg(&path).output()?;
            let says = String::from_utf8_lossy(&output.stderr);
            // Damage is an error; a panic is 101, a signal none.
            let code = output.status.code();
            ensure!(matches!(code, Some(0 | 1)), "{}: {code:?} {says}", path.display());
            ensure!(!says.contains("panicked"), "{}: {says}", path.display());
        }
        files += 1;
    }
    ensure!(files > 0, "no regressions to look at");
    Ok(())
}
