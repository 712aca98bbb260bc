//! What if more happens to sockets than the meter can take in?

use std::collections::HashSet;

use super::*;

/// Opens sockets until standard input ends, and says when it has. Argument: how many.
const HOARD: &str = "
import resource, socket, sys
count = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 50, count + 50))
hoard = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
print(count, flush=True)
sys.stdin.read()
";

/// Sockets that a meter remembers here.
const MOST: &str = "3000";

#[test]
fn an_overload_costs_what_it_hides_and_nothing_after_it() -> Result<()> {
    if !root::available("an_overload_costs_what_it_hides_and_nothing_after_it")? {
        return Ok(());
    }
    let link = Link::new()?;
    let servers = Servers::start(&link.far, "0.0.0.0", 4)?;
    let talkers = Talkers::start(&link.near, "10.9.0.2", 2)?;
    let near = Meter::start(&link.near, &options(&["--idle-timeout=1", "--max-sockets", MOST]))?;
    // This one has no cookies to go by, only addresses.
    let far = Meter::start(&link.far, &options(&["--idle-timeout=1", "--direction=ingress"]))?;
    let mut hoard = link.near.command("python3");
    hoard.args(["-c", HOARD, MOST]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut hoard = hoard.spawn()?;
    let stdout = hoard.stdout.take().context("it is piped")?;
    BufReader::new(stdout).read_line(&mut String::new())?;

    let short = |connections, datagrams| {
        truths(&link.near.python(SHORT, &["10.9.0.2", PORT, connections, datagrams, "4"])?)
    };
    let first = short("100", "100")?;
    let meters = [&near, &far];
    for meter in meters {
        meter.signal(libc::SIGSTOP);
    }
    let hidden = short("7000", "300")?;
    // Nobody is told that all of these are closed.
    drop(hoard.stdin.take());
    hoard.wait()?;
    for meter in meters {
        meter.signal(libc::SIGCONT);
    }
    for meter in meters {
        // Flows are written after all that happened to sockets has been taken in.
        meter.wait_for(|flows| flows.len() > first.len() + 1000)?;
    }
    let last = short("200", "200")?;
    let served = servers.truths()?;
    let (near, far) = (near.stop()?, far.stop()?);

    let did = || first.iter().chain(&hidden).chain(&last);
    let clients: HashSet<_> = last.iter().map(|truth| (truth.protocol, truth.port)).collect();
    let is_last = |truth: &&Truth| clients.contains(&(truth.protocol, truth.port));
    for (what, log, all, after) in [
        (
            "near",
            &near,
            score_among(&near, did(), did(), Side::Client),
            score_among(&near, &last, did(), Side::Client),
        ),
        (
            "far",
            &far,
            score(&far, &served, Side::Server),
            score_among(&far, served.iter().filter(is_last), &served, Side::Server),
        ),
    ] {
        let lost = number(&log.report["sockets"], "events_lost");
        println!("{what}: {lost} events lost, {} right, {} of nobody", all.right, all.none);
        ensure!(lost > 0 && all.none > 0, "{what}: nothing was lost: {:#}", log.report);
        // What is left of a connection that nobody was told of is the listener, which procfs gives
        // to the first of the processes that have it: the workers' parent.
        let is_listeners = |wrong: &String| what == "far" && wrong.ends_with("by \"procfs\"");
        ensure!(all.wrong.iter().all(is_listeners) && all.missing == 0, "{what}: {all:#?}");
        let is_honest = |flow: &Value| {
            let is_known = flow["system_process_pid"] != -1;
            is_known == (flow["attribution_method"] != "none")
        };
        ensure!(log.flows.iter().all(is_honest), "{what}");
        after.check(&format!("{what}, after it"))?;
        log.check_balance()?;
    }
    let evicted = number(&near.report["sockets"], "evicted_open");
    ensure!(evicted > 0, "{:#}", near.report);
    score(&near, &talkers.truths, Side::Client).check("all along")
}

/// Sockets that a meter remembers here.
const FEW: &str = "100";

#[test]
fn a_forgotten_socket_is_not_the_other_ends() -> Result<()> {
    if !root::available("a_forgotten_socket_is_not_the_other_ends")? {
        return Ok(());
    }
    let link = Link::new()?;
    let servers = Servers::start(&link.far, "0.0.0.0", 2)?;
    let near = Meter::start(&link.near, &options(&["--idle-timeout=5", "--max-sockets", FEW]))?;
    let truths = truths(&link.near.python(SHORT, &["10.9.0.2", PORT, "1000", "0", "4"])?)?;
    let near = near.stop()?;
    servers.truths()?;
    // The other end's processes are known, and none of theirs is one of this end.
    let clients: HashSet<_> = truths.iter().map(|truth| truth.pid).collect();
    let (mut right, mut none) = (0, 0);
    for flow in near.flows.iter().filter(|flow| flow["dst_port"] == SERVED) {
        match number(flow, "dst_process_pid") {
            0 => {}
            server => ensure!(!clients.contains(&server), "{flow:#}"),
        }
        match flow["system_process_pid"].as_u64() {
            Some(pid) => {
                ensure!(clients.contains(&pid), "{flow:#}");
                right += 1;
            }
            None => none += 1,
        }
    }
    println!("{right} are right, {none} of nobody");
    ensure!(right > 0 && none > 0 && near.flows.iter().any(|f| !f["dst_process_pid"].is_null()));
    near.check_balance()
}
