//! Which application is a flow, seen from its packets?
//!
//! nDPI looks at the first packets of every flow, and so does a reader of the `ClientHello` of our
//! own. Without the `ndpi` feature a table of ports stands for nDPI.

mod answer;
pub mod batch;
pub mod contained;
pub mod cut;
pub mod details;
pub mod dissector;
pub mod flow;
mod headers;
pub(crate) mod hello;
#[cfg_attr(not(feature = "ndpi"), path = "ports.rs")]
pub mod ndpi;
pub mod place;
pub mod pool;
mod quarantine;
#[cfg(test)]
mod samples;
pub mod segments;
mod shards;
mod ssdp;
pub mod user;

use std::path::PathBuf;

pub use details::Details;
pub use user::User;

/// Layer-7 result of a flow: `NFStream`'s nine columns, and ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer7 {
    /// nDPI's name: `TLS.Google`, `DNS`, or `Unknown`.
    pub application_name: String,
    /// nDPI's category: `Web`, `Network`, or `Unspecified`.
    pub application_category_name: String,
    /// The dissection found nothing, and the name was guessed from addresses and ports.
    pub application_is_guessed: bool,
    /// nDPI 5.0's number for how the name was found, whichever version is installed: 0 unknown,
    /// 1 by port, 5 remembered from another flow, 6 by dissection.
    pub application_confidence: u8,
    /// Name the initiator asked for: in TLS, QUIC, HTTP, DNS; or empty.
    pub requested_server_name: String,
    /// JA4 of TLS, DTLS and QUIC, HASSH of SSH, option list of DHCP; or empty.
    pub client_fingerprint: String,
    /// JA3S of TLS and QUIC, HASSH of SSH; or empty.
    pub server_fingerprint: String,
    /// `User-Agent` of HTTP or QUIC; or empty.
    pub user_agent: String,
    /// `Content-Type` of the HTTP response; or empty.
    pub content_type: String,
    /// Of which kind nDPI's fingerprints are.
    pub fingerprints: Fingerprints,
    /// JA4 of the `ClientHello`; or empty.
    pub ja4: String,
    /// JA3 of the `ClientHello`; or empty.
    pub ja3: String,
    /// The application protocols in the `ClientHello`, with commas between; or empty.
    pub alpn: String,
    /// What else is known, if that was asked for.
    pub details: Option<Box<Details>>,
}

/// What nDPI's `client_fingerprint` and `server_fingerprint` are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fingerprints {
    /// There are none.
    #[default]
    None,
    /// JA4 of the client, JA3S of the server.
    Tls,
    /// HASSH of both.
    Ssh,
    /// The option list of the client.
    Dhcp,
}

/// What dissection says of a flow that ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The result; none if no packet was dissected.
    pub layer7: Option<Layer7>,
    /// A dissector died that had the flow, so that the result is partial or missing.
    pub is_lost: bool,
}

/// Where dissection runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Containment {
    /// In child processes without privileges.
    Child {
        /// The program that they run, which calls [`contained::child::run`] before all else.
        program: PathBuf,
        /// Whom they become, if started by root.
        user: User,
        /// Where the packets are kept that killed one.
        quarantine: Option<PathBuf>,
    },
    /// In this process, which a hostile packet may crash.
    InProcess,
}

/// Why nothing can be dissected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The library is not the one whose headers we were compiled with.
    #[error(
        "the nDPI that was loaded, {found}, is not the one flowmeter was built against ({detail}); \
         build flowmeter against it, or take it from the loader's path"
    )]
    Incompatible {
        /// The library's version.
        found: String,
        /// What differs.
        detail: String,
    },
    /// nDPI did not start.
    #[error("failed to initialise nDPI {0}")]
    Initialise(String),
    /// The licence cannot be given to C.
    #[error("the nDPI licence contains a NUL character")]
    Licence,
    /// A worker could not be started.
    #[error("failed to start a dissection thread")]
    Thread(#[source] std::io::Error),
    /// A child process could not be started.
    #[error("failed to start a dissection process; try `--dissector in-process`")]
    Process(#[source] std::io::Error),
    /// A child process says why it cannot dissect.
    #[error("the dissection process does not start: {0}")]
    Child(String),
    /// The folder for the quarantine.
    #[error("failed to create the quarantine folder")]
    Quarantine(#[source] std::io::Error),
    /// A child process is stopped, or takes too long.
    #[error("the dissection process does not answer")]
    Silent,
    /// A worker ended before it was ready.
    #[error("the dissector ended while starting")]
    Ended,
}

/// Version of the nDPI library in use; none in a build without it.
pub fn version() -> Option<String> {
    #[cfg(feature = "ndpi")]
    return Some(ndpi::version());
    #[cfg(not(feature = "ndpi"))]
    return None;
}
