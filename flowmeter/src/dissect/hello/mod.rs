//! Which client started a flow, and for which server?
//!
//! Reads the `ClientHello` of TLS over TCP, DTLS and QUIC from a flow's first packets, whatever
//! nDPI knows of them. A flow that is none of these costs a look at the first bytes of its packets
//! and no memory.

mod client_hello;
mod dtls;
mod fingerprint;
mod message;
mod pieces;
mod quic;
mod reader;
#[cfg(test)]
mod samples;
mod tcp;
#[cfg(test)]
mod tests;

pub use client_hello::Carrier;
pub(crate) use client_hello::is_grease;
pub use fingerprint::Fingerprint;
pub(crate) use fingerprint::{digest, hex, hex_list};

use super::headers::Transport;
use client_hello::ClientHello;
use message::Start;

/// What is known of a flow's `ClientHello` so far.
#[derive(Debug, Default)]
pub struct Hello(State);

#[derive(Debug, Default)]
enum State {
    /// There was none, in UDP.
    #[default]
    None,
    /// Nor in TCP.
    Tcp(tcp::Before),
    /// Part of one over TCP.
    Stream(Box<tcp::Stream>),
    /// Part of one in DTLS.
    Dtls(Box<dtls::Handshake>),
    /// Part of one in QUIC.
    Quic(Box<quic::Connection>),
    /// There was one; none if it could not be read.
    Read(Option<Box<Fingerprint>>),
}

/// Who sent a packet: address and port.
type Source = ([u8; 16], u16);

impl Hello {
    /// Looks at the next packet of the flow, from its IP header on. Any bytes will do.
    #[cfg(test)]
    pub fn packet(&mut self, ip: &[u8]) {
        if let Some(sound) = super::headers::sound(ip)
            && let Some(transport) = sound.transport()
        {
            self.transport(sound.source(), &transport);
        }
    }

    /// Looks at the next packet, taken apart.
    pub(super) fn transport(&mut self, address: [u8; 16], transport: &Transport) {
        if matches!(self.0, State::Read(_)) {
            return;
        }
        match *transport {
            Transport::Tcp { port, sequence, opens, payload } => {
                self.segment(&tcp::Segment { source: (address, port), sequence, opens, payload });
            }
            Transport::Udp { port, payload } => self.datagram((address, port), payload),
        }
    }

    /// Whether there is reason to look at the next packets: a part of a `ClientHello`, or a proxy
    /// that was asked for a connection.
    pub fn is_waiting(&self) -> bool {
        match &self.0 {
            State::None | State::Read(_) => false,
            State::Tcp(before) => before.is_proxied,
            State::Stream(_) => true,
            State::Dtls(handshake) => handshake.has_part(),
            State::Quic(connection) => connection.has_part(),
        }
    }

    /// What the `ClientHello` told; none if there was none that was whole.
    pub fn finish(self) -> Option<Fingerprint> {
        match self.0 {
            State::Read(fingerprint) => fingerprint.map(|fingerprint| *fingerprint),
            _ => None,
        }
    }

    fn segment(&mut self, segment: &tcp::Segment) {
        let before = match &mut self.0 {
            State::Stream(stream) => {
                match stream.add(segment) {
                    Start::Hello(body) => self.0 = read(Carrier::Tcp, &body),
                    Start::Partial => {}
                    Start::Other => self.0 = State::None,
                }
                return;
            }
            State::Tcp(before) => *before,
            _ => tcp::Before::default(),
        };
        self.0 = match tcp::look(before, segment) {
            tcp::Seen::Hello(body) => read(Carrier::Tcp, &body),
            tcp::Seen::Part(stream) => State::Stream(Box::new(stream)),
            tcp::Seen::Nothing(before) => State::Tcp(before),
        };
    }

    fn datagram(&mut self, source: Source, payload: &[u8]) {
        if matches!(self.0, State::None) {
            if dtls::may_be(payload) {
                self.0 = State::Dtls(Box::default());
            } else if quic::may_be(payload) {
                self.0 = State::Quic(Box::new(quic::Connection::new(source)));
            }
        }
        let (carrier, body) = match &mut self.0 {
            State::Dtls(handshake) => (Carrier::Dtls, handshake.datagram(source, payload)),
            State::Quic(connection) => (Carrier::Quic, connection.datagram(source, payload)),
            _ => return,
        };
        if let Some(body) = body {
            self.0 = read(carrier, &body);
        } else if !self.is_waiting() {
            self.0 = State::None;
        }
    }
}

fn read(carrier: Carrier, body: &[u8]) -> State {
    let hello = ClientHello::parse(carrier, body);
    State::Read(hello.map(|hello| Box::new(Fingerprint::of(&hello))))
}
