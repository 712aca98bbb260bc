//! Is any file read without a panic, in memory that the file's size bounds?

#![no_main]

use std::io::Cursor;
use std::path::Path;

use flowmeter::capture::pcap::Capture;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(mut capture) = Capture::from_input(Path::new("fuzz"), Cursor::new(data.to_vec())) else {
        return;
    };
    let mut before = 0;
    while let Ok(Some((captured, wire))) =
        capture.next(|frame| (frame.bytes.len(), frame.wire as usize))
    {
        assert!(wire >= captured, "a frame is no shorter than what was captured of it");
        assert!(capture.offset() > before, "every frame takes bytes");
        before = capture.offset();
    }
});
