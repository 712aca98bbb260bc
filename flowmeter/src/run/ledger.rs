//! What became of the flows?
//!
//! Whatever comes out of a collector is numbered and handed to the outputs, or is not wanted. The
//! ledger gives the numbers and counts.

use crate::output::Sum;

/// The flows of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Flows that ended.
    pub ended: Sum,
    /// Flows that were not wanted: they came after `max_nflows` others, or when the run was over.
    pub withheld: Sum,
    /// Flows handed to the outputs.
    pub given: Sum,
    max_nflows: u64,
}

impl Ledger {
    /// Of a run that ends after this many flows.
    pub fn new(max_nflows: Option<u64>) -> Self {
        Self {
            ended: Sum::default(),
            withheld: Sum::default(),
            given: Sum::default(),
            max_nflows: max_nflows.unwrap_or(u64::MAX),
        }
    }

    /// A flow of this many packets has ended.
    pub fn ended(&mut self, packets: u64) {
        self.ended += Sum::flow(packets);
    }

    /// The number of the next flow, which has this many packets, from 0. `None` if no more are wanted.
    pub fn number(&mut self, packets: u64) -> Option<u64> {
        if self.is_full() {
            self.withhold(packets);
            return None;
        }
        let number = self.given.flows;
        self.given += Sum::flow(packets);
        Some(number)
    }

    /// A flow of this many packets is not wanted.
    pub fn withhold(&mut self, packets: u64) {
        self.withheld += Sum::flow(packets);
    }

    /// These have ended, and are not wanted.
    pub fn leave_out(&mut self, flows: Sum) {
        self.ended += flows;
        self.withheld += flows;
    }

    /// Whether there are flows enough, `coming` ones included that will still be given.
    pub fn has_enough(&self, coming: u64) -> bool {
        self.given.flows.saturating_add(coming) >= self.max_nflows
    }

    /// Whether there are flows enough.
    pub fn is_full(&self) -> bool {
        self.has_enough(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_with_the_last_flow_that_is_wanted() {
        let mut ledger = Ledger::new(Some(2));
        assert!(!ledger.has_enough(1) && ledger.has_enough(2));
        assert_eq!([3, 4, 5].map(|packets| ledger.number(packets)), [Some(0), Some(1), None]);
        assert_eq!((ledger.given.packets, ledger.withheld.packets), (7, 5));
    }
}
