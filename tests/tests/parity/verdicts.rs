//! Do kernel and host read the same in a packet?

use std::cell::RefCell;

use anyhow::{Context, Result, ensure};
use flowmeter_common::knobs::Knobs;
use flowmeter_common::packet::{Packet, Reject};
use flowmeter_tests::captures::{Capture, conformance};
use flowmeter_tests::host::Host;
use flowmeter_tests::kernel::{Kernel, Setup};
use flowmeter_tests::packets::{Around, Over, icmp, icmpv6, other, sctp, strategies, tcp, udp};
use flowmeter_tests::root;

use crate::{for_all, tc_takes};

/// The XDP and the tc program that parse only, for frames of lengths that they can be run on.
struct Parsers {
    kernel: Kernel,
    host: Host,
    compared: usize,
    skipped: usize,
    split: usize,
    unsplit: usize,
}

/// The program for kernels before 5.18.
const LINEAR: &str = "flowmeter_parse_linear";
/// Bytes that a page has room for, beside what the kernel keeps there.
const PAGE: usize = 3_000;

impl Parsers {
    fn load(decode_tunnels: bool) -> Result<Self> {
        let knobs = Knobs { decode_tunnels, ..Knobs::default() };
        let setup = Setup { knobs, ..Setup::default() };
        Ok(Self {
            kernel: Kernel::load(&setup, &["flowmeter_parse", LINEAR, "flowmeter_tc_parse"])?,
            host: Host::new(knobs),
            compared: 0,
            skipped: 0,
            split: 0,
            unsplit: 0,
        })
    }

    fn compare(&mut self, frame: &[u8]) -> Result<()> {
        let expected = self.host.parse(frame);
        if self.kernel.xdp_bytes().contains(&frame.len()) {
            let found = self.kernel.verdict(|kernel| kernel.xdp("flowmeter_parse", frame, 1))?;
            ensure!(
                found == expected,
                "XDP: kernel {found:?}, host {expected:?}, frame {frame:02x?}"
            );
            self.compared += 1;
            self.compare_linear(frame, expected)?;
            self.compare_split(frame, expected)?;
        } else {
            self.skipped += 1;
        }
        if tc_takes(frame) {
            let found =
                self.kernel.verdict(|kernel| kernel.tc("flowmeter_tc_parse", frame, None))?;
            ensure!(
                found == expected,
                "tc: kernel {found:?}, host {expected:?}, frame {frame:02x?}"
            );
            self.compared += 1;
        } else {
            self.skipped += 1;
        }
        Ok(())
    }

    /// Compares what XDP finds as it does before Linux 5.18, of packets that fit into a page.
    fn compare_linear(&mut self, frame: &[u8], expected: Result<Packet, Reject>) -> Result<()> {
        if frame.len() > PAGE {
            return Ok(());
        }
        let found = self.kernel.verdict(|kernel| kernel.xdp(LINEAR, frame, 1))?;
        ensure!(
            found == expected,
            "linear XDP: kernel {found:?}, host {expected:?}, frame {frame:02x?}"
        );
        self.compared += 1;
        Ok(())
    }

    /// Compares what XDP finds where only a part of the headers can be accessed directly: each
    /// frame at another length of that part.
    fn compare_split(&mut self, frame: &[u8], expected: Result<Packet, Reject>) -> Result<()> {
        let linear = 14 + self.compared % 90;
        if linear >= frame.len().min(3_000) {
            return Ok(());
        }
        let mut possible = None;
        let found = self.kernel.verdict(|kernel| {
            possible = kernel.xdp_split("flowmeter_parse", frame, linear as u32)?;
            Ok(())
        });
        if possible.is_none() {
            self.unsplit += 1;
            return Ok(());
        }
        let found = found?;
        ensure!(
            found == expected,
            "XDP, {linear} bytes linear: kernel {found:?}, host {expected:?}, frame {frame:02x?}"
        );
        self.split += 1;
        Ok(())
    }

    fn report(&self, what: &str) {
        println!(
            "{what}: {} verdicts equal, and {} of split frames; not possible here: {} test runs for \
             the frame's length, {} to split the frame",
            self.compared, self.split, self.skipped, self.unsplit
        );
    }
}

#[test]
fn verdicts_agree_on_generated_packets() -> Result<()> {
    if !root::available("verdicts_agree_on_generated_packets")? {
        return Ok(());
    }
    for decode_tunnels in [true, false] {
        let parsers = RefCell::new(Parsers::load(decode_tunnels)?);
        for_all(4_000, &strategies::frames(), |frame| parsers.borrow_mut().compare(&frame))?;
        parsers.borrow().report(&format!("generated packets, decode_tunnels {decode_tunnels}"));
    }
    Ok(())
}

/// One of everything, so that no header depends on a random draw.
#[test]
fn verdicts_agree_on_one_packet_of_each_kind() -> Result<()> {
    if !root::available("verdicts_agree_on_one_packet_of_each_kind")? {
        return Ok(());
    }
    let v4 = || tcp().ack().psh().from("10.0.0.1:1234").to("10.0.0.2:80").payload(40);
    let v6 = || udp().from("[2001:db8::1]:40000").to("[2001:db8::2]:53").payload(40);
    let mut packets = vec![
        v4().padded(),
        v6(),
        v4().ip_options(10).tcp_options(10),
        v4().vlan(5),
        v4().vlan(0).vlan(5),
        v4().vlan(5).service_vlan(100),
        v6().mpls(1),
        v6().mpls(9),
        v4().within(Around::Pseudowire(2)),
        v4().within(Around::Pppoe),
        v6().within(Around::Pppoe).vlan(7),
        v4().within(Around::Snap),
        v4().fragment(7, 0, true),
        v4().fragment(7, 1480, false),
        v6().fragment(7, 0, true),
        v6().fragment(7, 1480, false),
        v6().extension(0, 0).extension(43, 2).extension(60, 0),
        v6().extension(59, 0),
        v4().claiming(0),
        v6().claiming(0),
        v4().claiming(60_000),
        icmp(8, 0).payload(56),
        icmpv6(128, 0).from("2001:db8::1").to("2001:db8::2"),
        sctp().from("10.0.0.1:1").to("10.0.0.2:2").payload(20),
        other(50).payload(64),
        other(51).payload(64),
        other(136).payload(64),
    ];
    for over in [Over::V4, Over::V6] {
        let tunnels = [
            Around::Ip(over),
            Around::GtpU(over, 0),
            Around::GtpU(over, 4),
            Around::GtpU(over, 5),
            Around::Capwap(over),
            Around::CapwapWifi(over),
            Around::Tzsp(over, 0),
            Around::Tzsp(over, 7),
            Around::Tzsp(over, 9),
            Around::Vxlan(over, 0x00ab_cdef),
            Around::Geneve(over, 7, 3),
            Around::Gre(over, 0),
            Around::Gre(over, 0xb0),
            Around::Erspan(over, 1),
            Around::Erspan(over, 2),
            Around::Erspan(over, 3),
            Around::Teredo(over, true, true),
        ];
        for tunnel in tunnels {
            packets.push(v4().within(tunnel));
            packets.push(v6().vlan(9).within(tunnel).vlan(8));
            packets.push(v6().within(tunnel).vlan(8));
        }
    }
    for decode_tunnels in [true, false] {
        let mut parsers = Parsers::load(decode_tunnels)?;
        for packet in &packets {
            let whole = packet.build();
            for length in 0..=whole.len() {
                parsers.compare(&whole[..length])?;
            }
        }
        parsers.report(&format!("each kind cut at each length, decode_tunnels {decode_tunnels}"));
    }
    Ok(())
}

#[test]
fn verdicts_agree_on_captures() -> Result<()> {
    let name = "verdicts_agree_on_captures";
    if !root::available(name)? {
        return Ok(());
    }
    let Some(captures) = conformance(name)? else {
        return Ok(());
    };
    let mut parsers = [Parsers::load(true)?, Parsers::load(false)?];
    let (mut frames, mut foreign, mut damaged) = (0, 0, 0);
    for path in &captures {
        let capture = Capture::read(path)?;
        for frame in &capture.frames {
            for parsers in &mut parsers {
                parsers.compare(frame).with_context(|| format!("in `{}`", path.display()))?;
            }
        }
        frames += capture.frames.len();
        foreign += capture.foreign;
        damaged += usize::from(capture.damaged);
    }
    println!(
        "{} captures ({damaged} damaged), {frames} Ethernet frames, {foreign} of other link types",
        captures.len()
    );
    ensure!(frames > 0, "no Ethernet frame in any capture");
    for parsers in &parsers {
        parsers.report("captures");
    }
    Ok(())
}
