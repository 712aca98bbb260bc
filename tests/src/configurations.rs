//! With which options are captures read to be compared?

/// The configurations of NFStream's rows, and what they are as options.
pub const CONFIGURATIONS: [(&str, &[&str]); 8] = [
    ("default", &[]),
    ("stat", &["--statistical-analysis", "--splt-analysis=255"]),
    (
        "acc1",
        &[
            "--statistical-analysis",
            "--splt-analysis=255",
            "--n-dissections=0",
            "--accounting-mode=1",
        ],
    ),
    (
        "acc2",
        &[
            "--statistical-analysis",
            "--splt-analysis=255",
            "--n-dissections=0",
            "--accounting-mode=2",
        ],
    ),
    (
        "acc3",
        &[
            "--statistical-analysis",
            "--splt-analysis=255",
            "--n-dissections=0",
            "--accounting-mode=3",
        ],
    ),
    ("notunnel", &["--statistical-analysis", "--splt-analysis=20", "--no-decode-tunnels"]),
    (
        "timeout",
        &["--statistical-analysis", "--splt-analysis=20", "--idle-timeout=1", "--active-timeout=5"],
    ),
    (
        "timeout0",
        &[
            "--statistical-analysis",
            "--splt-analysis=5",
            "--n-dissections=0",
            "--idle-timeout=0",
            "--active-timeout=0",
        ],
    ),
];

/// Whether packets are dissected with these options, so that rows depend on the nDPI installed.
pub fn is_dissecting(options: &[&str]) -> bool {
    !options.contains(&"--n-dissections=0")
}
