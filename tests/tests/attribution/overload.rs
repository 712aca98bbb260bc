//! What if more happens to sockets than the meter can take in?

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
    let near = Meter::start(&link.near, &options(&["--max-sockets", MOST]))?;
    // This one has no cookies to go by, only addresses.
    let far = Meter::start(&link.far, &options(&["--direction=ingress"]))?;
    let mut hoard = link.near.command("python3");
    hoard.args(["-c", HOARD, MOST]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut hoard = hoard.spawn()?;
    let stdout = hoard.stdout.take().context("it is piped")?;
    BufReader::new(stdout).read_line(&mut String::new())?;

    let short = |count| truths(&link.near.python(SHORT, &["10.9.0.2", PORT, count, count, "4"])?);
    let first = short("100")?;
    let meters = [&near, &far];
    for meter in meters {
        meter.signal(libc::SIGSTOP);
    }
    let hidden = short("5000")?;
    // Nobody is told that all of these are closed.
    drop(hoard.stdin.take());
    hoard.wait()?;
    for meter in meters {
        meter.signal(libc::SIGCONT);
    }
    for meter in meters {
        meter.wait_for(|flows| flows.len() > first.len() + 1000)?;
    }
    let last = short("200")?;
    let served = servers.truths()?;
    let (near, far) = (near.stop()?, far.stop()?);

    for (what, log, truths, side) in
        [("near", &near, &hidden, Side::Client), ("far", &far, &served, Side::Server)]
    {
        let lost = number(&log.report["sockets"], "events_lost");
        let score = score(log, truths, side);
        println!("{what}: {lost} events lost, {} right, {} of nobody", score.right, score.none);
        ensure!(lost > 0, "{what}: nothing was lost");
        ensure!(score.wrong.is_empty() && score.missing == 0, "{what}: {score:#?}");
        let by = |method| log.flows.iter().filter(|f| f["attribution_method"] == method).count();
        ensure!(score.none > 0 && by("none") > 0 && by("socket") > 0, "{what}: {score:#?}");
        log.check_balance()?;
    }
    let evicted = number(&near.report["sockets"], "evicted_open");
    ensure!(evicted > 0, "{:#}", near.report);
    score(&near, &first, Side::Client).check("before")?;
    score(&near, &last, Side::Client).check("after")?;
    score(&near, &talkers.truths, Side::Client).check("all along")?;
    let clients: Vec<u64> = last.iter().map(|truth| truth.port).collect();
    let served: Vec<Truth> = served
        .into_iter()
        .rev()
        .filter(|truth| clients.contains(&truth.port))
        .take(last.len())
        .collect();
    score(&far, &served, Side::Server).check("after, by address")
}
