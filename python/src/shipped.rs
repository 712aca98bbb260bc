//! What do the shipped plugins read in packets?
//!
//! The classes in `flowmeter/plugins/` keep flows' attributes; what reads bytes is the engine's.

use flowmeter::fields::Value;
use flowmeter::plugin::shipped::{Changes, Dhcp, Hello, Ja4, Mdns, Unreadable, Wavelet};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::flow::to_python;

/// New values by their names, the message's type, and whether the flow ends with it; none if there is
/// no message in the packet.
#[pyfunction]
#[expect(clippy::type_complexity, reason = "a tuple of Python's")]
pub fn dhcp_changes(
    py: Python<'_>,
    ip_packet: &[u8],
) -> PyResult<Option<(Vec<(&'static str, Py<PyAny>)>, Option<u8>, bool)>> {
    let Some(Changes { values, kind, ends }) = Dhcp::changes(ip_packet) else { return Ok(None) };
    let values = values
        .into_iter()
        .map(|(name, value)| Ok((name, to_python(py, &Value::from(&value))?.unbind())));
    Ok(Some((values.collect::<PyResult<_>>()?, kind, ends)))
}

/// Adds the names in the answers of a message to those of its flow.
#[pyfunction]
pub fn mdns_add(ip_packet: &[u8], names: &Bound<'_, PyList>) -> PyResult<()> {
    for name in Mdns::names(ip_packet) {
        if names.len() >= Mdns::MOST {
            break;
        }
        if !names.contains(&name)? {
            names.append(name)?;
        }
    }
    Ok(())
}

/// Fingerprint and random bytes of the client's hello in a packet; none if there is none to be read.
#[pyfunction]
pub fn ja4_client(ip_packet: &[u8]) -> Option<(String, String)> {
    Ja4::client(ip_packet).ok().flatten().map(|Hello { fingerprint, random }| (fingerprint, random))
}

/// The same of the server's; `ValueError` if the packet cannot be read.
#[pyfunction]
pub fn ja4_server(ip_packet: &[u8]) -> PyResult<Option<(String, String)>> {
    match Ja4::server(ip_packet) {
        Ok(hello) => Ok(hello.map(|Hello { fingerprint, random }| (fingerprint, random))),
        Err(Unreadable) => Err(PyValueError::new_err("the packet cannot be read")),
    }
}

/// p, u, σ and S of each row of a series' transform.
#[pyfunction]
pub fn wavelet_features(series: Vec<f64>, levels: u32) -> PyResult<Vec<f64>> {
    let values = series.len();
    Wavelet::features(series, levels).ok_or_else(|| {
        PyValueError::new_err(format!(
            "levels must be at least 1, and a series have 2**levels values: there are {values}, and \
             levels is {levels}"
        ))
    })
}
