//! What do packets for the dissector's tests look like?

#![cfg_attr(
    not(feature = "ndpi"),
    expect(dead_code, reason = "some of them only nDPI understands")
)]

/// Builds IP packets from 10.0.0.1 or `fd00::1`, without checksums.
pub(super) struct Packet;

impl Packet {
    pub(super) fn tcp(payload: &[u8]) -> Vec<u8> {
        Self::tcp_to(80, payload)
    }

    pub(super) fn tcp_to(port: u16, payload: &[u8]) -> Vec<u8> {
        let mut segment = 40_000u16.to_be_bytes().to_vec();
        segment.extend(port.to_be_bytes());
        segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(payload);
        Self::ip(6, &segment)
    }

    pub(super) fn udp_to(port: u16, payload: &[u8]) -> Vec<u8> {
        Self::ip(17, &Self::datagram(port, payload))
    }

    pub(super) fn udp6(payload: &[u8]) -> Vec<u8> {
        let datagram = Self::datagram(9999, payload);
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((datagram.len() as u16).to_be_bytes());
        packet.extend([17, 64]);
        for last in [1, 2] {
            packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        packet.extend(datagram);
        packet
    }

    /// The same IPv4 packet from the other end.
    pub(super) fn reply(mut packet: Vec<u8>) -> Vec<u8> {
        packet[12..20].rotate_left(4);
        packet[20..24].rotate_left(2);
        packet
    }

    /// The same TCP segment, this many bytes into its direction's stream: nDPI skips what looks
    /// like a retransmission.
    pub(super) fn at(mut packet: Vec<u8>, offset: usize) -> Vec<u8> {
        packet[24..28].copy_from_slice(&(offset as u32 + 1).to_be_bytes());
        packet
    }

    fn datagram(port: u16, payload: &[u8]) -> Vec<u8> {
        let mut datagram = 40_000u16.to_be_bytes().to_vec();
        datagram.extend(port.to_be_bytes());
        datagram.extend((payload.len() as u16 + 8).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(payload);
        datagram
    }

    pub(super) fn ip(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0];
        packet.extend((payload.len() as u16 + 20).to_be_bytes());
        packet.extend([0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(payload);
        packet
    }
}

/// A TLS 1.2 `ClientHello` for `www.example.org`, with JA3 `771,4865-49199,0-10-11,29-23,0`.
pub(super) fn tls_client_hello() -> Vec<u8> {
    let name = b"www.example.org";
    let length = name.len() as u8;
    let mut extensions = vec![0, 0, 0, length + 5, 0, length + 3, 0, 0, length];
    extensions.extend(name);
    extensions.extend([0, 10, 0, 6, 0, 4, 0, 29, 0, 23]); // groups: x25519, secp256r1
    extensions.extend([0, 11, 0, 2, 1, 0]); // point formats: uncompressed

    let mut hello = vec![3, 3];
    hello.extend([0x5a; 32]); // random
    hello.push(0); // no session
    hello.extend([0, 4, 0x13, 0x01, 0xc0, 0x2f]); // two ciphers
    hello.extend([1, 0]); // no compression
    hello.extend((extensions.len() as u16).to_be_bytes());
    hello.extend(extensions);

    let mut record = vec![0x16, 3, 1];
    record.extend((hello.len() as u16 + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend((hello.len() as u16).to_be_bytes());
    record.extend(hello);
    Packet::tcp_to(443, &record)
}

/// Asks for the address of `www.example.org`.
pub(super) fn dns_query() -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(b"\x03www\x07example\x03org\0");
    query.extend([0, 1, 0, 1]);
    Packet::udp_to(53, &query)
}

/// Answers [`dns_query`] with 192.0.2.1.
pub(super) fn dns_response() -> Vec<u8> {
    let mut response = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    response.extend(b"\x03www\x07example\x03org\0");
    response.extend([0, 1, 0, 1]);
    response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    Packet::reply(Packet::udp_to(53, &response))
}

/// Gets a page of `www.example.org` with the agent `tester/1.0`.
pub(super) fn http_get() -> Vec<u8> {
    Packet::tcp(
        b"GET /page HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: tester/1.0\r\n\
          Accept: */*\r\n\r\n",
    )
}

/// Acknowledges [`http_get`]. Without it nDPI 4.2 misses the `Content-Type` of the answer.
pub(super) fn http_ack() -> Vec<u8> {
    Packet::reply(Packet::tcp(b""))
}

/// Answers [`http_get`] with a page of `text/html`.
pub(super) fn http_response() -> Vec<u8> {
    Packet::reply(Packet::tcp(
        b"HTTP/1.1 200 OK\r\nServer: tester\r\nContent-Type: text/html\r\n\
          Content-Length: 2\r\n\r\nok",
    ))
}

/// Both banners and both `KEXINIT`s of SSH. The client's HASSH is the MD5 of
/// `curve25519-sha256;aes128-ctr;hmac-sha2-256;none`, the server's of the same with `aes256-ctr`.
pub(super) fn ssh_handshake() -> Vec<Vec<u8>> {
    let client = Packet::tcp_to(22, b"SSH-2.0-tester_1.0\r\n");
    let server = Packet::reply(Packet::tcp_to(22, b"SSH-2.0-tested_1.0\r\n"));
    let behind = client.len() - 40;
    vec![
        client,
        server,
        Packet::at(Packet::tcp_to(22, &ssh_kexinit("aes128-ctr")), behind),
        Packet::at(Packet::reply(Packet::tcp_to(22, &ssh_kexinit("aes256-ctr"))), behind),
    ]
}

/// RFC 4253, sections 6 and 7.1, with one name in each list.
fn ssh_kexinit(cipher: &str) -> Vec<u8> {
    let mut message = vec![20];
    message.extend([0xa5; 16]); // cookie
    let both_ways = [cipher, cipher, "hmac-sha2-256", "hmac-sha2-256", "none", "none", "", ""];
    for list in ["curve25519-sha256", "ssh-ed25519"].iter().chain(&both_ways) {
        message.extend((list.len() as u32).to_be_bytes());
        message.extend(list.as_bytes());
    }
    message.extend([0; 5]); // no guess follows; reserved
    let padding = 4;
    let mut packet = (message.len() as u32 + 1 + padding).to_be_bytes().to_vec();
    packet.push(padding as u8);
    packet.extend(message);
    packet.extend([0; 4]);
    packet
}
