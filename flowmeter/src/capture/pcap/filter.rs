//! Which frames does a pcap filter let through?
//!
//! libpcap compiles the expression, once for each link type, and runs it. The only place that
//! knows it.

#![expect(unsafe_code, reason = "libpcap is a C library")]

use std::ffi::{c_uchar, c_uint};

use hashbrown::HashMap;
use libpcap::{BpfInstruction, BpfProgram, Capture, Linktype};
use thiserror::Error;

use super::Frame;

/// An expression of pcap-filter(7).
pub struct Filter {
    expression: String,
    /// By link type; none where the expression has no meaning.
    programs: HashMap<i32, Option<BpfProgram>>,
}

/// Why an expression is invalid.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Invalid(String);

/// Link types whose filters know everything there is to ask for: MAC addresses and VLANs, Wi-Fi.
const LINKS: [i32; 2] = [1, 105];

impl Filter {
    /// Compiles an expression. It must have a meaning for Ethernet or for Wi-Fi.
    pub fn new(expression: &str) -> Result<Self, Invalid> {
        let [ethernet, wifi] = LINKS.map(|link| compile(expression, link));
        if let (Err(e), Err(_)) = (ethernet, wifi) {
            return Err(e);
        }
        Ok(Self { expression: expression.to_owned(), programs: HashMap::new() })
    }

    /// Whether a frame passes. One of a link type for which the expression has no meaning does
    /// not.
    pub fn passes(&mut self, frame: &Frame<'_>) -> bool {
        let program = self
            .programs
            .entry(frame.link)
            .or_insert_with(|| compile(&self.expression, frame.link).ok());
        program.as_ref().is_some_and(|program| run(program, frame))
    }
}

fn compile(expression: &str, link: i32) -> Result<BpfProgram, Invalid> {
    // libpcap's own number of raw IP is not that of files.
    let link = if link == 101 { 12 } else { link };
    // Its C strings end at a zero.
    if expression.contains('\0') {
        return Err(Invalid("it contains a NUL character".to_owned()));
    }
    let handle = Capture::dead(Linktype(link)).map_err(|e| invalid(&e))?;
    handle.compile(expression, true).map_err(|e| invalid(&e))
}

fn invalid(error: &libpcap::Error) -> Invalid {
    let text = match error {
        libpcap::Error::PcapError(text) => text.clone(),
        other => other.to_string(),
    };
    Invalid(text)
}

unsafe extern "C" {
    /// libpcap's interpreter; 0 if the packet does not pass.
    fn bpf_filter(
        program: *const BpfInstruction,
        packet: *const c_uchar,
        wire_length: c_uint,
        captured_length: c_uint,
    ) -> c_uint;
}

/// As `BpfProgram::filter`, which takes a frame for as long as what was captured of it.
fn run(program: &BpfProgram, frame: &Frame<'_>) -> bool {
    let instructions = program.get_instructions();
    // SAFETY: `instructions` is a program that libpcap has compiled and thus checked, in its own
    // layout (BpfInstruction is transparent); the packet has this many bytes.
    let passed = unsafe {
        bpf_filter(
            instructions.as_ptr(),
            frame.bytes.as_ptr(),
            frame.wire,
            frame.bytes.len() as c_uint,
        )
    };
    passed != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(link: i32, bytes: &[u8], wire: u32) -> Frame<'_> {
        Frame { time_ns: 0, bytes, wire, link }
    }

    fn passes(expression: &str, frame: &Frame<'_>) -> bool {
        Filter::new(expression).unwrap_or_else(|e| panic!("{e}")).passes(frame)
    }

    /// IPv4, UDP, from 10.0.0.1:1000 to 10.0.0.2:53, with nothing in it.
    const IP: [u8; 28] = [
        0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 3, 0xe8, 0, 53, 0, 8,
        0, 0,
    ];

    #[test]
    fn the_expression_is_compiled_for_the_link_type() {
        let ethernet = [&[0; 12][..], &[8, 0], &IP].concat();
        for expression in ["udp port 53", "src host 10.0.0.1", "", "not tcp"] {
            assert!(passes(expression, &frame(1, &ethernet, 42)), "{expression}");
            assert!(passes(expression, &frame(101, &IP, 28)), "{expression}");
        }
        assert!(!passes("tcp", &frame(1, &ethernet, 42)));
        assert!(!passes("tcp", &frame(101, &IP, 28)));
        assert!(passes("ether[12:2] = 0x800", &frame(1, &ethernet, 42)));
        assert!(!passes("wlan type mgt", &frame(1, &ethernet, 42)), "no meaning on Ethernet");
    }

    #[test]
    fn lengths_are_those_on_the_wire() {
        let ethernet = [&[0; 12][..], &[8, 0], &IP].concat();
        assert!(passes("greater 1000", &frame(1, &ethernet, 1000)));
        assert!(!passes("greater 1000", &frame(1, &ethernet, 42)));
        assert!(!passes("udp port 53", &frame(1, &ethernet[..20], 42)), "cut off");
    }

    #[test]
    fn nonsense_is_refused() {
        for expression in ["port", "tcp and and", "host 300.1.1.1", "ip[", "a\0b"] {
            assert!(Filter::new(expression).is_err(), "{expression:?}");
        }
    }
}
