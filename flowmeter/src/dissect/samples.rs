//! What do packets for the dissector's tests look like?

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

    fn datagram(port: u16, payload: &[u8]) -> Vec<u8> {
        let mut datagram = 40_000u16.to_be_bytes().to_vec();
        datagram.extend(port.to_be_bytes());
        datagram.extend((payload.len() as u16 + 8).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(payload);
        datagram
    }

    fn ip(protocol: u8, payload: &[u8]) -> Vec<u8> {
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

/// Gets a page of `www.example.org` with the agent `tester/1.0`.
pub(super) fn http_get() -> Vec<u8> {
    Packet::tcp(
        b"GET /page HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: tester/1.0\r\n\
          Accept: */*\r\n\r\n",
    )
}
