//! A Linux host flow meter.
//!
//! The modules stand in data order, from the packet to the line in the log; `engine` wires them.
//! See `ARCHITECTURE.md`.

pub mod signals;
mod redact;
mod stat;
mod users;
pub mod capture;
pub mod table;
pub mod collector;
pub mod dissect;
pub mod attribution;
pub mod record;
pub mod fields;
pub mod sink;

pub mod annotate;
pub mod engine;
pub mod read;
pub mod health;
pub mod watch;
pub mod privileges;
pub mod descriptors;

pub mod cli;
pub mod config;
pub mod doctor;
