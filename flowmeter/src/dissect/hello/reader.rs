//! How are fields read that may not be there?
//!
//! Nothing is trusted: what goes past the end is `None`, and the reader is done with.

/// Bytes not yet read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    pub fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// What is left.
    pub fn rest(self) -> &'b [u8] {
        self.0
    }

    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Three bytes, as TLS has them in handshake messages.
    pub fn u24(&mut self) -> Option<u32> {
        self.array().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// QUIC's integer of 1, 2, 4 or 8 bytes: RFC 9000, section 16.
    pub fn varint(&mut self) -> Option<u64> {
        let first = *self.0.first()?;
        let bytes = self.take(1 << (first >> 6))?;
        let bits = bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        Some(bits & (u64::MAX >> (66 - 8 * bytes.len())))
    }

    /// Bytes behind their length in one byte.
    pub fn vector8(&mut self) -> Option<&'b [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// Bytes behind their length in two bytes.
    pub fn vector16(&mut self) -> Option<&'b [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use super::Reader;

    #[test]
    fn nothing_is_read_past_the_end() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u32(), None);
        assert_eq!(reader.u24(), Some(0x01_0203));
        assert_eq!(reader.u8(), None);
        assert_eq!(Reader::new(&[2, 0]).vector8(), None);
        assert_eq!(Reader::new(&[0, 2, 7, 8, 9]).vector16(), Some(&[7, 8][..]));
    }

    /// RFC 9000, appendix A.1.
    #[test]
    fn the_standard_s_integers_are_read() {
        let varint = |bytes: &[u8]| Reader::new(bytes).varint();
        let eight = [0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c];
        assert_eq!(varint(&eight), Some(151_288_809_941_952_652));
        assert_eq!(varint(&[0x9d, 0x7f, 0x3e, 0x7d]), Some(494_878_333));
        assert_eq!(varint(&[0x7b, 0xbd]), Some(15_293));
        assert_eq!(varint(&[0x25]), Some(37));
        assert_eq!(varint(&eight[..7]), None);
    }
}
