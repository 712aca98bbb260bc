//! Is there an nDPI we can build against, and does the shim agree with it?

use std::process::exit;

/// Versions whose headers the shim was compiled with; others are tried.
const KNOWN: &str = "4.2 to 4.12, and 5.0";

fn main() {
    println!("cargo:rerun-if-changed=src/shim.c");
    println!("cargo:rerun-if-changed=src/shim.h");

    let library = match pkg_config::Config::new().atleast_version("4.2").probe("libndpi") {
        Ok(library) => library,
        Err(error) => fail(&[
            "flowmeter's layer-7 dissection needs nDPI 4.2 or later, with its headers",
            "install it: `apt-get install libndpi-dev`",
            "or build without dissection: `--no-default-features`",
            &format!("pkg-config: {error}"),
        ]),
    };

    // The folder, not the files: a package manager gives files the times of their making, and only
    // the folder then tells that it replaced some.
    for path in library.include_paths.iter().filter(|path| path.join("ndpi_api.h").exists()) {
        println!("cargo:rerun-if-changed={}", path.display());
    }

    let compile = |defines: &[&str]| {
        let mut build = cc::Build::new();
        build.file("src/shim.c").std("gnu11").flag("-Wall").flag("-Wextra").flag("-Werror");
        for path in &library.include_paths {
            // As system headers: -Werror is for our code, not for theirs.
            build.flag("-isystem").flag(path);
        }
        for name in defines {
            build.define(name, None);
        }
        // Of the last try, the compiler's words are of use.
        build.cargo_warnings(!defines.is_empty()).try_compile("ndpi_shim")
    };
    let Err(error) = compile(&[]) else { return };
    // A version that is not known may lack what only a few columns need.
    if compile(&["FM_ESSENTIAL"]).is_ok() {
        println!(
            "cargo::warning=nDPI {}: risks, TLS details and applications by host are left out; the \
             shim is known to be whole with {KNOWN}",
            library.version
        );
    } else {
        fail(&[
            &format!("the shim does not compile against the installed nDPI {}", library.version),
            &format!("it is known to compile against {KNOWN}"),
            "install one of these, or build without dissection: `--no-default-features`",
            &format!("compiler: {error}"),
        ]);
    }
}

/// Ends the build with lines a user can act on.
fn fail(lines: &[&str]) -> ! {
    for line in lines.iter().flat_map(|line| line.lines()) {
        println!("cargo::error={line}");
    }
    exit(1)
}
