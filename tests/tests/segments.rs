//! Does the dissector get what super-packets hold?
//!
//! A client whose `ClientHello` does not fit a packet, real or made here, on a wire with every kind of
//! segmentation offload. What the far meter sees at tc is seen by tcpdump beside it, so that a test
//! knows that there were super-packets. The truth is at XDP, which has the packets of the wire.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use flowmeter_tests::meter::{Log, Meter, eventually, number};
use flowmeter_tests::netns::{Background, Host, Link, WIRE};
use flowmeter_tests::{hello, root};
use serde_json::Value;

/// Whom the clients ask for.
const NAME: &str = "www.example.org";

/// What the `ClientHello` tells.
const TOLD: [&str; 5] =
    ["requested_server_name", "ja4", "ja3", "alpn", "application_category_name"];

/// Sends bytes over TCP to a server that says nothing.
const CONNECT: &str = "
import socket, sys
c = socket.create_connection(('10.9.0.2', 4433))
c.sendall(bytes.fromhex(sys.argv[1]))
c.shutdown(socket.SHUT_WR)
while c.recv(1 << 16): pass
";

/// A server that says nothing.
const LISTEN: &str = "
import socket
s = socket.create_server(('10.9.0.2', 4433))
while True:
    c, _ = s.accept()
    while c.recv(1 << 16): pass
    c.close()
";

/// Sends bytes as datagrams of so many, all in one call.
const SEND_DATAGRAMS: &str = "
import socket, sys
UDP_SEGMENT = 103
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, int(sys.argv[2]))
s.sendto(bytes.fromhex(sys.argv[1]), ('10.9.0.2', 443))
";

/// Takes datagrams, so that nobody says that there is no such port.
const TAKE_DATAGRAMS: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('10.9.0.2', 443))
while True: s.recv(1 << 16)
";

/// Who splits and joins the segments.
#[derive(Clone, Copy, Debug)]
enum Offload {
    /// Nobody: a super-packet comes as it went.
    Tso,
    /// The sending host splits them, the receiving one joins them.
    Gro,
}

impl Offload {
    fn set(self, link: &Link) -> Result<()> {
        let features: [&[&str]; 2] = match self {
            Self::Tso => [&["tso", "on", "tx-udp-segmentation", "on"], &["gro", "off"]],
            Self::Gro => [
                &["tso", "off", "tx-udp-segmentation", "off"],
                &["gro", "on", "rx-udp-gro-forwarding", "on"],
            ],
        };
        for (host, features) in [&link.near, &link.far].into_iter().zip(features) {
            host.run("ethtool", &[&["-K", WIRE], features].concat())?;
        }
        Ok(())
    }
}

/// Sees what the meter's hook sees on a host, and remembers it.
struct Tap {
    process: Background,
    file: PathBuf,
}

impl Tap {
    fn start(host: &Host) -> Result<Self> {
        let file = std::env::temp_dir().join(format!(
            "flowmeter-tap-{}-{}.pcap",
            std::process::id(),
            host.name()
        ));
        let path = file.to_string_lossy().into_owned();
        let args = [
            "--immediate-mode",
            "-U",
            "-s",
            "128",
            "-w",
            &path,
            "-i",
            WIRE,
            "port 443 or port 4433",
        ];
        let process = Background::start(host, "tcpdump", &args)?;
        // The file has its header once packets are captured.
        eventually(|| {
            let bytes = fs::metadata(&file).map_or(0, |file| file.len());
            ensure!(bytes >= 24, "tcpdump does not capture");
            Ok(())
        })?;
        Ok(Self { process, file })
    }

    /// Super-packets seen from the client.
    fn super_packets(self) -> Result<usize> {
        let Self { process, file } = self;
        process.stop(libc::SIGINT)?;
        let filter = "src host 10.9.0.1 and greater 1515";
        let output = Command::new("tcpdump").arg("-nr").arg(&file).arg(filter).output()?;
        fs::remove_file(&file)?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().count())
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|n| char::from_digit(n.into(), 16));
    bytes.iter().flat_map(digits).flatten().collect()
}

/// The flow that brought the client's hello: a connection that found no listener has nothing.
fn with_hello(log: &Log, port: u16) -> Result<&Value> {
    log.check_balance()?;
    log.the(|flow| flow["dst_port"] == port && number(flow, "src2dst_payload_bytes") > 1_500)
}

/// All of these know the hello, and the same of it.
fn agree(logs: &[(&str, &Log)], port: u16) -> Result<()> {
    let flows: Vec<(&str, &Value)> = logs
        .iter()
        .map(|(name, log)| Ok((*name, with_hello(log, port)?)))
        .collect::<Result<_>>()?;
    for (name, flow) in &flows {
        ensure!(flow["requested_server_name"] == NAME, "{name}: {flow:#}");
        ensure!(flow["ja4"].as_str().is_some_and(|ja4| ja4.len() == 36), "{name}: {flow:#}");
        let first = flows.first().context("there are meters")?.1;
        for column in TOLD {
            ensure!(flow[column] == first[column], "{column} at {name}: {flow:#}");
        }
    }
    Ok(())
}

/// Meters at both ends of a wire, the far one where `ingress` says, while `talk` goes on. Gives what
/// they wrote, if there were super-packets where they were to be.
fn metered(
    offload: Offload,
    ingress: &str,
    talk: impl Fn(&Link) -> Result<()>,
) -> Result<(Log, Log)> {
    for _ in 0..10 {
        let link = Link::new()?;
        offload.set(&link)?;
        let near = Meter::start(&link.near, &["--ingress=tcx", WIRE])?;
        let far = Meter::start(&link.far, &["--ingress", ingress, WIRE])?;
        // At tc egress there always are, but tcpdump sees them after segmentation; at XDP never.
        let tap = Tap::start(&link.far)?;
        talk(&link)?;
        let (near, far) = (near.stop()?, far.stop()?);
        let super_packets = tap.super_packets()?;
        if (super_packets > 0) == (ingress != "xdp") {
            return Ok((near, far));
        }
        println!("{offload:?}, {ingress}: {super_packets} super-packets");
    }
    bail!("segments were never joined as they should")
}

/// The hooks and who splits and joins.
const WAYS: [(Offload, &str); 3] =
    [(Offload::Tso, "xdp"), (Offload::Tso, "tcx"), (Offload::Gro, "tcx")];

#[test]
fn a_hello_of_two_segments_is_read_at_every_hook() -> Result<()> {
    if !root::available("a_hello_of_two_segments_is_read_at_every_hook")? {
        return Ok(());
    }
    let bytes = hex(&hello::record(NAME));
    for (offload, ingress) in WAYS {
        let (near, far) = metered(offload, ingress, |link| {
            let _server = Background::start(&link.far, "python3", &["-c", LISTEN])?;
            eventually(|| link.near.python(CONNECT, &[&bytes]))?;
            Ok(())
        })?;
        agree(&[("egress", &near), (ingress, &far)], 4433)
            .with_context(|| format!("{offload:?}, {ingress}"))?;
    }
    Ok(())
}

#[test]
fn a_hello_of_two_datagrams_is_read_at_every_hook() -> Result<()> {
    if !root::available("a_hello_of_two_datagrams_is_read_at_every_hook")? {
        return Ok(());
    }
    let initials = hello::initials(NAME)?;
    ensure!(initials.len() == 2, "{} datagrams", initials.len());
    let (bytes, size) = (hex(&initials.concat()), hello::DATAGRAM.to_string());
    for (offload, ingress) in WAYS {
        let (near, far) = metered(offload, ingress, |link| {
            let _server = Background::start(&link.far, "python3", &["-c", TAKE_DATAGRAMS])?;
            link.near.python(SEND_DATAGRAMS, &[&bytes, &size])?;
            Ok(())
        })?;
        agree(&[("egress", &near), (ingress, &far)], 443)
            .with_context(|| format!("{offload:?}, {ingress}"))?;
        for log in [&near, &far] {
            ensure!(with_hello(log, 443)?["src2dst_packets"] == 2, "{:#?}", log.flows);
        }
    }
    Ok(())
}

/// A certificate in a folder that goes with the value.
struct Certificate(PathBuf);

impl Certificate {
    fn new(test: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("flowmeter-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let certificate = Self(folder);
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"])
            .args(["-subj", "/CN=www.example.org", "-keyout"])
            .arg(certificate.key())
            .arg("-out")
            .arg(certificate.certificate())
            .stderr(Stdio::null())
            .status()?;
        ensure!(made.success(), "openssl makes no certificate");
        Ok(certificate)
    }

    fn key(&self) -> PathBuf {
        self.0.join("key.pem")
    }

    fn certificate(&self) -> PathBuf {
        self.0.join("certificate.pem")
    }

    fn serve(&self, host: &Host, address: &str) -> Result<Background> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let (key, certificate) = (path(&self.key()), path(&self.certificate()));
        let args = ["s_server", "-accept", address, "-key", &key, "-cert", &certificate, "-www"];
        Background::start(host, "openssl", &args)
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Application protocols enough to fill a segment.
fn many_protocols() -> String {
    let names: Vec<String> = (10..40).map(|n| format!("{n}{}", "x".repeat(50))).collect();
    format!("h2,http/1.1,{}", names.join(","))
}

/// A handshake of openssl's client, whose hello spans two segments.
fn shake_hands(host: &Host, address: &str) -> Result<()> {
    let protocols = many_protocols();
    let client = ["s_client", "-connect", address, "-servername", NAME, "-alpn", &protocols];
    eventually(|| host.run("openssl", &client))?;
    Ok(())
}

#[test]
fn a_real_clients_hello_of_two_segments_is_read_at_every_hook() -> Result<()> {
    if !root::available("a_real_clients_hello_of_two_segments_is_read_at_every_hook")? {
        return Ok(());
    }
    let certificate = Certificate::new("hello")?;
    for (offload, ingress) in WAYS {
        let (near, far) = metered(offload, ingress, |link| {
            let _server = certificate.serve(&link.far, "10.9.0.2:443")?;
            shake_hands(&link.near, "10.9.0.2:443")
        })?;
        agree(&[("egress", &near), (ingress, &far)], 443)
            .with_context(|| format!("{offload:?}, {ingress}"))?;
    }
    Ok(())
}

#[test]
fn a_large_hello_is_read_in_a_jumbo_frame_and_on_the_loopback() -> Result<()> {
    if !root::available("a_large_hello_is_read_in_a_jumbo_frame_and_on_the_loopback")? {
        return Ok(());
    }
    let certificate = Certificate::new("jumbo")?;
    for ingress in ["xdp", "tcx"] {
        let link = Link::new()?;
        for host in [&link.near, &link.far] {
            host.run("ip", &["link", "set", WIRE, "mtu", "3000"])?;
        }
        let near = Meter::start(&link.near, &["--ingress=tcx", WIRE])?;
        let far = Meter::start(&link.far, &["--ingress", ingress, WIRE])?;
        let server = certificate.serve(&link.far, "10.9.0.2:443")?;
        shake_hands(&link.near, "10.9.0.2:443")?;
        drop(server);
        let (near, far) = (near.stop()?, far.stop()?);
        agree(&[("egress", &near), (ingress, &far)], 443).context(ingress)?;
    }
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &["lo"])?;
    let server = certificate.serve(&link.near, "127.0.0.1:443")?;
    shake_hands(&link.near, "127.0.0.1:443")?;
    drop(server);
    agree(&[("loopback", &meter.stop()?)], 443)
}

/// Asks for a page. Its host's name is nDPI's, not from a hello, which would not be whole.
const GET: &str = "
import socket
c = socket.create_connection(('10.9.0.2', 80))
c.sendall(b'GET / HTTP/1.1\\r\\nHost: www.example.org\\r\\nCookie: ' + b'x' * 1000 + b'\\r\\n\\r\\n')
c.recv(100)
";

/// A frame longer than the snapshot length is dissected as far as it goes: a name that stands in
/// the part that is there is found.
#[test]
fn a_frame_beyond_the_snapshot_length_is_dissected_as_far_as_it_goes() -> Result<()> {
    if !root::available("a_frame_beyond_the_snapshot_length_is_dissected_as_far_as_it_goes")? {
        return Ok(());
    }
    for ingress in ["xdp", "tcx"] {
        let link = Link::new()?;
        let options = ["--snapshot-length=200", "--ingress", ingress, WIRE];
        let meters = (Meter::start(&link.near, &options)?, Meter::start(&link.far, &options)?);
        let port = ["-m", "http.server", "--bind", "10.9.0.2", "80"];
        let server = Background::start(&link.far, "python3", &port)?;
        eventually(|| link.near.python(GET, &[]))?;
        drop(server);
        for meter in [meters.0, meters.1] {
            let log = meter.stop()?;
            log.check_balance()?;
            let asks = |flow: &Value| number(flow, "src2dst_payload_bytes") > 1_000;
            let flow = log.the(asks)?;
            ensure!(flow["application_name"] == "HTTP", "{ingress}: {flow:#}");
            ensure!(flow["requested_server_name"] == NAME, "{ingress}: {flow:#}");
        }
    }
    Ok(())
}
