//! What dissects the flows of a worker?
//!
//! An nDPI module for each part of the flows it has, so that what nDPI learns from one flow about
//! others does not depend on the number of workers.

#[cfg(feature = "ndpi")]
mod with_ndpi {
    use flowmeter_common::key::FlowKey;

    use crate::collector::pcap::Share;
    use crate::dissect::ndpi::{FlowState, Module};
    use crate::dissect::{self, Layer7};

    /// What the dissector knows of a flow.
    pub type Kept = Option<FlowState>;

    /// The dissector of one thread.
    pub struct Dissector {
        share: Share,
        /// By part; none for those of other workers, or if nothing is to be dissected.
        modules: Vec<Option<Module>>,
    }

    impl Dissector {
        pub fn new(n_dissections: u32, share: Share) -> Result<Self, dissect::Error> {
            let modules = (0..share.parts)
                .map(|part| {
                    let wanted = n_dissections > 0 && share.has_part(part);
                    wanted.then(|| Module::new(n_dissections)).transpose()
                })
                .collect::<Result<_, _>>()?;
            Ok(Self { share, modules })
        }

        pub fn inspect(
            &mut self,
            key: &FlowKey,
            kept: &mut Kept,
            ip: &[u8],
            time_ms: u64,
            number: u32,
        ) {
            let Some(module) = self.module(key) else { return };
            if kept.is_none() {
                *kept = module.flow();
            }
            if let Some(flow) = kept {
                module.inspect(flow, ip, time_ms, number);
            }
        }

        pub fn finish(&mut self, key: &FlowKey, kept: Kept) -> Option<Layer7> {
            let flow = kept?;
            Some(self.module(key)?.finish(flow))
        }

        fn module(&mut self, key: &FlowKey) -> Option<&mut Module> {
            self.modules.get_mut(self.share.part(key) as usize)?.as_mut()
        }
    }
}

/// Without nDPI there is no verdict.
#[cfg(not(feature = "ndpi"))]
mod without_ndpi {
    use flowmeter_common::key::FlowKey;

    use crate::collector::pcap::Share;
    use crate::dissect::{self, Layer7};

    /// Nothing.
    pub type Kept = ();

    pub struct Dissector;

    impl Dissector {
        #[expect(clippy::unnecessary_wraps, reason = "with nDPI it can fail")]
        pub fn new(_: u32, _: Share) -> Result<Self, dissect::Error> {
            Ok(Self)
        }

        #[expect(clippy::unused_self, reason = "with nDPI it is used")]
        pub fn inspect(&mut self, _: &FlowKey, _: &mut Kept, _: &[u8], _: u64, _: u32) {}

        #[expect(clippy::unused_self, reason = "with nDPI it is used")]
        pub fn finish(&mut self, _: &FlowKey, _: Kept) -> Option<Layer7> {
            None
        }
    }
}

#[cfg(feature = "ndpi")]
pub use with_ndpi::{Dissector, Kept};
#[cfg(not(feature = "ndpi"))]
pub use without_ndpi::{Dissector, Kept};
