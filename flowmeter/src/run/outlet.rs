//! Which outputs has a run?

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use crate::flow::Flow;
use crate::format::Format;
use crate::output::{Error, Output, queue};

/// An output of a run, and what it gets.
pub struct Outlet {
    pub(super) name: String,
    pub(super) takes: Takes,
    pub(super) queue: queue::Options,
}

pub(super) enum Takes {
    /// Rows of a format.
    Rows(Arc<dyn Format>, Box<dyn Output>),
    /// Flows, as they are.
    Flows(Take),
}

/// Takes a flow.
pub(super) type Take = Box<dyn FnMut(Flow) -> Result<(), Error> + Send>;

impl Outlet {
    /// Rows of a format for an output, which `name` stands for in notices and reports.
    pub fn rows(name: &str, format: Arc<dyn Format>, output: Box<dyn Output>) -> Self {
        Self::new(name, Takes::Rows(format, output))
    }

    /// Every flow is given to a function. Live it is called by a thread of its own.
    pub fn flows(mut take: impl FnMut(Flow) + Send + 'static) -> Self {
        Self::new(
            "the function",
            Takes::Flows(Box::new(move |flow| {
                take(flow);
                Ok(())
            })),
        )
    }

    /// Every flow is sent to a channel. The run ends when the channel's other end is gone.
    pub fn channel(sender: SyncSender<Flow>) -> Self {
        Self::new(
            "the channel",
            Takes::Flows(Box::new(move |flow| {
                sender.send(flow).map_err(|_| Error::Closed { name: "the channel".into() })
            })),
        )
    }

    fn new(name: &str, takes: Takes) -> Self {
        Self { name: name.to_owned(), takes, queue: queue::Options::default() }
    }

    /// How much may wait for it live, and what becomes of the rest. A run that reads captures waits
    /// for its outputs.
    #[must_use]
    pub fn with_queue(mut self, queue: queue::Options) -> Self {
        self.queue = queue;
        self
    }
}

impl<F: FnMut(Flow) + Send + 'static> From<F> for Outlet {
    fn from(take: F) -> Self {
        Self::flows(take)
    }
}
