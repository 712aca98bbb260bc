//! What does nDPI say about a flow?
//!
//! The one file that calls the C library. It checks headers before nDPI sees them, and keeps
//! `NFStream`'s rules on when a flow is looked at and when to give up on it.

#![expect(unsafe_code, reason = "nDPI is a C library")]

use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ndpi_sys as sys;

use super::flow::Inspection;
use super::headers::{self, Layers, Sound};
use super::{Details, Error, Fingerprints, Layer7};

/// nDPI's tables and caches. Has some 5 MiB and takes some 30 ms to make.
///
/// Neither `Send` nor `Sync`: it lives and dies in one thread, and so do its flows.
#[derive(Debug)]
pub struct Module {
    handle: NonNull<sys::Module>,
    n_dissections: u32,
}

/// What nDPI knows of one flow so far.
#[derive(Debug)]
pub struct FlowState {
    handle: NonNull<sys::Flow>,
    /// Of the first packet nDPI saw. It keeps TCP's and UDP's state in one union, so that a flow
    /// must not change over: 4.2 crashes.
    layers: Option<Layers>,
    completed: bool,
}

impl Module {
    /// A module that gives up on a flow at its packet number `n_dissections`.
    ///
    /// Waits for its turn, as two modules must not be made at the same time.
    pub fn new(n_dissections: u32) -> Result<Self, Error> {
        Self::with_licence(n_dissections, None)
    }

    /// As [`Module::new`], with the licence nDPI asks for from version 6.0 on.
    pub fn with_licence(n_dissections: u32, licence: Option<&str>) -> Result<Self, Error> {
        check()?;
        let licence = licence.map(CString::new).transpose().map_err(|_| Error::Licence)?;
        let licence = licence.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        let turn = turn();
        // SAFETY: check() found the layouts to agree, `turn` keeps others from making a module,
        // and `licence` is null or a text that lives until the end of this function.
        let handle = unsafe { sys::fm_module_new(licence) };
        drop(turn);
        let handle = NonNull::new(handle).ok_or_else(|| Error::Initialise(version()))?;
        Ok(Self { handle, n_dissections })
    }

    /// The packet of a flow at which it gives up.
    pub fn n_dissections(&self) -> u32 {
        self.n_dissections
    }

    /// State for a new flow, to be used with this module only; none if memory ran out.
    ///
    /// Made by a module, because making one checks the library first.
    pub fn flow(&self) -> Option<FlowState> {
        NonNull::new(sys::fm_flow_new()).map(|handle| FlowState {
            handle,
            layers: None,
            completed: false,
        })
    }

    /// Looks at a packet of a flow: the `number`-th (from 1, counting both directions and those
    /// not shown to us), starting with its IP header, seen at `time_ms`.
    pub fn inspect(
        &mut self,
        flow: &mut FlowState,
        ip: &[u8],
        time_ms: u64,
        number: u32,
    ) -> Inspection {
        if flow.completed {
            return Inspection::Settled;
        }
        // Packet n_dissections was not shown to us: it would have been the last.
        if number > self.n_dissections && flow.layers.is_some() {
            self.complete(flow);
            return Inspection::Settled;
        }
        let sound = headers::sound(ip)
            .filter(|sound| flow.layers.is_none_or(|layers| layers == sound.layers));
        if let Some(sound) = &sound {
            flow.layers = Some(sound.layers);
            self.show(flow, sound, time_ms);
        }
        if number >= self.n_dissections && !flow.completed {
            self.complete(flow);
        }
        match (sound, flow.completed) {
            (None, _) => Inspection::Refused,
            (Some(_), true) => Inspection::Settled,
            (Some(_), false) => Inspection::Wanting,
        }
    }

    fn show(&mut self, flow: &mut FlowState, packet: &Sound, time_ms: u64) {
        let (module, handle) = (self.handle.as_ptr(), flow.handle.as_ptr());
        let Sound { bytes, length, .. } = packet;
        // SAFETY: both handles live as long as their owners, which are borrowed mutably;
        // `bytes` has `length` bytes, and headers that headers::sound found to fit them.
        unsafe { sys::fm_process(module, handle, bytes.as_ptr(), *length, time_ms) };
        // SAFETY: as above.
        flow.completed = unsafe { sys::fm_done(module, handle) } != 0;
    }

    /// The flow has ended: what was it? Gives up on it now if that was not done before.
    ///
    /// A flow whose packets were all refused is `Unknown`. `host` is the server's name in its
    /// `ClientHello`, which tells the application if nDPI missed it.
    /// Adds to `details` what nDPI knows of them.
    pub fn finish(
        &mut self,
        mut flow: FlowState,
        host: Option<&str>,
        details: Option<&mut Details>,
    ) -> Layer7 {
        if !flow.completed {
            self.complete(&mut flow);
        }
        if let Some(host) = host {
            let (module, handle) = (self.handle.as_ptr(), flow.handle.as_ptr());
            // SAFETY: both handles live as long as their owners, which are borrowed mutably; the
            // text has as many bytes.
            unsafe { sys::fm_name_host(module, handle, host.as_ptr().cast(), host.len()) };
        }
        if let Some(details) = details {
            flow.add_to(details);
        }
        let mut result = MaybeUninit::<sys::FlowResult>::uninit();
        // SAFETY: both handles live as long as their owners, and `result` is of the size C
        // expects, which a test of ndpi_sys compares.
        unsafe {
            sys::fm_result(self.handle.as_ptr(), flow.handle.as_ptr(), result.as_mut_ptr());
        };
        // SAFETY: fm_result fills all of it, starting with zeroes.
        let result = unsafe { result.assume_init_ref() };
        Layer7 {
            application_name: text(&result.application),
            application_category_name: text(&result.category),
            application_is_guessed: result.guessed != 0,
            application_confidence: result.confidence,
            requested_server_name: text(&result.server_name),
            client_fingerprint: text(&result.client_fingerprint),
            server_fingerprint: text(&result.server_fingerprint),
            user_agent: text(&result.user_agent),
            content_type: text(&result.content_type),
            fingerprints: match result.fingerprints {
                sys::FINGERPRINTS_TLS => Fingerprints::Tls,
                sys::FINGERPRINTS_SSH => Fingerprints::Ssh,
                sys::FINGERPRINTS_DHCP => Fingerprints::Dhcp,
                _ => Fingerprints::None,
            },
            ..Layer7::default()
        }
    }

    /// Settles a flow as it is, after a guess if its application is unknown.
    fn complete(&mut self, flow: &mut FlowState) {
        flow.completed = true;
        // SAFETY: the flow's handle lives as long as `flow`.
        let unknown = unsafe { sys::fm_unknown(flow.handle.as_ptr()) } != 0;
        // Without a packet nDPI has no addresses to guess from.
        if unknown && flow.layers.is_some() {
            // SAFETY: both handles live as long as their owners, which are borrowed mutably, and
            // `completed` keeps this from being done twice.
            unsafe { sys::fm_giveup(self.handle.as_ptr(), flow.handle.as_ptr()) };
        }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _turn = turn();
        // SAFETY: the handle came from fm_module_new and is not used after this.
        unsafe { sys::fm_module_free(self.handle.as_ptr()) };
    }
}

impl Drop for FlowState {
    fn drop(&mut self) {
        // SAFETY: the handle came from fm_flow_new and is not used after this.
        unsafe { sys::fm_flow_free(self.handle.as_ptr()) };
    }
}

impl FlowState {
    fn add_to(&self, details: &mut Details) {
        let mut known = MaybeUninit::<sys::FlowDetails>::uninit();
        // SAFETY: the handle lives as long as `self`, and `known` is of the size C expects, which
        // a test of ndpi_sys compares.
        unsafe { sys::fm_details(self.handle.as_ptr(), known.as_mut_ptr()) };
        // SAFETY: fm_details fills all of it, starting with zeroes.
        let known = unsafe { known.assume_init_ref() };
        let risks = (0..u64::BITS).filter(|risk| known.risks >> risk & 1 == 1);
        details.risks = risks.map(|risk| named(sys::fm_risk_name(risk), risk)).collect();
        details.risk_score = known.risk_score;
        if known.tls_version != 0 {
            details.tls_version = tls_version(known.tls_version);
        }
        if known.tls_cipher != 0 {
            let cipher = u32::from(known.tls_cipher);
            details.tls_cipher = named(sys::fm_cipher_name(cipher), cipher);
        }
        details.tls_issuer_cn = common_name(&text(&known.issuer));
        details.tls_subject_cn = common_name(&text(&known.subject));
    }
}

/// A static text of C, or the number it should have named.
fn named(name: *const c_char, number: u32) -> String {
    if name.is_null() {
        return number.to_string();
    }
    // SAFETY: not null, and static as the functions that give names promise.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

/// A version as it is on the wire (RFC 8446, section 4.1.2; RFC 9147, section 5.3).
fn tls_version(number: u16) -> String {
    match number {
        0x0002 => "SSLv2".into(),
        0x0300 => "SSLv3".into(),
        0x0301..=0x0304 => format!("TLSv1.{}", number - 0x0301),
        0xfeff => "DTLSv1.0".into(),
        0xfefd => "DTLSv1.2".into(),
        0xfefc => "DTLSv1.3".into(),
        _ => format!("{number:#06x}"),
    }
}

/// The value of `CN` in a name as nDPI writes it: `C=US, O=Example, CN=example.org`.
fn common_name(name: &str) -> String {
    name.split(", ").find_map(|part| part.strip_prefix("CN=")).unwrap_or_default().to_owned()
}

/// The right to make or free a module.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Version of the library in use.
pub fn version() -> String {
    let version = sys::fm_version();
    // SAFETY: fm_version returns a static text that ends with a NUL.
    let version = unsafe { CStr::from_ptr(version) };
    version.to_string_lossy().into_owned()
}

/// Is the library the one we were compiled for? Versions with different layouts share a soname,
/// and so the loader does not tell.
pub fn check() -> Result<(), Error> {
    let mut agreement = sys::Agreement::default();
    // SAFETY: `agreement` is a live Agreement.
    if unsafe { sys::fm_agreement(&raw mut agreement) } != 0 {
        return Ok(());
    }
    Err(Error::Incompatible {
        found: version(),
        detail: format!(
            "API {}, built for {}; flow of {} bytes, built for {}",
            agreement.library_api,
            agreement.header_api,
            agreement.library_flow_size,
            agreement.header_flow_size
        ),
    })
}

/// The text up to its NUL. What is not UTF-8 on the wire is replaced.
fn text(chars: &[c_char]) -> String {
    let bytes: Vec<u8> =
        chars.iter().take_while(|&&char| char != 0).map(|&char| char as u8).collect();
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::{Fingerprints, FlowState, Inspection, Layer7, Module};
    use crate::dissect::samples::{
        Packet, dns_query, dns_response, http_ack, http_get, http_response, ssh_handshake,
        tls_client_hello,
    };

    /// Neither may change threads. Compiles only as long as they are not `Send`: one that were
    /// would have both implementations, and `_` could be either.
    #[test]
    fn modules_and_flows_stay_in_their_thread() {
        trait Sends<Which> {
            fn decide() {}
        }
        impl<T> Sends<()> for T {}
        impl<T: Send> Sends<u8> for T {}
        <Module as Sends<_>>::decide();
        <FlowState as Sends<_>>::decide();
    }

    fn module(n_dissections: u32) -> Module {
        Module::new(n_dissections).expect("nDPI is installed")
    }

    fn flow(module: &Module) -> FlowState {
        module.flow().expect("memory for a flow")
    }

    /// The verdict on a flow of these packets, one per millisecond.
    fn verdict(packets: &[Vec<u8>]) -> Layer7 {
        let mut module = module(20);
        let mut flow = flow(&module);
        for (packet, number) in packets.iter().zip(1..) {
            let got = module.inspect(&mut flow, packet, u64::from(number), number);
            assert_ne!(got, Inspection::Refused, "packet {number}");
        }
        module.finish(flow, None, None)
    }

    #[test]
    fn a_client_hello_is_tls_with_its_name() {
        let got = verdict(&[tls_client_hello()]);
        assert_eq!(got.application_name, "TLS");
        assert_eq!(got.requested_server_name, "www.example.org");
        assert_eq!(got.application_confidence, 6);
        assert!(!got.application_is_guessed);
        assert_eq!(got.fingerprints, Fingerprints::Tls);
    }

    #[test]
    fn a_query_is_dns_with_its_name() {
        for packets in [vec![dns_query()], vec![dns_query(), dns_response()]] {
            assert_eq!(
                verdict(&packets),
                Layer7 {
                    application_name: "DNS".into(),
                    application_category_name: "Network".into(),
                    application_confidence: 6,
                    requested_server_name: "www.example.org".into(),
                    ..Layer7::default()
                }
            );
        }
    }

    #[test]
    fn a_request_is_http_with_its_agent_and_the_type_of_the_answer() {
        let got = verdict(&[http_get(), http_ack(), http_response()]);
        assert_eq!(got.application_name, "HTTP");
        assert_eq!(got.application_category_name, "Web");
        assert_eq!(got.requested_server_name, "www.example.org");
        assert_eq!(got.user_agent, "tester/1.0");
        assert_eq!(got.content_type, "text/html");
    }

    #[test]
    fn a_handshake_is_ssh_with_both_fingerprints() {
        let got = verdict(&ssh_handshake());
        assert_eq!(
            got,
            Layer7 {
                application_name: "SSH".into(),
                application_category_name: "RemoteAccess".into(),
                application_confidence: 6,
                client_fingerprint: "E97D07603350D1111EC2B64BF25413C9".into(),
                server_fingerprint: "3B170ADC1F55E8746AA1BC8D32E38F6B".into(),
                fingerprints: Fingerprints::Ssh,
                ..Layer7::default()
            }
        );
    }

    #[test]
    fn an_unknown_flow_is_guessed_at_its_limit_or_its_end() {
        let opaque = |byte| Packet::tcp_to(443, &[byte; 64]);
        let mut module = module(2);
        let mut limited = flow(&module);
        let mut ended = flow(&module);
        assert_eq!(module.inspect(&mut limited, &opaque(0xee), 1, 1), Inspection::Wanting);
        assert_eq!(module.inspect(&mut limited, &opaque(0xed), 2, 2), Inspection::Settled);
        module.inspect(&mut ended, &opaque(0xee), 3, 1);
        for flow in [limited, ended] {
            let got = module.finish(flow, None, None);
            assert!(got.application_is_guessed, "{got:?}");
            assert_eq!(got.application_name, "TLS");
            assert_eq!(got.application_confidence, 1);
        }
    }

    #[test]
    fn names_and_versions_are_read() {
        assert_eq!(super::common_name("C=US, ST=California, CN=*.example.org"), "*.example.org");
        assert_eq!(super::common_name("O=Example"), "");
        let versions = [0x0303, 0x0304, 0xfefd, 0x7f1c].map(super::tls_version);
        assert_eq!(versions, ["TLSv1.2", "TLSv1.3", "DTLSv1.2", "0x7f1c"]);
    }

    #[test]
    fn garbage_is_refused_and_unknown() {
        let mut module = module(20);
        let mut flow = flow(&module);
        let hello = tls_client_hello();
        for packet in [&[][..], &[0x45], &[0xff; 64], &hello[..hello.len() - 1]] {
            assert_eq!(module.inspect(&mut flow, packet, 1, 1), Inspection::Refused);
        }
        let got = module.finish(flow, None, None);
        assert_eq!(got.application_name, "Unknown");
        assert_eq!(got.application_category_name, "Unspecified");
        assert_eq!(got.application_confidence, 0);
    }

    /// nDPI 4.2 crashed on mixed packets: it keeps TCP's and UDP's state in one union.
    #[test]
    fn a_flow_keeps_its_transport() {
        let mut module = module(20);
        let mut flow = flow(&module);
        let opaque = Packet::tcp_to(1234, &[0xee; 64]);
        assert_eq!(module.inspect(&mut flow, &opaque, 1, 1), Inspection::Wanting);
        assert_eq!(module.inspect(&mut flow, &dns_query(), 2, 2), Inspection::Refused);
        assert_eq!(module.inspect(&mut flow, &Packet::udp6(b"payload"), 3, 3), Inspection::Refused);
        assert_eq!(module.inspect(&mut flow, &opaque, 4, 4), Inspection::Wanting);
    }

    /// Not proof of anything, but a header check that vanished would show here.
    #[test]
    fn mutated_packets_do_not_crash() {
        let seeds = [tls_client_hello(), dns_query(), http_get(), Packet::udp6(b"payload")];
        let mut module = module(20);
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: usize| {
            // Xorshift: the same packets in every run.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        for _ in 0..2000 {
            let mut flow = flow(&module);
            for number in 1..=4 {
                let mut packet = seeds[next(seeds.len())].clone();
                for _ in 0..=next(4) {
                    let at = next(packet.len());
                    packet[at] = next(256) as u8;
                }
                if next(4) == 0 {
                    packet.truncate(next(packet.len()));
                }
                module.inspect(&mut flow, &packet, u64::from(number), number);
            }
            module.finish(flow, None, None);
        }
    }
}
