//! Whose is a socket when its process is in another network namespace?

use super::*;

const MOVED: &str = include_str!("moved.py");

#[test]
fn sockets_stay_where_they_were_made() -> Result<()> {
    if !root::available("sockets_stay_where_they_were_made")? {
        return Ok(());
    }
    let link = Link::new()?;
    // What only arrives has no cookies: addresses must tell, and those of one namespace alone.
    let near = Meter::start(&link.near, &options(&["--direction=ingress"]))?;
    let far = Meter::start(&link.far, &options(&["--direction=ingress"]))?;
    let _servers = Servers::start(&link.far, "0.0.0.0", 1)?;
    let told = link.near.python(MOVED, &[link.far.name()])?;
    let (near, far) = (near.stop()?, far.stop()?);
    ensure!(told.lines().count() == 4, "{told}");
    for line in told.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [port, pid, name] = words[..] else { continue };
        let (port, pid): (u64, u64) = (port.parse()?, pid.parse()?);
        let log = if name == "stranger" { &far } else { &near };
        let flow = log.the(|flow| flow["dst_port"] == port)?;
        let is_right = flow["dst_process_pid"] == pid && flow["dst_process_name"] == name;
        ensure!(is_right, "{line}: {} {}", flow["dst_process_pid"], flow["dst_process_name"]);
        ensure!(flow["attribution_method"] == "socket", "{line}: {flow:#}");
    }
    Ok(())
}
