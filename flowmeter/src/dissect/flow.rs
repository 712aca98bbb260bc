//! What looks at a flow's packets?
//!
//! nDPI, and our own readers of what some of its versions miss: the `ClientHello`, and SSDP's host.
//! All see the same packets and give one verdict.

use super::headers::{self, Transport};
use super::hello::{Fingerprint, Hello};
use super::ndpi::{FlowState, Module};
use super::{Fingerprints, Layer7, details, ssdp};

/// Bytes of a server's name that are kept: as many as DNS allows.
pub const MAX_NAME: usize = 255;
/// Bytes of the names of application protocols that are kept.
pub const MAX_ALPN: usize = 1024;

/// nDPI's numbers for how sure a name is, see [`Layer7::application_confidence`].
const UNKNOWN: u8 = 0;
const DISSECTED: u8 = 6;

/// All that is known of a flow under dissection.
#[derive(Debug)]
pub struct Flow {
    ndpi: FlowState,
    hello: Hello,
    /// Of SSDP.
    host: Option<Box<str>>,
    /// What else is asked for.
    details: Option<Box<details::Reader>>,
    is_settled: bool,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// It was seen, and the next one is wanted.
    Wanting,
    /// The flow is settled, with this packet or before: further ones are not looked at.
    Settled,
    /// Its headers lie about its length, or are not of this flow; nDPI did not see it.
    Refused,
}

impl Flow {
    /// A new flow, to be used with this module only; none if memory ran out.
    /// With `wants_details` its verdict has [`Layer7::details`].
    pub fn new(module: &Module, wants_details: bool) -> Option<Self> {
        Some(Self {
            ndpi: module.flow()?,
            hello: Hello::default(),
            host: None,
            details: wants_details.then(Box::default),
            is_settled: false,
        })
    }

    /// Looks at a packet: the `number`-th (from 1, counting both directions and those not shown to
    /// us), starting with its IP header, seen at `time_ms`.
    pub fn inspect(
        &mut self,
        module: &mut Module,
        ip: &[u8],
        time_ms: u64,
        number: u32,
    ) -> Inspection {
        if self.is_settled {
            return Inspection::Settled;
        }
        let is_last = number >= module.n_dissections();
        if number <= module.n_dissections() {
            self.read(ip);
        }
        let seen = module.inspect(&mut self.ndpi, ip, time_ms, number);
        // nDPI has all it wants, perhaps in the midst of a `ClientHello`.
        if seen == Inspection::Settled && self.hello.is_waiting() && !is_last {
            return Inspection::Wanting;
        }
        self.is_settled = seen == Inspection::Settled;
        seen
    }

    /// What we read ourselves.
    fn read(&mut self, ip: &[u8]) {
        let Some(sound) = headers::sound(ip) else { return };
        let Some(transport) = sound.transport() else { return };
        self.hello.transport(sound.source(), &transport);
        if let Some(details) = &mut self.details {
            details.packet(&sound, &transport);
        }
        if let Transport::Udp { payload, .. } = transport
            && self.host.is_none()
        {
            self.host = ssdp::host(payload).map(Into::into);
        }
    }

    /// The flow has ended: what was it?
    pub fn finish(self, module: &mut Module) -> Layer7 {
        let fingerprint = self.hello.finish();
        let sni = fingerprint.as_ref().and_then(|fingerprint| fingerprint.sni.as_deref());
        let mut details = self.details.map(|reader| Box::new(reader.finish()));
        let mut layer7 = module.finish(self.ndpi, sni, details.as_deref_mut());
        layer7.details = details;
        // Names of hosts have no case; nDPI writes them in lower case. Between 4.4 and 5.0 it adds
        // the port.
        if let Some(host) = self.host {
            layer7.requested_server_name = cut(host.to_lowercase(), MAX_NAME);
        }
        if let Some(fingerprint) = fingerprint {
            add(&mut layer7, fingerprint);
        }
        layer7
    }
}

/// Adds what the `ClientHello` tells. nDPI's name of the server has precedence: it knows more
/// protocols, and a proxy is asked for a name before TLS starts. Its name of the application has
/// it unless it is a guess.
fn add(layer7: &mut Layer7, fingerprint: Fingerprint) {
    let Fingerprint { carrier, ja4, ja3, sni, alpn } = fingerprint;
    if layer7.application_is_guessed || layer7.application_confidence == UNKNOWN {
        carrier.name().clone_into(&mut layer7.application_name);
        "Web".clone_into(&mut layer7.application_category_name);
        layer7.application_is_guessed = false;
        layer7.application_confidence = DISSECTED;
    }
    if layer7.requested_server_name.is_empty() {
        layer7.requested_server_name = cut(sni.unwrap_or_default().to_lowercase(), MAX_NAME);
    }
    if matches!(layer7.fingerprints, Fingerprints::None | Fingerprints::Tls) {
        layer7.client_fingerprint.clone_from(&ja4);
    }
    layer7.ja4 = ja4;
    layer7.ja3 = ja3;
    layer7.alpn = cut(alpn, MAX_ALPN);
}

/// At most this many bytes of a text that anybody may have sent.
pub(super) fn cut(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}

#[cfg(test)]
mod tests {
    use super::{Flow, Inspection};
    use crate::dissect::Layer7;
    use crate::dissect::ndpi::Module;
    use crate::dissect::samples::{Packet, dns_query, tls_client_hello};

    fn module() -> Module {
        Module::new(20).expect("nDPI starts, if it is built in")
    }

    fn verdict(packets: &[Vec<u8>]) -> Layer7 {
        let mut module = module();
        let mut flow = Flow::new(&module, false).expect("memory for a flow");
        for (packet, number) in packets.iter().zip(1..) {
            flow.inspect(&mut module, packet, u64::from(number), number);
        }
        flow.finish(&mut module)
    }

    #[test]
    fn a_client_hello_fills_the_columns_whatever_ndpi_is_there() {
        let got = verdict(&[tls_client_hello()]);
        assert_eq!(got.application_name, "TLS");
        assert_eq!(got.requested_server_name, "www.example.org");
        assert_eq!(got.ja4, "t12d020300_c1929292aa6b_33a13ba74d1c");
        assert_eq!(got.client_fingerprint, got.ja4);
        // MD5 of `771,4865-49199,0-10-11,29-23,0`.
        assert_eq!(got.ja3, "bca193bf3b6d2156cfbe0e6b4b306d3e");
        assert_eq!(got.alpn, "");
    }

    #[test]
    fn a_client_hello_in_two_segments_is_one() {
        let whole = tls_client_hello();
        let payload = &whole[40..];
        let expected = verdict(std::slice::from_ref(&whole));
        for at in 1..payload.len() {
            let first = Packet::tcp_to(443, &payload[..at]);
            let second = Packet::at(Packet::tcp_to(443, &payload[at..]), at);
            let got = verdict(&[first, second]);
            assert_eq!((&got.ja4, &got.ja3), (&expected.ja4, &expected.ja3), "cut at {at}");
            assert_eq!(got.requested_server_name, "www.example.org", "cut at {at}");
        }
    }

    #[test]
    fn the_host_of_ssdp_is_told_whatever_ndpi_is_there() {
        let search =
            b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\n\
                       MX: 1\r\nST: ssdp:all\r\n\r\n";
        let got = verdict(&[Packet::udp_to(1900, search)]);
        assert_eq!(got.requested_server_name, "239.255.255.250");
    }

    #[test]
    fn other_flows_have_none() {
        let got = verdict(&[dns_query()]);
        assert_eq!((got.ja4, got.ja3, got.alpn), Default::default());
    }

    #[test]
    fn a_settled_flow_stays_settled() {
        let mut module = Module::new(1).expect("nDPI starts, if it is built in");
        let mut flow = Flow::new(&module, false).expect("memory for a flow");
        flow.inspect(&mut module, &dns_query(), 1, 1);
        assert_eq!(flow.inspect(&mut module, &tls_client_hello(), 2, 2), Inspection::Settled);
        assert_eq!(flow.finish(&mut module).ja4, "");
    }
}
