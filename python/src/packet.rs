//! What is a packet to Python?

use flowmeter::fields::Value;
use flowmeter::flow::End;
use flowmeter::plugin::Packet;
use flowmeter::{Layer, Side};
use flowmeter_common::knobs::MILLISECOND;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

/// The texts of a flow's end, made once, or what plugins have set in their place.
pub struct EndTexts {
    ip: Py<PyAny>,
    mac: Py<PyAny>,
    oui: Py<PyAny>,
}

impl EndTexts {
    /// Of this end.
    pub fn new(py: Python<'_>, end: &End) -> Self {
        let [a, b, c, ..] = end.mac;
        let text = |value: Value<'_>| {
            let mut text = Vec::new();
            value.push_text(&mut text);
            PyString::new(py, &String::from_utf8_lossy(&text)).into_any().unbind()
        };
        Self {
            ip: text(Value::Ip(end.ip)),
            mac: text(Value::Mac(end.mac)),
            oui: text(Value::Oui([a, b, c])),
        }
    }

    /// Takes what was set of `ip`, `mac` and `oui`. Gives what was there before.
    pub fn replace(&mut self, set: impl Fn(&str) -> Option<Py<PyAny>>) -> Vec<Py<PyAny>> {
        let parts = [(&mut self.ip, "ip"), (&mut self.mac, "mac"), (&mut self.oui, "oui")];
        let replaced = parts.into_iter().filter_map(|(part, name)| {
            let new = set(name)?;
            Some(std::mem::replace(part, new))
        });
        replaced.collect()
    }
}

/// Makes packets: NFStream's `NFPacket`.
pub struct Maker {
    class: Py<PyAny>,
    new: Py<PyAny>,
}

impl Maker {
    /// By `flowmeter.flow.nf_packet`.
    pub fn new(py: Python<'_>) -> PyResult<Self> {
        let class = py.import("flowmeter.flow")?.getattr("nf_packet")?.unbind();
        let new = py.get_type::<PyTuple>().getattr("__new__")?.unbind();
        Ok(Self { class, new })
    }

    /// The packet of a flow with these ends.
    pub fn packet<'py>(
        &self,
        py: Python<'py>,
        packet: &Packet<'_>,
        [src, dst]: &[EndTexts; 2],
    ) -> PyResult<Bound<'py, PyAny>> {
        let is_back = packet.direction == Side::Dst2Src;
        let (from, to) = if is_back { (dst, src) } else { (src, dst) };
        let headers = packet.headers;
        let flag = |bit: u8| int(py, u64::from(headers.tcp_flags >> bit & 1));
        let text = |text: &Py<PyAny>| text.bind(py).clone();
        let size = |layer| int(py, u64::from(packet.size(layer)));
        let fields = [
            int(py, packet.time_ns / MILLISECOND),
            int(py, packet.delta_ms()),
            int(py, u64::from(is_back)),
            size(Layer::Link),
            size(Layer::Ip),
            size(Layer::Transport),
            size(Layer::Payload),
            text(&from.ip),
            text(&from.mac),
            text(&from.oui),
            text(&to.ip),
            text(&to.mac),
            text(&to.oui),
            int(py, u64::from(headers.src_port)),
            int(py, u64::from(headers.dst_port)),
            int(py, u64::from(headers.protocol)),
            int(py, u64::from(headers.vlan)),
            int(py, u64::from(headers.ip_version)),
            PyBytes::new(py, packet.ip).into_any(),
            // In the order of NFPacket: syn cwr ece urg ack psh rst fin.
            flag(1),
            flag(7),
            flag(6),
            flag(5),
            flag(4),
            flag(3),
            flag(2),
            flag(0),
            int(py, u64::from(headers.tunnel)),
        ];
        self.new.bind(py).call1((self.class.bind(py), PyTuple::new(py, fields)?))
    }
}

fn int(py: Python<'_>, n: u64) -> Bound<'_, PyAny> {
    pyo3::types::PyInt::new(py, n).into_any()
}
