//! What is asked of DNS, and what is the answer?
//!
//! RFC 1035, multicast DNS (RFC 6762) and LLMNR (RFC 4795), which have its messages.

use domain::base::iana::Class;
use domain::base::name::ParsedName;
use domain::base::{Message, Rtype};
use domain::rdata::{A, Aaaa};

use super::{Details, MAX_ADDRESSES, text};

/// Where DNS servers listen.
pub(super) const PORT: u16 = 53;

/// Where messages of DNS go over UDP.
pub(super) fn has_port(ports: [u16; 2]) -> bool {
    ports.iter().any(|port| matches!(port, &PORT | 5353 | 5355))
}

/// Reads the first question and the first response, whichever is in this message.
pub(super) fn read(message: &[u8], told: &mut Details) {
    let Ok(message) = Message::from_slice(message) else { return };
    let header = message.header();
    if told.dns_query.is_empty()
        && let Some(Ok(question)) = message.question().next()
        // What is no DNS has any of 65,536 classes.
        && matches!(mdns_class(question.qclass()), Class::IN | Class::CH | Class::ANY)
    {
        told.dns_query = text(name(question.qname()).as_bytes());
        told.dns_query_type = question.qtype().to_string();
    }
    let is_known = !told.dns_query.is_empty() || header.opcode().to_int() == 0;
    if header.qr() && told.dns_rcode.is_empty() && is_known {
        told.dns_rcode = header.rcode().to_string();
        told.dns_addresses = addresses(message).unwrap_or_default();
    }
}

/// A name with its labels as they are, where they are UTF-8 (mDNS), and else as RFC 1035, section
/// 5.1, writes them.
fn name(name: &ParsedName<&[u8]>) -> String {
    let mut text = String::new();
    for label in name.iter().filter(|label| !label.is_root()) {
        if !text.is_empty() {
            text.push('.');
        }
        match str::from_utf8(label.as_slice()) {
            Ok(label) if !label.contains(|c: char| c.is_control() || c == '.' || c == '\\') => {
                text += label;
            }
            _ => text += &label.to_string(),
        }
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

/// Without the bit that mDNS uses for itself (RFC 6762, section 18.12).
fn mdns_class(class: Class) -> Class {
    Class::from_int(class.to_int() & 0x7fff)
}

fn addresses(message: &Message<[u8]>) -> Option<Vec<String>> {
    let mut addresses = Vec::new();
    for record in message.answer().ok()? {
        // What is damaged ends the list.
        let Ok(record) = record else { break };
        let address = match record.rtype() {
            Rtype::A => record.to_record::<A>().ok()?.map(|record| record.data().to_string()),
            Rtype::AAAA => record.to_record::<Aaaa>().ok()?.map(|record| record.data().to_string()),
            _ => None,
        };
        addresses.extend(address);
        if addresses.len() == MAX_ADDRESSES {
            break;
        }
    }
    Some(addresses)
}

#[cfg(test)]
mod tests {
    use super::{Details, has_port, read};

    const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03org\0\0\x1c\0\x01";

    fn told(messages: &[&[u8]]) -> Details {
        let mut details = Details::default();
        for message in messages {
            read(message, &mut details);
        }
        details
    }

    fn response(rcode: u8, records: &[&[u8]]) -> Vec<u8> {
        let mut message = QUERY.to_vec();
        message[2] = 0x81;
        message[3] = 0x80 | rcode;
        message[7] = records.len() as u8;
        message.extend(records.concat());
        message
    }

    #[test]
    fn a_question_and_its_answer() {
        let alias = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x10";
        let v4 = b"\xc0\x10\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";
        let v6 = b"\xc0\x10\0\x1c\0\x01\0\0\0\x3c\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01";
        let got = told(&[QUERY, &response(0, &[alias, v4, v6])]);
        assert_eq!(got.dns_query, "www.example.org");
        assert_eq!(got.dns_query_type, "AAAA");
        assert_eq!(got.dns_rcode, "NOERROR");
        assert_eq!(got.dns_addresses, ["192.0.2.1", "2001:db8::1"]);
    }

    #[test]
    fn names_are_utf8_or_escaped() {
        let ask = |label: &[u8]| {
            let length = [label.len() as u8];
            let parts =
                [b"\0\0\0\0\0\x01\0\0\0\0\0\0", &length[..], label, b"\x02hk\0\0\x01\0\x01"];
            told(&[&parts.concat()]).dns_query
        };
        assert_eq!(ask("小佛專機".as_bytes()), "小佛專機.hk");
        assert_eq!(ask(b"a.b\xff"), "a\\.b\\255.hk");
        assert_eq!(told(&[b"\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\x02\0\x01"]).dns_query, ".");
    }

    #[test]
    fn the_first_response_counts() {
        let got = told(&[QUERY, &response(3, &[]), &response(0, &[])]);
        assert_eq!(got.dns_rcode, "NXDOMAIN");
    }

    #[test]
    fn damage_ends_the_list_of_addresses() {
        let v4 = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";
        let got = told(&[&response(0, &[v4, b"\xc0"])]);
        assert_eq!(got.dns_query, "www.example.org");
        assert_eq!(got.dns_addresses, ["192.0.2.1"]);
    }

    #[test]
    fn what_is_no_dns_tells_nothing() {
        for message in [&b""[..], &QUERY[..20], &[0xff; 64], &[0x41; 40]] {
            assert_eq!(told(&[message]).dns_query, "", "{message:?}");
        }
        assert!(has_port([5353, 5353]) && has_port([40_000, 53]) && !has_port([1, 2]));
    }
}
