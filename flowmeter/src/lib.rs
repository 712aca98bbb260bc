//! A Linux host flow meter.
//!
//! The modules stand in data order, from the packet to the line in the log; `engine` wires them.
//! See `ARCHITECTURE.md`.

pub mod notice;
mod redact;
mod stat;
mod users;
pub mod capture;
pub mod table;
pub mod collector;
pub mod dissect;
pub mod attribution;
pub mod flow;
pub mod fields;
pub mod format;
pub mod output;
pub mod report;
pub mod run;
