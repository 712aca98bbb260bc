//! Which TCP flags are counted, and how?

/// The flags in bit order: bit 0 is FIN, bit 7 is CWR (RFC 9293 §3.1, RFC 3168).
pub const FLAGS: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

/// Bit of FIN.
pub const FIN: u8 = 1 << 0;
/// Bit of SYN.
pub const SYN: u8 = 1 << 1;
/// Bit of RST.
pub const RST: u8 = 1 << 2;
/// Bit of PSH.
pub const PSH: u8 = 1 << 3;
/// Bit of ACK.
pub const ACK: u8 = 1 << 4;
/// Bit of URG.
pub const URG: u8 = 1 << 5;
/// Bit of ECE.
pub const ECE: u8 = 1 << 6;
/// Bit of CWR.
pub const CWR: u8 = 1 << 7;

/// Adds the flags of a packet, or of a super-packet of `segments` packets, to the eight counters.
///
/// Segmentation puts FIN and PSH on the last segment and CWR on the first only (Linux,
/// `tcp_gso_segment`); the other flags are on all of them.
#[inline(always)]
pub fn count(counters: &mut [u32; 8], flags: u8, segments: u32) {
    let [fin, syn, rst, psh, ack, urg, ece, cwr] = counters;
    if flags & ACK != 0 {
        *ack = ack.wrapping_add(segments);
    }
    if flags & !ACK == 0 {
        return; // most packets
    }
    let bit = |n: u8| u32::from(flags >> n & 1);
    *fin = fin.wrapping_add(bit(0));
    *syn = syn.wrapping_add(bit(1) * segments);
    *rst = rst.wrapping_add(bit(2) * segments);
    *psh = psh.wrapping_add(bit(3));
    *urg = urg.wrapping_add(bit(5) * segments);
    *ece = ece.wrapping_add(bit(6) * segments);
    *cwr = cwr.wrapping_add(bit(7));
}
