//! flowmeter for Python: the compiled half.
//!
//! `flowmeter/` beside it has NFStream's API; what is here runs the meter and makes objects of flows.

#![expect(clippy::needless_pass_by_value, reason = "what comes from Python is a value")]

mod arrays;
mod collector;
mod csv;
mod flow;
mod infer;
mod meter;
mod objects;
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
    use super::collector::Collector;
    #[pymodule_export]
    use super::csv::{csv_file, csv_text, filter_error};
    #[pymodule_export]
    use super::flow::{NFlow, restore};
    #[pymodule_export]
    use super::meter::Reports;
    #[pymodule_export]
    use super::options::{described, groups, names};
    #[pymodule_export]
    use super::run::{Run, meter};
    #[pymodule_export]
    use super::shipped::{dhcp_changes, ja4_client, ja4_server, mdns_add, wavelet_features};
    #[pymodule_export]
    use super::table::{Table, arrow_stream, parquet_file, table};
}
