//! The kernel half of flowmeter: entry points only.
//!
//! Ingress is XDP, or tc where a driver has no native XDP; egress is tc, since XDP sees only what
//! arrives. Every program passes every packet on. [`meter`] says what happens in between.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod clock;
mod exec;
mod heard;
mod maps;
mod meter;
mod owner;
mod packet;
mod parse;
mod pids;
mod reap;
mod users;

use aya_ebpf::bindings::{TC_ACT_UNSPEC, xdp_action::XDP_PASS};
use aya_ebpf::macros::{
    btf_tracepoint, cgroup_sock, cgroup_sock_addr, classifier, fentry, sock_ops, xdp,
};
use aya_ebpf::programs::{
    BtfTracePointContext, FEntryContext, SockAddrContext, SockContext, SockOpsContext, TcContext,
    XdpContext,
};

use flowmeter_common::owner::{BEGUN, HELD, RECEIVED, SENT};

use crate::heard::Port;
use crate::packet::{LinearXdpFrame, TcFrame, XdpFrame};

/// Of the flags of `recvmsg`: what is received stays.
const MSG_PEEK: i32 = 2;

/// Meters what arrives.
#[xdp(frags)]
pub fn flowmeter_xdp(ctx: XdpContext) -> u32 {
    let _ = meter::meter(&XdpFrame::new(&ctx));
    XDP_PASS
}

/// As [`flowmeter_xdp`], before Linux 5.18.
#[xdp]
pub fn flowmeter_xdp_linear(ctx: XdpContext) -> u32 {
    let _ = meter::meter(&LinearXdpFrame::new(&ctx));
    XDP_PASS
}

/// Meters what arrives on interfaces without native XDP.
#[classifier]
pub fn flowmeter_tc_in(ctx: TcContext) -> i32 {
    let _ = meter::meter(&TcFrame::<0>::new(&ctx));
    TC_ACT_UNSPEC
}

/// Meters what leaves.
#[classifier]
pub fn flowmeter_tc_out(ctx: TcContext) -> i32 {
    let _ = meter::meter(&TcFrame::<1>::new(&ctx));
    TC_ACT_UNSPEC
}

/// Takes ended flows out of the map. Run by userspace, never attached.
#[xdp]
pub fn flowmeter_reap(ctx: XdpContext) -> u32 {
    reap::reap(&ctx).unwrap_or(0)
}

/// Says what time it is by the kernel's clock. Run by userspace, never attached.
#[xdp]
pub fn flowmeter_clock(_ctx: XdpContext) -> u32 {
    clock::answer();
    XDP_PASS
}

/// A process makes a socket, which it may.
#[cgroup_sock(sock_create)]
pub fn flowmeter_socket(ctx: SockContext) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe { owner::created(ctx.sock) };
    1
}

/// A process has bound a socket of IPv4, which it may.
#[cgroup_sock(post_bind4)]
pub fn flowmeter_bind4(ctx: SockContext) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe { owner::bound(ctx.sock, 4) };
    1
}

/// A process has bound a socket of IPv6, which it may.
#[cgroup_sock(post_bind6)]
pub fn flowmeter_bind6(ctx: SockContext) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe { owner::bound(ctx.sock, 6) };
    1
}

/// The last descriptor of a socket is closed.
#[cgroup_sock(sock_release)]
pub fn flowmeter_release(ctx: SockContext) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe { owner::released(ctx.sock) };
    1
}

/// A process sends a datagram over IPv4 to a peer that its socket is not connected to, which it may.
#[cgroup_sock_addr(sendmsg4)]
pub fn flowmeter_sends4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe { owner::sends(ctx.sock_addr) };
    1
}

/// A process sends a datagram over IPv6 to a peer that its socket is not connected to, which it may.
#[cgroup_sock_addr(sendmsg6)]
pub fn flowmeter_sends6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe { owner::sends(ctx.sock_addr) };
    1
}

/// A process connects a socket over IPv4, which it may.
#[cgroup_sock_addr(connect4)]
pub fn flowmeter_connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe { owner::connects(ctx.sock_addr) };
    1
}

/// A process connects a socket over IPv6, which it may.
#[cgroup_sock_addr(connect6)]
pub fn flowmeter_connect6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe { owner::connects(ctx.sock_addr) };
    1
}

/// A process has sent by a socket.
#[btf_tracepoint(function = "sock_send_length")]
pub fn flowmeter_send(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the argument is a socket that the kernel holds.
    unsafe { owner::used(ctx.arg(0), SENT) };
    0
}

/// A process has received by a socket.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn flowmeter_receive(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the argument is a socket that the kernel holds.
    unsafe { owner::used(ctx.arg(0), received(ctx.arg(2))) };
    0
}

/// A process sends by a socket of IPv4. Before Linux 6.3, which has no tracepoint for it.
#[fentry(function = "inet_sendmsg")]
pub fn flowmeter_send4(ctx: FEntryContext) -> i32 {
    // SAFETY: the argument is a `struct socket` that the kernel holds.
    unsafe { owner::entered(ctx.arg(0), BEGUN) };
    0
}

/// A process sends by a socket of IPv6. Before Linux 6.3.
#[fentry(function = "inet6_sendmsg")]
pub fn flowmeter_send6(ctx: FEntryContext) -> i32 {
    // SAFETY: the argument is a `struct socket` that the kernel holds.
    unsafe { owner::entered(ctx.arg(0), BEGUN) };
    0
}

/// A process sends pages by a socket: `sendfile` and `splice`. Before Linux 6.5.
#[fentry(function = "inet_sendpage")]
pub fn flowmeter_send_page(ctx: FEntryContext) -> i32 {
    // SAFETY: the argument is a `struct socket` that the kernel holds.
    unsafe { owner::entered(ctx.arg(0), BEGUN) };
    0
}

/// A process receives by a socket of IPv4. Before Linux 6.3.
#[fentry(function = "inet_recvmsg")]
pub fn flowmeter_receive4(ctx: FEntryContext) -> i32 {
    // SAFETY: the argument is a `struct socket` that the kernel holds.
    unsafe { owner::entered(ctx.arg(0), received(ctx.arg(3))) };
    0
}

/// A process receives by a socket of IPv6. Before Linux 6.3.
#[fentry(function = "inet6_recvmsg")]
pub fn flowmeter_receive6(ctx: FEntryContext) -> i32 {
    // SAFETY: the argument is a `struct socket` that the kernel holds.
    unsafe { owner::entered(ctx.arg(0), received(ctx.arg(3))) };
    0
}

/// A process has the kernel move what has come over TCP to a pipe, which it may do without ever
/// receiving.
#[fentry(function = "tcp_splice_read")]
pub fn flowmeter_splice(ctx: FEntryContext) -> i32 {
    // SAFETY: the argument is a `struct socket` that the kernel holds.
    unsafe { owner::used(owner::sock_of(ctx.arg(0)), RECEIVED) };
    0
}

/// As [`flowmeter_splice`], before Linux 6.3.
#[fentry(function = "tcp_splice_read")]
pub fn flowmeter_receive_page(ctx: FEntryContext) -> i32 {
    // SAFETY: the argument is a `struct socket` that the kernel holds.
    unsafe { owner::entered(ctx.arg(0), RECEIVED) };
    0
}

/// What a process does that receives with these flags.
#[inline(always)]
fn received(flags: i32) -> u8 {
    if flags & MSG_PEEK != 0 { HELD } else { RECEIVED }
}

/// A connection has come about. Before Linux 6.3.
#[sock_ops]
pub fn flowmeter_connection(ctx: SockOpsContext) -> u32 {
    // SAFETY: the context is the kernel's.
    unsafe { owner::connected(ctx.ops) };
    1
}

/// A process runs another program.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn flowmeter_exec(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the arguments are the task, which runs, and its new program.
    unsafe { exec::executed(ctx.arg(0), ctx.arg(2)) };
    0
}

/// A process makes another one.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn flowmeter_fork(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the arguments are the task, which runs, and the one that it has made.
    unsafe { exec::forked(ctx.arg(0), ctx.arg(1)) };
    0
}

/// A cgroup is made.
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn flowmeter_cgroup(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the arguments are the cgroup and its path.
    unsafe { exec::cgroup_made(ctx.arg(0), ctx.arg(1)) };
    0
}

/// A process takes a datagram out of a socket of IPv4, which it may.
#[cgroup_sock_addr(recvmsg4)]
pub fn flowmeter_heard4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe { heard::heard(ctx.sock_addr, 4, Port::Asked) };
    1
}

/// A process takes a datagram out of a socket of IPv6, which it may.
#[cgroup_sock_addr(recvmsg6)]
pub fn flowmeter_heard6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe { heard::heard(ctx.sock_addr, 6, Port::Asked) };
    1
}

/// As [`flowmeter_heard4`], where a socket's options cannot be asked for.
#[cgroup_sock_addr(recvmsg4)]
pub fn flowmeter_heard4_any(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe { heard::heard(ctx.sock_addr, 4, Port::Unknown) };
    1
}

/// As [`flowmeter_heard6`], where a socket's options cannot be asked for.
#[cgroup_sock_addr(recvmsg6)]
pub fn flowmeter_heard6_any(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe { heard::heard(ctx.sock_addr, 6, Port::Unknown) };
    1
}

/// Parses only and leaves the verdict in `PARSED`. For tests and benchmarks, never attached.
#[xdp(frags)]
pub fn flowmeter_parse(ctx: XdpContext) -> u32 {
    let _ = parse::verdict(&XdpFrame::new(&ctx));
    XDP_PASS
}

/// As [`flowmeter_parse`], before Linux 5.18.
#[xdp]
pub fn flowmeter_parse_linear(ctx: XdpContext) -> u32 {
    let _ = parse::verdict(&LinearXdpFrame::new(&ctx));
    XDP_PASS
}

/// As [`flowmeter_parse`], of a socket buffer.
#[classifier]
pub fn flowmeter_tc_parse(ctx: TcContext) -> i32 {
    let _ = parse::verdict(&TcFrame::<0>::new(&ctx));
    TC_ACT_UNSPEC
}

/// Does nothing: the floor that benchmarks compare with. Never attached.
#[xdp(frags)]
pub fn flowmeter_pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// A panic that survives compilation is an endless loop, so the verifier refuses the program.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
