//! Whose is a flow while fragments without their first go out on its CPU?

use super::*;

/// Sends later fragments until its input ends. Arguments: where to, and from what address.
const FRAGMENTS: &str = "
import select, socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
a, b = sys.argv[2], sys.argv[1]
packet = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 0, 77, 64, 9, 17, 0, socket.inet_aton(a), socket.inet_aton(b)) + b'x' * 32
print('ready', flush=True)
while not select.select([sys.stdin], [], [], 0.0002)[0]:
    s.sendto(packet, (b, 0))
";

/// Datagrams from 20 ports, one after the other, that nobody listens to. As they are for everybody,
/// nobody answers either, which would be a packet of its own.
const DATAGRAMS: &str = "
import socket, time
for i in range(20):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    s.bind(('10.9.0.2', 5000 + i))
    s.sendto(b'x', ('10.9.0.255', 9))
    time.sleep(0.01)
";

/// Makes a host a router, also of what comes from nowhere and goes back to where it came from.
const PASS_ON: &str = "
cd /proc/sys/net/ipv4
echo 1 > ip_forward
for i in all wire; do
    echo 0 > conf/$i/rp_filter
    echo 0 > conf/$i/send_redirects
done
";

/// A program that runs until its standard input ends, which it does with the value.
struct Running(Child);

impl Running {
    /// Starts it on the first CPU and waits until it says that it is ready.
    fn start(host: &Host, program: &str, args: &[&str]) -> Result<Self> {
        let mut command = host.command("taskset");
        command.args(["-c", "0", "python3", "-c", program]).args(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut ready = String::new();
        let stdout = child.stdout.take().context("it is piped")?;
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut ready)?;
        let running = Self(child);
        ensure!(ready == "ready\n", "it did not start");
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The flows of what the far host sends, on the CPU on which the fragments go out meanwhile.
fn received(link: &Link, meter: Meter, fragments: Running) -> Result<Vec<Value>> {
    link.far.run("taskset", &["-c", "0", "python3", "-c", DATAGRAMS])?;
    drop(fragments);
    let log = meter.stop()?;
    log.check_balance()?;
    let orphans = &log.report["interfaces"][0]["egress"]["ignored"]["orphan_fragment"];
    ensure!(orphans.as_u64() > Some(100), "{orphans} fragments went out");
    let is_received = |flow: &Value| flow["src_ip"] == "10.9.0.2" && flow["dst_port"] == 9;
    let flows: Vec<_> = log.flows.into_iter().filter(is_received).collect();
    ensure!(flows.len() == 20, "{} flows", flows.len());
    Ok(flows)
}

#[test]
fn who_sends_fragments_has_not_what_arrives_meanwhile() -> Result<()> {
    if !root::available("who_sends_fragments_has_not_what_arrives_meanwhile")? {
        return Ok(());
    }
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &options(&[]))?;
    let fragments = Running::start(&link.near, FRAGMENTS, &["10.9.0.2", "10.9.0.1"])?;
    let flows = received(&link, meter, fragments)?;
    let wrong = flows.iter().filter(|flow| !flow["src_process_pid"].is_null()).count();
    ensure!(wrong == 0, "{wrong} of 20 flows have a process: {:#}", flows[0]);
    Ok(())
}

#[test]
fn fragments_that_are_passed_on_do_not_make_others_so() -> Result<()> {
    if !root::available("fragments_that_are_passed_on_do_not_make_others_so")? {
        return Ok(());
    }
    let link = Link::new()?;
    let meter = Meter::start(&link.near, &options(&[]))?;
    // The near host passes on what is for 10.10.0.0/16, back to the far one.
    link.near.run("sh", &["-c", PASS_ON])?;
    link.near.run("ip", &["route", "add", "10.10.0.0/16", "via", "10.9.0.2"])?;
    link.far.run("ip", &["route", "add", "10.10.0.0/16", "via", "10.9.0.1"])?;
    let fragments = Running::start(&link.far, FRAGMENTS, &["10.10.0.1", "10.11.0.1"])?;
    let flows = received(&link, meter, fragments)?;
    let wrong = flows.iter().filter(|flow| flow["attribution_origin"] != "unknown").count();
    ensure!(wrong == 0, "{wrong} of 20 flows are passed on: {:#}", flows[0]);
    Ok(())
}
