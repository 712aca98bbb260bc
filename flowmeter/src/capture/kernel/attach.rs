//! Where do the programs sit?

use std::fmt;

use aya::Ebpf;
use aya::programs::tc::{self, NlOptions, SchedClassifierLinkId, TcAttachOptions};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode};

use super::{Direction, Error, Ingress, Interface, Options, classifier, sys, xdp};
use crate::notice::{Notice, Notices};

/// A place where packets are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// XDP in the driver, ingress.
    Xdp,
    /// tcx or clsact, ingress.
    TcIngress,
    /// tcx or clsact, egress.
    TcEgress,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xdp => "XDP",
            Self::TcIngress => "tc ingress",
            Self::TcEgress => "tc egress",
        })
    }
}

pub(super) const XDP: &str = "flowmeter_xdp";
/// For kernels before 5.18.
pub(super) const XDP_LINEAR: &str = "flowmeter_xdp_linear";
pub(super) const TC_IN: &str = "flowmeter_tc_in";
pub(super) const TC_OUT: &str = "flowmeter_tc_out";

/// What is attached. The links also go with the programs.
#[derive(Default)]
pub(super) struct Attached {
    xdp: Vec<(&'static str, XdpLinkId)>,
    tc: Vec<(&'static str, SchedClassifierLinkId)>,
    /// By interface.
    pub(super) hooks: Vec<Vec<Hook>>,
}

impl Attached {
    /// Takes everything off. What fails is gone with the process.
    pub(super) fn detach(&mut self, ebpf: &mut Ebpf) {
        for (name, link) in self.xdp.drain(..) {
            if let Ok(program) = xdp(ebpf, name) {
                let _ = program.detach(link);
            }
        }
        for (name, link) in self.tc.drain(..) {
            if let Ok(program) = classifier(ebpf, name) {
                let _ = program.detach(link);
            }
        }
    }
}

/// Attaches the programs to each interface.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    interfaces: &[Interface],
    options: &Options,
) -> Result<Attached, Error> {
    let mut attached = Attached::default();
    for interface in interfaces {
        let mut hooks = Vec::new();
        // Each packet on the loopback is sent and then received: one side is enough.
        let both = options.direction == Direction::Both;
        // Where a packet is sent, its socket is known.
        let only_sent = both && interface.loopback && options.attribute;
        if both && !only_sent || options.direction == Direction::Ingress {
            hooks.push(ingress(ebpf, interface, options, &mut attached)?);
        }
        if options.direction == Direction::Egress || both && !interface.loopback || only_sent {
            let link = tc(ebpf, TC_OUT, interface, TcAttachType::Egress, Hook::TcEgress)?;
            attached.tc.push((TC_OUT, link));
            hooks.push(Hook::TcEgress);
        }
        attached.hooks.push(hooks);
    }
    Ok(attached)
}

fn ingress(
    ebpf: &mut Ebpf,
    interface: &Interface,
    options: &Options,
    attached: &mut Attached,
) -> Result<Hook, Error> {
    let wanted = options.ingress;
    // At a bond XDP sees packets as its members', which are not metered.
    let is_for_tc = wanted == Ingress::Auto && (interface.loopback || interface.bond);
    if wanted != Ingress::Tcx
        && !is_for_tc
        && let Some(name) = wanted_xdp(ebpf, interface, wanted, &options.notices)?
    {
        let program: &mut Xdp = xdp(ebpf, name)?;
        match program.attach_to_if_index(interface.index, XdpMode::Driver) {
            Ok(link) => {
                attached.xdp.push((name, link));
                return Ok(Hook::Xdp);
            }
            // Not generic XDP in its place: that sees merged packets without their number.
            Err(e) if wanted == Ingress::Auto && !is_fatal(&e) => {}
            Err(e) => return Err(failed(Hook::Xdp, interface, e)),
        }
    }
    let link = tc(ebpf, TC_IN, interface, TcAttachType::Ingress, Hook::TcIngress)?;
    attached.tc.push((TC_IN, link));
    Ok(Hook::TcIngress)
}

/// The XDP program, loaded; none if the kernel refuses it and tc will do.
fn wanted_xdp(
    ebpf: &mut Ebpf,
    interface: &Interface,
    wanted: Ingress,
    notices: &Notices,
) -> Result<Option<&'static str>, Error> {
    match xdp_program(ebpf) {
        Err(Error::Program { source, .. }) if wanted == Ingress::Auto => {
            notices.send(Notice::NoXdp {
                interface: interface.name.to_string(),
                why: source.to_string(),
            });
            Ok(None)
        }
        found => found.map(Some),
    }
}

/// Loads the XDP program that this kernel takes.
pub(super) fn xdp_program(ebpf: &mut Ebpf) -> Result<&'static str, Error> {
    let refused = match xdp(ebpf, XDP) {
        Ok(_) => return Ok(XDP),
        Err(refused @ Error::Program { .. }) => refused,
        Err(e) => return Err(e),
    };
    match xdp(ebpf, XDP_LINEAR) {
        Ok(_) => Ok(XDP_LINEAR),
        // A kernel that does not know what the first one needs says nothing of it.
        Err(e) if !matches!(&refused, Error::Program { source, .. } if source.has_words()) => {
            Err(e)
        }
        Err(_) => Err(refused),
    }
}

/// Attaches a tc program: by tcx, or by clsact where the kernel has no tcx (before 6.6).
///
/// Before all others, in either direction. A program that returns anything but "next" ends the
/// chain, as most do, and what comes behind it sees nothing; what it drops, this one still sees.
fn tc(
    ebpf: &mut Ebpf,
    name: &'static str,
    interface: &Interface,
    kind: TcAttachType,
    hook: Hook,
) -> Result<SchedClassifierLinkId, Error> {
    let program: &mut SchedClassifier = classifier(ebpf, name)?;
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    match program.attach_with_options(&interface.name, kind, first) {
        Ok(link) => return Ok(link),
        Err(e) if is_fatal(&e) => return Err(failed(hook, interface, e)),
        Err(_) => {}
    }
    clsact(program, &interface.name, kind).map_err(|e| failed(hook, interface, e))
}

/// The last priority to try at clsact; the first is 1.
const MAX_PRIORITY: u16 = 16;

/// Attaches a tc program as a filter of the highest priority available.
///
/// Several programs may have the same one, and the newest comes first. But a priority is not
/// available where a filter of another kind or protocol has it. Left to itself, the kernel chooses one
/// behind most others.
fn clsact(
    program: &mut SchedClassifier,
    interface: &str,
    kind: TcAttachType,
) -> Result<SchedClassifierLinkId, ProgramError> {
    // An error here is that there is one already, or shows in the attachment.
    let _ = tc::qdisc_add_clsact(interface);
    let mut attach = |priority| {
        let options = NlOptions { priority, ..NlOptions::default() };
        program.attach_with_options(interface, kind, TcAttachOptions::Netlink(options))
    };
    let first = (1..=MAX_PRIORITY).map(&mut attach).find_map(Result::ok);
    first.map_or_else(|| attach(0), Ok)
}

/// Whether another way of attaching would fail for the same reason.
fn is_fatal(error: &ProgramError) -> bool {
    matches!(sys::os_error(error), Some(libc::EPERM | libc::ENODEV))
}

fn failed(hook: Hook, interface: &Interface, error: ProgramError) -> Error {
    let advice = match sys::os_error(&error) {
        Some(libc::EPERM) => return Error::NotPermitted,
        Some(libc::EBUSY | libc::EEXIST) => {
            ": another XDP program is attached; use `--ingress tcx`"
        }
        Some(libc::EOPNOTSUPP) if hook == Hook::Xdp => {
            ": its driver has no native XDP; use `--ingress auto`"
        }
        _ => "",
    };
    Error::Attach { hook, interface: interface.name.to_string(), advice, source: Box::new(error) }
}
