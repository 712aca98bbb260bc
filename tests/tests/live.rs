//! Does `flowmeter live` meter what is on the wire?
//!
//! Real traffic between network namespaces. The truth is at the other end: a second meter there,
//! by XDP, which sees each packet as it is on the wire.

#![expect(unsafe_code, reason = "namespaces by libc")]
#![expect(clippy::items_after_statements, reason = "a test's traffic stands where it is used")]

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use flowmeter::capture::kernel::{self, Direction, Ingress, Kernel};
use flowmeter_common::knobs::Knobs;
use flowmeter_tests::meter::{Log, Meter, eventually, number, slowness};
use flowmeter_tests::netns::{Background, Link, WIRE};
use flowmeter_tests::{program, root};
use serde_json::Value;

/// Columns in which two meters of the same packets agree. Times are each meter's own.
const SAME: &[&str] = &[
    "src2dst_packets",
    "dst2src_packets",
    "src2dst_bytes",
    "dst2src_bytes",
    "src2dst_ip_bytes",
    "dst2src_ip_bytes",
    "src2dst_payload_bytes",
    "dst2src_payload_bytes",
    "bidirectional_min_ps",
    "bidirectional_max_ps",
    "bidirectional_mean_ps",
    "bidirectional_stddev_ps",
    "src2dst_syn_packets",
    "src2dst_ack_packets",
    "src2dst_psh_packets",
    "src2dst_fin_packets",
    "dst2src_ack_packets",
    "dst2src_psh_packets",
    "src2dst_tcp_flags",
    "dst2src_tcp_flags",
    "vlan_id",
    "outer_vlan_id",
];

/// UDP datagrams of so many bytes, one from each of so many source ports.
const SEND: &str = "
import socket, sys
count, size, first = map(int, sys.argv[1:4])
for i in range(count):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('10.9.0.1', first + i))
    s.sendto(b'x' * size, ('10.9.0.2', 9))
    s.close()
";

/// One datagram to each of so many ports, again and again, as fast as it goes.
const FLOOD: &str = "
import socket, sys
flows, rounds = map(int, sys.argv[1:3])
socks = []
for i in range((flows + 9999) // 10000):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    s.bind(('10.9.0.1', 20000 + i))
    socks.append(s)
for r in range(rounds):
    for i in range(flows):
        socks[i // 10000].sendto(b'x' * 20, ('10.9.0.2', 10000 + i % 10000))
";

/// A TCP server that takes one connection and answers all it gets with as much, and a client that
/// sends so many bytes.
const SERVE: &str = "
import socket, sys
s = socket.create_server((sys.argv[1], 7), family=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
print('ready', flush=True)
c, _ = s.accept()
n = 0
while True:
    b = c.recv(1 << 16)
    if not b: break
    n += len(b)
c.sendall(b'y' * (n // 10))
c.close()
";
const CONNECT: &str = "
import socket, sys
c = socket.create_connection((sys.argv[1], 7))
c.sendall(b'x' * int(sys.argv[2]))
c.shutdown(socket.SHUT_WR)
while c.recv(1 << 16): pass
";

fn transfer(link: &Link, to: &str, bytes: &str) -> Result<()> {
    let server = Background::start(&link.far, "python3", &["-c", SERVE, to])?;
    eventually(|| link.near.python(CONNECT, &[to, bytes]))?;
    drop(server);
    Ok(())
}

fn is_udp(flow: &Value) -> bool {
    flow["protocol"] == 17 && flow["src_ip"] == "10.9.0.1"
}

/// Both logs have the same flows, equal in every column of [`SAME`]. Neighbour discovery has its
/// own times, at which one of the meters may not run yet: ICMPv6 is left out.
fn agree(near: &Log, far: &Log) -> Result<()> {
    near.check_balance()?;
    far.check_balance()?;
    let key = |f: &Value| {
        let columns = ["src_ip", "src_port", "dst_ip", "dst_port", "protocol"];
        columns.map(|c| f[c].to_string()).join(" ")
    };
    let is_ours = |f: &&Value| f["protocol"] != 58;
    let (here, there) = (near.flows.iter().filter(is_ours), far.flows.iter().filter(is_ours));
    ensure!(here.clone().count() == there.count(), "{:#?} {:#?}", near.flows, far.flows);
    for flow in here {
        let other = far.the(|f| key(f) == key(flow))?;
        for column in SAME {
            ensure!(
                flow[column] == other[column],
                "{column} of {}: {} here, {} there",
                key(flow),
                flow[column],
                other[column]
            );
        }
    }
    Ok(())
}

/// What the near end sends and the wire then has no room for, the far end never sees, and what is
/// sent again is metered again: such a run says nothing, and the next one has to.
fn mixed_traffic_is_metered_to_the_byte(ingress: &str) -> Result<()> {
    for _ in 0..10 {
        let link = Link::new()?;
        let result = mixed_traffic(&link, ingress);
        if link.near.disturbances()? + link.far.disturbances()? == 0 {
            return result;
        }
    }
    bail!("packets were dropped or sent again in every run: the machine is too busy for this test")
}

fn mixed_traffic(link: &Link, ingress: &str) -> Result<()> {
    let options = ["--statistical-analysis", "--n-dissections=0", WIRE];
    let near = Meter::start(&link.near, &[&["--ingress", ingress], &options[..]].concat())?;
    let far = Meter::start(&link.far, &[&["--ingress", "xdp"], &options[..]].concat())?;
    // Super-packets of TCP, both versions; fragments; ICMP.
    transfer(link, "10.9.0.2", "3000000")?;
    transfer(link, "fd09::2", "3000000")?;
    link.near.python(SEND, &["5", "8000", "40000"])?;
    link.near.run("ping", &["-c", "3", "-i", "0.2", "-s", "4000", "10.9.0.2"])?;
    link.near.run("ping", &["-c", "3", "-i", "0.2", "fd09::2"])?;
    let (near, far) = (near.stop()?, far.stop()?);
    agree(&near, &far)?;
    // The server may not have listened at the first try.
    let carries = |f: &Value| number(f, "src2dst_payload_bytes") > 0;
    let bulk = near.the(|f| f["dst_port"] == 7 && f["ip_version"] == 6 && carries(f))?;
    ensure!(bulk["src2dst_payload_bytes"] == 3_000_000, "{bulk:#}");
    ensure!(bulk["dst2src_payload_bytes"] == 300_000, "{bulk:#}");
    ensure!(number(bulk, "src2dst_packets") > 2000, "super-packets are counted as one: {bulk:#}");
    // Either end may have asked for its neighbour first.
    let is_host = |end: &Value| end == "fd09::1" || end == "fd09::2";
    let echo =
        near.the(|f| f["protocol"] == 58 && is_host(&f["src_ip"]) && is_host(&f["dst_ip"]))?;
    ensure!(number(echo, "bidirectional_packets") >= 6, "{echo:#}");
    let fragmented = near.the(|f| is_udp(f) && f["src_port"] == 40000)?;
    ensure!(fragmented["src2dst_packets"] == 6, "{fragmented:#}");
    Ok(())
}

#[test]
fn xdp_and_tcx_agree_with_the_other_end() -> Result<()> {
    if !root::available("xdp_and_tcx_agree_with_the_other_end")? {
        return Ok(());
    }
    mixed_traffic_is_metered_to_the_byte("xdp")
}

#[test]
fn tcx_and_tcx_agree_with_the_other_end() -> Result<()> {
    if !root::available("tcx_and_tcx_agree_with_the_other_end")? {
        return Ok(());
    }
    mixed_traffic_is_metered_to_the_byte("tcx")
}

#[test]
fn tagged_frames_have_their_vlans() -> Result<()> {
    if !root::available("tagged_frames_have_their_vlans")? {
        return Ok(());
    }
    const TAGGED: &str = "
import socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('wire', 0))
udp = struct.pack('>HHHH', 1, 2, 12, 0) + b'data'
ip = struct.pack('>BBHHHBBH4s4s', 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes([10,9,0,1]), bytes([10,9,0,2])) + udp
mac = b'\\2\\0\\0\\0\\0\\1' * 2
s.send(mac + b'\\x81\\0\\0\\5\\x08\\0' + ip)
s.send(mac + b'\\x88\\xa8\\0\\7\\x81\\0\\0\\5\\x08\\0' + ip)
";
    for ingress in ["xdp", "tcx"] {
        let link = Link::new()?;
        let options = ["--statistical-analysis", "--n-dissections=0", WIRE];
        let near = Meter::start(&link.near, &options)?;
        let far = Meter::start(&link.far, &[&["--ingress", ingress], &options[..]].concat())?;
        link.near.python(TAGGED, &[])?;
        let is_tagged = |f: &Value| f["src_port"] == 1 && f["dst_port"] == 2;
        let (near, far) = (near.stop()?, far.stop()?);
        for log in [near, far] {
            log.check_balance()?;
            let single = log.the(|f| is_tagged(f) && f["outer_vlan_id"] == 0)?;
            ensure!(single["vlan_id"] == 5 && single["src2dst_bytes"] == 50, "{single:#}");
            let double = log.the(|f| is_tagged(f) && f["outer_vlan_id"] == 7)?;
            ensure!(double["vlan_id"] == 5 && double["src2dst_bytes"] == 54, "{double:#}");
        }
    }
    Ok(())
}

#[test]
fn a_silent_flow_is_written_soon_after_its_timeout() -> Result<()> {
    if !root::available("a_silent_flow_is_written_soon_after_its_timeout")? {
        return Ok(());
    }
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &["--idle-timeout=1", WIRE])?;
    // The packet is sent between these two.
    let before = Instant::now();
    link.near.python(SEND, &["1", "10", "40000"])?;
    let after = Instant::now();
    meter.wait_for(|flows| flows.iter().any(is_udp))?;
    let (most, least) = (before.elapsed(), after.elapsed());
    ensure!(most >= Duration::from_secs(1), "too early: {most:?}");
    ensure!(least < Duration::from_secs(3) * slowness(), "too late: {least:?}");
    let log = meter.stop()?;
    ensure!(log.the(is_udp)?["flow_end_reason"] == "idle timeout");
    log.check_balance()
}

#[test]
fn the_active_timeout_cuts_at_the_packet_that_reaches_it() -> Result<()> {
    if !root::available("the_active_timeout_cuts_at_the_packet_that_reaches_it")? {
        return Ok(());
    }
    const TICK: &str = "
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('10.9.0.1', 40000))
for i in range(24):
    s.sendto(b'x', ('10.9.0.2', 9))
    time.sleep(0.1)
";
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &["--active-timeout=1", WIRE])?;
    link.near.python(TICK, &[])?;
    let log = meter.stop()?;
    log.check_balance()?;
    let mut parts: Vec<_> = log.flows.iter().filter(|f| is_udp(f)).collect();
    parts.sort_by_key(|f| number(f, "bidirectional_first_seen_ns"));
    let packets: u64 = parts.iter().map(|f| number(f, "src2dst_packets")).sum();
    ensure!(packets == 24, "{packets} packets in {parts:#?}");
    let (last, cut) = parts.split_last().context("there are flows")?;
    ensure!(cut.len() == 2, "{parts:#?}");
    for (part, next) in cut.iter().zip(cut.iter().skip(1).chain([last])) {
        ensure!(part["expiration_id"] == 1, "{part:#}");
        ensure!(number(part, "bidirectional_duration_ms") < 1000, "{part:#}");
        let age = number(next, "bidirectional_first_seen_ms")
            - number(part, "bidirectional_first_seen_ms");
        ensure!(age >= 1000, "cut at {age} ms");
    }
    Ok(())
}

#[test]
fn ten_thousand_resident_flows_are_written_at_the_end() -> Result<()> {
    if !root::available("ten_thousand_resident_flows_are_written_at_the_end")? {
        return Ok(());
    }
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &[WIRE])?;
    link.near.python(FLOOD, &["10000", "1"])?;
    let log = meter.stop()?;
    log.check_balance()?;
    let flows = log.flows.iter().filter(|f| is_udp(f)).count();
    ensure!(flows == 10_000, "{flows} flows");
    Ok(())
}

#[test]
fn a_full_map_loses_nothing_silently() -> Result<()> {
    if !root::available("a_full_map_loses_nothing_silently")? {
        return Ok(());
    }
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &["--max-flows=1000", "--n-dissections=0", WIRE])?;
    link.near.python(FLOOD, &["100000", "1"])?;
    let log = meter.stop()?;
    log.check_balance()?;
    let metered: u64 =
        log.flows.iter().filter(|f| is_udp(f)).map(|f| number(f, "src2dst_packets")).sum();
    let egress = &log.report["interfaces"][0]["egress"];
    let lost = number(egress, "lost");
    ensure!(metered + lost == 100_000, "{metered} metered, {lost} lost: {:#}", log.report);
    ensure!(number(egress, "overflowed") > 0, "the map was not full: {:#}", log.report);
    Ok(())
}

#[test]
fn a_stalled_collector_loses_nothing_silently() -> Result<()> {
    if !root::available("a_stalled_collector_loses_nothing_silently")? {
        return Ok(());
    }
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &["--max-flows=5000", WIRE])?;
    meter.signal(libc::SIGSTOP);
    link.near.python(FLOOD, &["20000", "15"])?;
    meter.signal(libc::SIGCONT);
    let log = meter.stop()?;
    log.check_balance()?;
    let egress = &log.report["interfaces"][0]["egress"];
    let accounted =
        number(egress, "metered") + number(egress, "overflowed") + number(egress, "lost");
    ensure!(accounted >= 300_000, "{:#}", log.report);
    ensure!(number(egress, "lost") > 0, "the ring was not full: {:#}", log.report);
    Ok(())
}

#[test]
fn nothing_stays_attached() -> Result<()> {
    if !root::available("nothing_stays_attached")? {
        return Ok(());
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
        let link = Link::new()?;
        let meter = Meter::start(&link.near, &[WIRE])?;
        let attached = || -> Result<bool> {
            let shown = link.near.run("ip", &["-d", "link", "show", WIRE])?;
            Ok(String::from_utf8_lossy(&shown.stdout).contains("xdp"))
        };
        ensure!(attached()?, "XDP is not shown");
        meter.signal(signal);
        eventually(|| {
            ensure!(!attached()?, "XDP stays after signal {signal}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn each_flow_has_its_interface_and_the_loopback_counts_once() -> Result<()> {
    if !root::available("each_flow_has_its_interface_and_the_loopback_counts_once")? {
        return Ok(());
    }
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &[WIRE, "lo"])?;
    link.near.run("ping", &["-c", "2", "-i", "0.2", "10.9.0.2"])?;
    link.near.run("ping", &["-c", "2", "-i", "0.2", "127.0.0.1"])?;
    let log = meter.stop()?;
    log.check_balance()?;
    let wire = log.the(|f| f["dst_ip"] == "10.9.0.2" && f["protocol"] == 1)?;
    ensure!(wire["interface"] == WIRE && wire["bidirectional_packets"] == 4, "{wire:#}");
    let local = log.the(|f| f["dst_ip"] == "127.0.0.1")?;
    ensure!(local["interface"] == "lo" && local["bidirectional_packets"] == 4, "{local:#}");
    Ok(())
}

#[test]
fn one_direction_alone_can_be_metered() -> Result<()> {
    if !root::available("one_direction_alone_can_be_metered")? {
        return Ok(());
    }
    for (direction, src) in [("ingress", "10.9.0.2"), ("egress", "10.9.0.1")] {
        let link = Link::new()?;
        let meter = Meter::start(&link.near, &["--direction", direction, WIRE])?;
        link.near.run("ping", &["-c", "2", "-i", "0.2", "10.9.0.2"])?;
        let log = meter.stop()?;
        log.check_balance()?;
        let flow = log.the(|f| f["protocol"] == 1)?;
        ensure!(flow["src_ip"] == src && flow["src2dst_packets"] == 2, "{flow:#}");
        ensure!(flow["dst2src_packets"] == 0, "{flow:#}");
    }
    Ok(())
}

/// DNS queries from one port, every 50 ms.
const ASK_AGAIN: &str = "
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('10.9.0.1', 5555))
for i in range(20):
    s.sendto(bytes([i, 0]) + b'\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\3www\\7example\\3org\\0\\0\\1\\0\\1', ('10.9.0.2', 53))
    time.sleep(0.05)
";

#[test]
fn what_the_dissector_is_done_with_stays_in_the_kernel() -> Result<()> {
    if !root::available("what_the_dissector_is_done_with_stays_in_the_kernel")? {
        return Ok(());
    }
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &["--n-dissections=20", WIRE])?;
    link.near.python(ASK_AGAIN, &[])?;
    let log = meter.stop()?;
    log.check_balance()?;
    let flow = log.the(|flow| flow["dst_port"] == 53)?;
    ensure!(flow["application_name"] == "DNS" && flow["bidirectional_packets"] == 20);
    // The first one settles the flow, and some more are on their way until that is known.
    let [forwarded, withheld] =
        ["dissection_forwarded", "dissection_withheld"].map(|name| number(&log.report, name));
    ensure!(forwarded >= 1 && withheld >= 1, "{:#}", log.report);
    Ok(())
}

/// Connections to ports where nobody listens.
const KNOCK: &str = "
import socket
for port in range(1000, 1040):
    with socket.socket() as s:
        assert s.connect_ex(('10.9.0.2', port)) != 0
";

/// nDPI's risks are about them: who answered, and whether that was a refusal.
#[test]
fn packets_without_payload_reach_the_dissector() -> Result<()> {
    if !root::available("packets_without_payload_reach_the_dissector")? {
        return Ok(());
    }
    let link = Link::new()?;
    let options = ["--n-dissections=20", "--group=l7-extended", WIRE];
    let meter = Meter::start(&link.near, &options)?;
    link.near.python(KNOCK, &[])?;
    let log = meter.stop()?;
    log.check_balance()?;
    let refused = log.flows.iter().filter(|flow| flow["protocol"] == 6).collect::<Vec<_>>();
    ensure!(refused.len() == 40, "{} flows", refused.len());
    for flow in refused {
        ensure!(flow["bidirectional_packets"] == 2, "a SYN and its RST: {flow:#}");
        // nDPI has this risk from 4.4 on.
        let risks = flow["flow_risk"].to_string();
        ensure!(!risks.contains("Unidirectional"), "there was an answer: {flow:#}");
    }
    ensure!(number(&log.report, "dissection_forwarded") >= 80, "{:#}", log.report);
    Ok(())
}

/// Meters TLS, DNS and a client that stays for a while. Gives the log and the client's process.
fn served() -> Result<(Log, u64)> {
    let link = Link::new()?;
    let dir = std::env::temp_dir().join(format!("flowmeter-tls-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let (key, cert) = (dir.join("key.pem"), dir.join("cert.pem"));
    let (key, cert) = (key.to_string_lossy(), cert.to_string_lossy());
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"])
        .args(["-subj", "/CN=www.example.org", "-keyout", &key, "-out", &cert])
        .stderr(Stdio::null())
        .status()?;
    ensure!(made.success(), "openssl makes no certificate");
    let meter =
        Meter::start(&link.near, &["--system-visibility-poll-ms=50", "--group=l7-extended", WIRE])?;
    // TLS 1.2, which shows its certificate.
    let tls = ["s_server", "-accept", "443", "-key", &key, "-cert", &cert, "-www", "-tls1_2"];
    let _tls = Background::start(&link.far, "openssl", &tls)?;
    let dns = [
        "-k",
        "-p",
        "53",
        "--listen-address=10.9.0.2",
        "--bind-interfaces",
        "--no-resolv",
        "--no-hosts",
        "--address=/example.org/10.9.0.2",
        "--pid-file=",
    ];
    let _dns = Background::start(&link.far, "dnsmasq", &dns)?;
    let url = "https://www.example.org/";
    let resolve = ["-sk", "--max-time", "5", "--resolve", "www.example.org:443:10.9.0.2", url];
    eventually(|| link.near.run("curl", &resolve))?;
    const ASK: &str = "
import socket, struct
q = struct.pack('>HHHHHH', 7, 256, 1, 0, 0, 0) + b'\\3www\\7example\\3org\\0' + struct.pack('>HH', 1, 1)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.sendto(q, ('10.9.0.2', 53))
s.recv(512)
";
    eventually(|| link.near.python(ASK, &[]))?;
    // A client that lives long enough to be seen by polling, and its process.
    const STAY: &str = "
import socket, time, os
c = socket.create_connection(('10.9.0.2', 443))
time.sleep(1)
print(os.getpid())
";
    let pid: u64 = link.near.python(STAY, &[])?.parse()?;
    let log = meter.stop()?;
    let _ = fs::remove_dir_all(&dir);
    log.check_balance()?;
    Ok((log, pid))
}

#[test]
fn names_applications_and_processes() -> Result<()> {
    if !root::available("names_applications_and_processes")? {
        return Ok(());
    }
    let (mut log, mut pid) = served()?;
    // A child that computes for an emulated machine may exceed its time: such a run says nothing.
    for _ in 1..slowness().min(5) {
        if number(&log.report, "dissector_hangs") > 0 {
            (log, pid) = served()?;
        }
    }
    let answered = |f: &&Value| number(f, "dst2src_packets") > 0;
    let tls = log
        .flows
        .iter()
        .filter(answered)
        .find(|f| f["requested_server_name"] == "www.example.org" && f["dst_port"] == 443)
        .with_context(|| format!("no TLS flow with a name in {:#?}", log.flows))?;
    ensure!(tls["application_name"].as_str().is_some_and(|n| n.starts_with("TLS")), "{tls:#}");
    ensure!(tls["application_category_name"] == "Web", "{tls:#}");
    for fingerprint in ["client_fingerprint", "server_fingerprint"] {
        ensure!(tls[fingerprint].as_str().is_some_and(|f| f.len() >= 32), "{tls:#}");
    }
    let dns = log
        .flows
        .iter()
        .filter(answered)
        .find(|f| f["dst_port"] == 53)
        .with_context(|| format!("no DNS flow in {:#?}", log.flows))?;
    ensure!(dns["application_name"].as_str().is_some_and(|n| n.starts_with("DNS")), "{dns:#}");
    ensure!(dns["requested_server_name"] == "www.example.org", "{dns:#}");
    for (flow, column, wanted) in [
        (tls, "tls_version", "TLSv1.2"),
        (tls, "tls_subject_cn", "www.example.org"),
        (tls, "tls_issuer_cn", "www.example.org"),
        (dns, "dns_query", "www.example.org"),
        (dns, "dns_query_type", "A"),
        (dns, "dns_rcode", "NOERROR"),
    ] {
        ensure!(flow[column] == wanted, "{column} of {flow:#}");
    }
    ensure!(tls["tls_cipher"].as_str().is_some_and(|cipher| cipher.starts_with("TLS_ECDHE")));
    ensure!(dns["dns_addresses"][0] == "10.9.0.2" && dns["http_method"].is_null(), "{dns:#}");
    let ours = log.the(|f| f["system_process_pid"] == pid)?;
    ensure!(ours["system_process_name"].as_str().is_some_and(|n| n.starts_with("python")));
    Ok(())
}

#[test]
fn mistakes_get_a_line_that_says_what_to_do() -> Result<()> {
    let run = |args: &[&str]| -> Result<(Option<i32>, String)> {
        let output = Command::new(program("flowmeter")?).args(args).output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let (code, said) = run(&["live", "nowhere0"])?;
    ensure!(code == Some(1) && said.contains("`nowhere0`"), "{code:?} {said}");
    for args in [&["live"][..], &["live", "lo", "--idle-timeout=never"], &["live", "lo", "--foo"]] {
        let (code, said) = run(args)?;
        ensure!(code == Some(2) && said.lines().count() == 1, "{code:?} {said}");
    }
    Ok(())
}

#[test]
fn a_map_that_is_not_there_is_named() -> Result<()> {
    if !root::available("a_map_that_is_not_there_is_named")? {
        return Ok(());
    }
    // In a thread of its own, as its network is.
    thread::spawn(take_a_map_twice).join().map_err(|_| anyhow::anyhow!("it panicked"))?
}

fn take_a_map_twice() -> Result<()> {
    // SAFETY: it takes a number, and gives this thread another network.
    ensure!(unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0, "no namespace");
    let mut kernel = Kernel::open(&kernel::Options {
        interfaces: vec!["lo".into()],
        ingress: Ingress::Tcx,
        direction: Direction::Ingress,
        knobs: Knobs::default(),
        max_flows: 64,
        snapshot_length: 64,
        whole: false,
        promiscuous: false,
        attribute: false,
        log: false,
        notices: flowmeter::notice::Notices::none(),
    })?;
    kernel.flow_map()?;
    // Maps are taken once, so now it is as if the object had none of this name.
    let Err(error) = kernel.flow_map() else { bail!("there is another one") };
    let text = error.to_string();
    ensure!(text.contains("no map `FLOWS`"), "{text}");
    ensure!(!text.contains("without its kernel programs"), "{text}");
    Ok(())
}
