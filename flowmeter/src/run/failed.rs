//! What is left of a run that ended before it should have?

use std::{error, fmt};

use crate::report::Report;

/// Why a run ended, and what it counted until then.
#[derive(Debug)]
pub struct Failed<E> {
    /// Why.
    pub error: E,
    /// The last report; none if nothing could be begun, or the counters could not be read.
    pub report: Option<Box<Report>>,
}

impl<E> Failed<E> {
    /// Without a report.
    pub(super) fn unreported(error: impl Into<E>) -> Self {
        Self { error: error.into(), report: None }
    }

    /// The report if all went well.
    pub(super) fn unless_well(ended: Result<(), E>, report: Report) -> Result<Report, Self> {
        match ended {
            Ok(()) => Ok(report),
            Err(error) => Err(Self { error, report: Some(Box::new(report)) }),
        }
    }
}

impl<E: fmt::Display> fmt::Display for Failed<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<E: error::Error> error::Error for Failed<E> {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.error.source()
    }
}
