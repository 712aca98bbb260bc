//! What takes nDPI's place in a build without it?
//!
//! It keeps the same rules on when a flow is looked at, and knows no application.

use super::flow::Inspection;
use super::{Error, Layer7, headers};

/// Where nDPI has its tables there is only the limit.
#[derive(Debug)]
pub struct Module {
    n_dissections: u32,
}

/// Nothing is known of a flow.
#[derive(Debug)]
pub struct FlowState;

impl Module {
    /// A module that wants to see the first `n_dissections` packets of a flow.
    pub fn new(n_dissections: u32) -> Result<Self, Error> {
        Ok(Self { n_dissections })
    }

    /// Packets of a flow that are looked at.
    pub fn n_dissections(&self) -> u32 {
        self.n_dissections
    }

    /// State for a new flow.
    pub fn flow(&self) -> Option<FlowState> {
        Some(FlowState)
    }

    /// Checks a packet's headers, as nDPI's turn would begin.
    pub fn inspect(&mut self, _: &mut FlowState, ip: &[u8], _: u64, number: u32) -> Inspection {
        if number > self.n_dissections {
            return Inspection::Settled;
        }
        match headers::sound(ip) {
            None => Inspection::Refused,
            Some(_) if number == self.n_dissections => Inspection::Settled,
            Some(_) => Inspection::Wanting,
        }
    }

    /// The verdict without a name.
    pub fn finish(&mut self, _: FlowState) -> Layer7 {
        Layer7 {
            application_name: "Unknown".into(),
            application_category_name: "Unspecified".into(),
            ..Layer7::default()
        }
    }
}
