//! Where do packets come from?

pub mod kernel;
pub mod pcap;
