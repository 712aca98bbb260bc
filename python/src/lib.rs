//! flowmeter for Python: the compiled half.
//!
//! `flowmeter/` beside it has NFStream's API; what is here runs the meter and makes objects of flows.

#![expect(clippy::needless_pass_by_value, reason = "what comes from Python is a value")]

mod flow;
mod options;
mod packet;
mod plugins;
mod run;
mod shipped;
mod table;

use pyo3::prelude::*;

/// Of `flowmeter._engine`.
#[pymodule]
mod _engine {
    #[pymodule_export]
    use super::flow::{NFlow, restore};
    #[pymodule_export]
    use super::run::{Run, meter};
    #[pymodule_export]
    use super::shipped::{dhcp_changes, ja4_client, ja4_server, mdns_add, wavelet_features};
    #[pymodule_export]
    use super::table::{csv_file, csv_text, filter_error};
}
