//! What is a flow, if nDPI is not built in?
//!
//! What stands for nDPI then: it knows the ports that servers listen on, and says that it guesses.
//! Its names and categories are nDPI 5.0's.

use super::flow::Inspection;
use super::headers::{self, Layers};
use super::{Details, Error, Layer7};

/// Makes the states of flows.
#[derive(Debug)]
pub struct Module {
    n_dissections: u32,
}

/// What is known of one flow so far.
#[derive(Debug, Default)]
pub struct FlowState {
    /// Of the first sound packet.
    first: Option<First>,
}

/// What a flow is guessed by.
#[derive(Clone, Copy, Debug)]
struct First {
    layers: Layers,
    /// Sender's and receiver's, if there are ports.
    ports: Option<[u16; 2]>,
}

/// nDPI's numbers for how sure a name is.
const BY_PORT: u8 = 1;
const DISSECTED: u8 = 6;

impl Module {
    /// A module that is done with a flow at its packet number `n_dissections`.
    pub fn new(n_dissections: u32) -> Result<Self, Error> {
        check()?;
        Ok(Self { n_dissections })
    }

    /// The packet of a flow at which it gives up.
    pub fn n_dissections(&self) -> u32 {
        self.n_dissections
    }

    /// State for a new flow.
    pub fn flow(&self) -> Option<FlowState> {
        Some(FlowState::default())
    }

    /// Looks at a packet of a flow: the `number`-th (from 1, counting both directions and those
    /// not shown to us), starting with its IP header.
    pub fn inspect(
        &mut self,
        flow: &mut FlowState,
        ip: &[u8],
        _time_ms: u64,
        number: u32,
    ) -> Inspection {
        let Some(sound) = headers::sound(ip) else { return Inspection::Refused };
        if flow.first.is_some_and(|first| first.layers != sound.layers) {
            return Inspection::Refused;
        }
        flow.first.get_or_insert_with(|| First { layers: sound.layers, ports: sound.ports() });
        if number >= self.n_dissections { Inspection::Settled } else { Inspection::Wanting }
    }

    /// The flow has ended: what was it?
    #[expect(clippy::needless_pass_by_value, reason = "it ends here")]
    pub fn finish(
        &mut self,
        flow: FlowState,
        _host: Option<&str>,
        _details: Option<&mut Details>,
    ) -> Layer7 {
        let protocol = flow.first.map(|first| first.layers.transport);
        let named = protocol.and_then(by_protocol).map(|name| (name, DISSECTED));
        let guessed = || {
            let First { layers, ports } = flow.first?;
            // The receiver of the first packet is the server, more often than not.
            let [src, dst] = ports?;
            let by_port = |port| by_port(layers.transport, port);
            by_port(dst).or_else(|| by_port(src)).map(|name| (name, BY_PORT))
        };
        let (name, confidence) = named.or_else(guessed).unwrap_or((UNKNOWN, 0));
        Layer7 {
            application_name: name.0.to_owned(),
            application_category_name: name.1.to_owned(),
            application_is_guessed: confidence == BY_PORT,
            application_confidence: confidence,
            ..Layer7::default()
        }
    }
}

/// There is no library that might not fit.
pub fn check() -> Result<(), Error> {
    Ok(())
}

/// A name and its category.
type Name = (&'static str, &'static str);

const UNKNOWN: Name = ("Unknown", "Unspecified");

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What its IP protocol says.
fn by_protocol(protocol: u8) -> Option<Name> {
    Some(match protocol {
        1 => ("ICMP", "Network"),
        2 => ("IGMP", "Network"),
        4 => ("IP_in_IP", "Network"),
        8 => ("EGP", "Network"),
        47 => ("GRE", "Network"),
        50 | 51 => ("IPSec", "VPN"),
        58 => ("ICMPV6", "Network"),
        89 => ("OSPF", "Network"),
        112 => ("VRRP", "Network"),
        132 => ("SCTP", "Network"),
        _ => return None,
    })
}

/// What listens on a port, by nDPI's table.
fn by_port(protocol: u8, port: u16) -> Option<Name> {
    Some(match (protocol, port) {
        (TCP, 20) => ("FTP_DATA", "Download"),
        (TCP, 21) => ("FTP_CONTROL", "Download"),
        (TCP, 22) => ("SSH", "RemoteAccess"),
        (TCP, 23) => ("Telnet", "RemoteAccess"),
        (TCP, 25 | 587) => ("SMTP", "Email"),
        (TCP, 43) => ("Whois-DAS", "Network"),
        (TCP | UDP, 53) => ("DNS", "Network"),
        (UDP, 67 | 68) => ("DHCP", "Network"),
        (UDP, 69) => ("TFTP", "DataTransfer"),
        (TCP, 80) => ("HTTP", "Web"),
        (TCP | UDP, 88) => ("Kerberos", "Network"),
        (TCP, 110) => ("POP3", "Email"),
        (UDP, 123) => ("NTP", "System"),
        (TCP | UDP, 135) => ("DCERPC", "RPC"),
        (UDP, 137..=139) | (TCP, 139) => ("NetBIOS", "System"),
        (TCP, 143) => ("IMAP", "Email"),
        (UDP, 161 | 162) => ("SNMP", "Network"),
        (TCP, 179) => ("BGP", "Network"),
        (TCP | UDP, 389) => ("LDAP", "System"),
        (TCP, 443) => ("TLS", "Web"),
        (UDP, 443) => ("QUIC", "Web"),
        (TCP, 445) => ("SMBv23", "System"),
        (TCP, 465) => ("SMTPS", "Email"),
        (UDP, 500 | 4500) => ("IPSec", "VPN"),
        (TCP, 502) => ("Modbus", "IoT-Scada"),
        (TCP | UDP, 514) => ("Syslog", "System"),
        (TCP | UDP, 554) => ("RTSP", "Media"),
        (TCP | UDP, 853) => ("DoH_DoT", "Network"),
        (TCP, 873) => ("RSYNC", "DataTransfer"),
        (TCP, 993) => ("IMAPS", "Email"),
        (TCP, 995) => ("POPS", "Email"),
        (TCP | UDP, 1080) => ("SOCKS", "Web"),
        (TCP | UDP, 1194) => ("OpenVPN", "VPN"),
        (TCP, 1433 | 1434) => ("MsSQL-TDS", "Database"),
        (TCP, 1521) => ("Oracle", "Database"),
        (TCP | UDP, 1812 | 1813) => ("Radius", "Network"),
        (TCP, 1883 | 8883) => ("MQTT", "RPC"),
        (UDP, 1900) => ("SSDP", "System"),
        (TCP | UDP, 2049) => ("NFS", "DataTransfer"),
        (UDP, 2055) => ("NetFlow", "Network"),
        (TCP, 3128) => ("HTTP_Proxy", "Web"),
        (TCP, 3306) => ("MySQL", "Database"),
        (TCP | UDP, 3389) => ("RDP", "RemoteAccess"),
        (UDP, 3478) => ("STUN", "Network"),
        (UDP, 4789) => ("VXLAN", "Network"),
        (TCP | UDP, 5060 | 5061) => ("SIP", "VoIP"),
        (UDP, 5353 | 5354) => ("MDNS", "Network"),
        (TCP | UDP, 5355) => ("LLMNR", "Network"),
        (TCP, 5432) => ("PostgreSQL", "Database"),
        (UDP, 5683 | 5684) => ("COAP", "RPC"),
        (TCP, 5800 | 5900 | 5901) => ("VNC", "RemoteAccess"),
        (UDP, 6343) => ("sFlow", "Network"),
        (TCP, 6379) => ("RESP", "Database"),
        (TCP, 9042) => ("Cassandra", "Database"),
        (TCP, 9092) => ("Kafka", "RPC"),
        (TCP, 9418) => ("Git", "Collaborative"),
        (TCP | UDP, 11211) => ("Memcached", "Network"),
        (TCP, 27017) => ("MongoDB", "Database"),
        (UDP, 51820) => ("WireGuard", "VPN"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{Inspection, Module};
    use crate::dissect::Layer7;
    use crate::dissect::samples::{Packet, dns_query, http_ack};

    fn verdict(packet: &[u8]) -> Layer7 {
        let mut module = Module::new(20).expect("it needs nothing");
        let mut flow = module.flow().expect("it needs nothing");
        assert_eq!(module.inspect(&mut flow, packet, 1, 1), Inspection::Wanting);
        module.finish(flow, None, None)
    }

    #[test]
    fn a_port_gives_a_guess_and_a_protocol_a_name() {
        let got = verdict(&dns_query());
        assert_eq!(got.application_name, "DNS");
        assert_eq!(got.application_category_name, "Network");
        assert!(got.application_is_guessed);
        assert_eq!(got.application_confidence, 1);

        let got = verdict(&Packet::ip(1, &[8, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(got.application_name, "ICMP");
        assert!(!got.application_is_guessed);
        assert_eq!(got.application_confidence, 6);
    }

    #[test]
    fn an_answer_that_comes_first_is_guessed_by_its_sender() {
        assert_eq!(verdict(&http_ack()).application_name, "HTTP");
    }

    #[test]
    fn other_ports_are_unknown() {
        let got = verdict(&Packet::udp_to(40_001, b"what?"));
        assert_eq!(got.application_name, "Unknown");
        assert_eq!(got.application_category_name, "Unspecified");
        assert_eq!((got.application_is_guessed, got.application_confidence), (false, 0));
    }

    #[test]
    fn garbage_is_refused() {
        let mut module = Module::new(2).expect("it needs nothing");
        let mut flow = module.flow().expect("it needs nothing");
        assert_eq!(module.inspect(&mut flow, &[0x45], 1, 1), Inspection::Refused);
        assert_eq!(module.inspect(&mut flow, &dns_query(), 1, 2), Inspection::Settled);
    }
}
