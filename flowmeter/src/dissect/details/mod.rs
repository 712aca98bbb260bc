//! What do a flow's first packets say in the clear?
//!
//! DNS, HTTP and SSH are read here, whatever nDPI is installed; what is known of TLS and of risks is
//! nDPI's. Only done when asked for.

mod dns;
mod http;
mod ssh;

use super::headers::{Sound, Transport};

/// What the columns of the group `l7-extended` tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// nDPI's names of what is wrong with the flow.
    pub risks: Vec<String>,
    /// nDPI's score of these.
    pub risk_score: u16,
    /// The version agreed upon, as `TLSv1.2`; or empty.
    pub tls_version: String,
    /// The cipher suite agreed upon, by its IANA name; or empty.
    pub tls_cipher: String,
    /// Common name of the issuer of the server's certificate; or empty.
    pub tls_issuer_cn: String,
    /// Common name of the subject of the server's certificate; or empty.
    pub tls_subject_cn: String,
    /// The first question's name; or empty.
    pub dns_query: String,
    /// The first question's type, as `AAAA`; or empty.
    pub dns_query_type: String,
    /// The first response's code, as `NXDOMAIN`; or empty.
    pub dns_rcode: String,
    /// The addresses in the first response, at most [`MAX_ADDRESSES`].
    pub dns_addresses: Vec<String>,
    /// The first request's method; or empty.
    pub http_method: String,
    /// The first request's host and target; or empty.
    pub http_url: String,
    /// The first response's status; 0 if there was none.
    pub http_status: u16,
    /// The client's identification string; or empty.
    pub ssh_client_banner: String,
    /// The server's identification string; or empty.
    pub ssh_server_banner: String,
}

/// At most this many bytes of a text.
pub const MAX_TEXT: usize = 1024;
/// At most this many addresses of a DNS response.
pub const MAX_ADDRESSES: usize = 16;

/// Reads the details from a flow's packets.
#[derive(Debug, Default)]
pub struct Reader {
    /// Who sent the first packet: address and port.
    client: Option<([u8; 16], u16)>,
    told: Details,
}

impl Reader {
    /// Looks at the next packet of the flow.
    pub(super) fn packet(&mut self, sound: &Sound, transport: &Transport) {
        let Some(ports) = sound.ports() else { return };
        let source = (sound.source(), ports[0]);
        let is_client = *self.client.get_or_insert(source) == source;
        match *transport {
            Transport::Udp { payload, .. } if dns::has_port(ports) => {
                dns::read(payload, &mut self.told);
            }
            // Over TCP a length comes first (RFC 1035, section 4.2.2).
            Transport::Tcp { payload: [_, _, message @ ..], .. } if ports.contains(&dns::PORT) => {
                dns::read(message, &mut self.told);
            }
            Transport::Tcp { payload, .. } if !payload.is_empty() => {
                if let Some(banner) = ssh::banner(payload) {
                    let Details { ssh_client_banner, ssh_server_banner, .. } = &mut self.told;
                    let place = if is_client { ssh_client_banner } else { ssh_server_banner };
                    if place.is_empty() {
                        *place = banner;
                    }
                } else {
                    http::read(payload, &mut self.told);
                }
            }
            _ => {}
        }
    }

    /// What there was.
    pub fn finish(self) -> Details {
        self.told
    }
}

/// A text from the wire, no longer than [`MAX_TEXT`]; what is not UTF-8 is replaced.
fn text(bytes: &[u8]) -> String {
    // A replaced byte becomes three.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT)]);
    super::flow::cut(text.into_owned(), MAX_TEXT)
}
