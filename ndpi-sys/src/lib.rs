//! Raw declarations of a stable C shim over the installed nDPI (4.2 and later).
//!
//! `shim.c` hides what differs between nDPI's versions. Nothing here is safe to call without
//! reading its contract; `flowmeter::dissect::ndpi` is the one caller.
//!
//! The rules common to all of them: a module is used by one thread at a time, a flow only with the
//! module that saw its first packet, and no two modules are made or freed at the same time.
//!
//! nDPI asks the C library for local time, which reads `/etc/localtime` at the first use. A process
//! about to lose its file system sets `TZ=UTC0` and calls `tzset` before that; the shim does not,
//! as the environment is the process's own.

#![expect(unsafe_code, reason = "declarations of a C library")]

use std::ffi::{c_char, c_int, c_uint};
use std::marker::{PhantomData, PhantomPinned};

/// An nDPI detection module with its tables and caches; some 5 to 10 MiB.
#[repr(C)]
pub struct Module {
    _opaque: [u8; 0],
    _not_send: PhantomData<(*mut u8, PhantomPinned)>,
}

/// A flow under dissection.
#[repr(C)]
pub struct Flow {
    _opaque: [u8; 0],
    _not_send: PhantomData<(*mut u8, PhantomPinned)>,
}

/// What is known of a flow. Texts end with a NUL, are cut to fit, and are bytes off the wire: not
/// necessarily UTF-8.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FlowResult {
    /// `Master.App`, or the one that is known, or `Unknown`.
    pub application: [c_char; 128],
    /// Name of nDPI's category.
    pub category: [c_char; 64],
    /// TLS or QUIC server name, HTTP host, name asked of DNS, and so on.
    pub server_name: [c_char; 256],
    /// JA4 (from nDPI 4.12) for TLS and QUIC, HASSH for SSH, the options for DHCP.
    pub client_fingerprint: [c_char; 64],
    /// JA3S for TLS and QUIC, HASSH for SSH.
    pub server_fingerprint: [c_char; 64],
    /// `User-Agent` of HTTP, or of QUIC.
    pub user_agent: [c_char; 512],
    /// `Content-Type` of an HTTP response.
    pub content_type: [c_char; 128],
    /// nDPI 5.0's numbering: 0 unknown, 1 by port, 3 partial, 5 cached, 6 full dissection.
    pub confidence: u8,
    /// 1 if giving up guessed the application from addresses and ports.
    pub guessed: u8,
    /// Of which kind the fingerprints are: one of `FINGERPRINTS_…`, or 0.
    pub fingerprints: u8,
}

/// What else is known of a flow. Texts as above.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FlowDetails {
    /// The issuer of the server's certificate, as `C=.., CN=..`.
    pub issuer: [c_char; 512],
    /// Its subject.
    pub subject: [c_char; 512],
    /// Bit n: the risk that [`fm_risk_name`] names.
    pub risks: u64,
    /// The score of all risks.
    pub risk_score: u16,
    /// `0x0303` is TLS 1.2; 0 if unknown.
    pub tls_version: u16,
    /// IANA's number of the cipher suite; 0 if unknown.
    pub tls_cipher: u16,
}

/// JA4 and JA3S.
pub const FINGERPRINTS_TLS: u8 = 1;
/// HASSH of both.
pub const FINGERPRINTS_SSH: u8 = 2;
/// The client's options.
pub const FINGERPRINTS_DHCP: u8 = 3;

/// What the shim was compiled for, and what it runs with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// API version of the headers.
    pub header_api: u32,
    /// API version of the library.
    pub library_api: u32,
    /// Size of a flow in the headers, in bytes.
    pub header_flow_size: u32,
    /// Size of a flow in the library, in bytes.
    pub library_flow_size: u32,
}

unsafe extern "C" {
    /// The library's version: a static text ending with a NUL.
    pub safe fn fm_version() -> *const c_char;

    /// 1 if the running library has the layouts of the headers, else 0; fills `out` either way.
    ///
    /// Needed because two versions with different layouts share a soname. Every other function
    /// but `fm_version` is undefined behaviour if this returned 0.
    pub fn fm_agreement(out: *mut Agreement) -> c_int;

    /// `sizeof(struct fm_result)` as C sees it.
    pub safe fn fm_result_size() -> usize;

    /// `sizeof(struct fm_details)` as C sees it.
    pub safe fn fm_details_size() -> usize;

    /// A new module, or null. Takes tens of milliseconds; no two may run at the same time.
    ///
    /// `licence` may be null; only nDPI 6.0 and later look at it.
    pub fn fm_module_new(licence: *const c_char) -> *mut Module;

    /// Frees a module; null is allowed. Flows may outlive it but not be dissected any more.
    pub fn fm_module_free(module: *mut Module);

    /// A new flow, or null if memory ran out.
    pub safe fn fm_flow_new() -> *mut Flow;

    /// Frees a flow; null is allowed.
    pub fn fm_flow_free(flow: *mut Flow);

    /// Dissects `length` bytes of a packet, from its IP header on. The bytes are not kept.
    ///
    /// Headers must have been checked: nDPI 4.2 can be crashed by lengths that lie.
    pub fn fm_process(
        module: *mut Module,
        flow: *mut Flow,
        packet: *const u8,
        length: u16,
        time_ms: u64,
    );

    /// 1 if the application is not known.
    pub fn fm_unknown(flow: *const Flow) -> c_int;

    /// 1 if more packets would tell nothing new.
    pub fn fm_done(module: *mut Module, flow: *mut Flow) -> c_int;

    /// Ends the detection, guessing if need be. At most once a flow.
    pub fn fm_giveup(module: *mut Module, flow: *mut Flow);

    /// Tells the flow of a host's name that nDPI missed, `length` bytes. Its application is then
    /// the one nDPI knows the host by, if any. Nothing happens unless the flow is TLS, DTLS or
    /// QUIC and has no name.
    pub fn fm_name_host(module: *mut Module, flow: *mut Flow, host: *const c_char, length: usize);

    /// Fills `out` with what is known of the flow.
    pub fn fm_result(module: *mut Module, flow: *const Flow, out: *mut FlowResult);

    /// Fills `out` with what else is known of the flow.
    pub fn fm_details(flow: *const Flow, out: *mut FlowDetails);

    /// nDPI's name of a risk: a static text ending with a NUL, or null if it has none.
    pub safe fn fm_risk_name(risk: c_uint) -> *const c_char;

    /// IANA's name of a cipher suite: a static text ending with a NUL, or null if nDPI does not
    /// know it.
    pub safe fn fm_cipher_name(cipher: c_uint) -> *const c_char;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_result() {
        assert_eq!(size_of::<FlowResult>(), fm_result_size());
        assert_eq!(size_of::<FlowDetails>(), fm_details_size());
    }

    #[test]
    fn headers_and_library_agree() {
        let mut agreement = Agreement::default();
        // SAFETY: `agreement` is a live Agreement.
        let agree = unsafe { fm_agreement(&raw mut agreement) };
        assert_eq!(agree, 1, "{agreement:?}");
    }
}
