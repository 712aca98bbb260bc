//! Which application is a flow, seen from its packets?
//!
//! nDPI looks at the first packets of every flow, and so does a reader of the `ClientHello` of our
//! own, which is there without the `ndpi` feature too.

pub mod flow;
mod headers;
pub mod hello;
#[cfg(feature = "ndpi")]
pub mod ndpi;
#[cfg(not(feature = "ndpi"))]
#[path = "no_ndpi.rs"]
pub mod ndpi;
pub mod pool;
#[cfg(test)]
mod samples;
mod ssdp;

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

/// Why nothing can be dissected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library is not the one whose headers we were compiled with.
    #[error(
        "the installed nDPI {found} is not the one flowmeter was built with ({detail}); \
         rebuild flowmeter, or reinstall libndpi"
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
    /// A worker ended before it was ready.
    #[error("a dissection thread ended while starting")]
    Ended,
}

/// True if this build dissects, and the library is the one it was built with.
pub fn available() -> bool {
    #[cfg(feature = "ndpi")]
    return ndpi::check().is_ok();
    #[cfg(not(feature = "ndpi"))]
    return false;
}

/// Version of the nDPI library in use; none in a build without it.
pub fn version() -> Option<String> {
    #[cfg(feature = "ndpi")]
    return Some(ndpi::version());
    #[cfg(not(feature = "ndpi"))]
    return None;
}
