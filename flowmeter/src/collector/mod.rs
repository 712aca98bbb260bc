//! How do packets and ended flows reach the engine?

pub mod kernel;
pub mod pcap;
