//! Where are batches dissected?
//!
//! In a contained child process, or in the thread that asks.

use std::path::PathBuf;
use std::sync::Arc;

use super::batch::Batch;
use super::contained::Landlock;
use super::contained::child::Orders;
use super::contained::process::{Contained, Losses, Recipe, Returned, Spare};
use super::dissector::{Dissector, Limits};
use super::quarantine::Quarantine;
use super::{Containment, Error, User, Verdict};
use crate::notice::Notices;

/// How places are made, all of a run alike.
#[derive(Clone, Debug)]
pub struct Places {
    containment: Containment,
    quarantine: Option<Arc<Quarantine>>,
    losses: Arc<Losses>,
    notices: Notices,
}

/// A place.
pub enum Place {
    /// This thread.
    Here(Box<Dissector>),
    /// A child process.
    Apart(Box<Contained>),
}

/// Address space of a child before its first flow, in bytes: the program, its stack, its modules
/// and batches.
const MEMORY: u64 = 1 << 30;
/// Address space for each flow, in bytes: ten times what nDPI needs for most.
const FLOW_MEMORY: u64 = 16 << 10;
/// At most this much address space.
const MAX_MEMORY: u64 = 64 << 30;

impl Places {
    /// Makes the folder for the quarantine, if one is wanted.
    pub fn new(containment: &Containment, notices: &Notices) -> Result<Self, Error> {
        let quarantine = match containment {
            Containment::Child { quarantine: Some(folder), .. } => {
                Some(Arc::new(Quarantine::new(folder).map_err(Error::Quarantine)?))
            }
            _ => None,
        };
        Ok(Self {
            containment: containment.clone(),
            quarantine,
            losses: Arc::default(),
            notices: notices.clone(),
        })
    }

    /// Makes a place, for use by this thread alone: a child ends with the thread that started it.
    /// With a spare child it goes on at once after a loss.
    pub fn make(&self, limits: Limits, spare: Spare) -> Result<Place, Error> {
        let Containment::Child { program, user, .. } = &self.containment else {
            return Ok(Place::Here(Box::new(Dissector::new(&limits)?)));
        };
        let memory = FLOW_MEMORY.saturating_mul(limits.max_flows as u64).saturating_add(MEMORY);
        let contained = Contained::start(Recipe {
            program: program.clone(),
            orders: Orders { limits, user: *user, memory: memory.min(MAX_MEMORY) },
            quarantine: self.quarantine.clone(),
            losses: Arc::clone(&self.losses),
            spare,
            notices: self.notices.clone(),
        })?;
        Ok(Place::Apart(Box::new(contained)))
    }

    /// What happened to children.
    pub fn losses(&self) -> &Losses {
        &self.losses
    }
}

/// The least that can be asked for.
const TRIAL: Limits = Limits { n_dissections: 1, max_flows: 1, parts: 1, details: false };

/// Whether a dissector starts in this process.
pub fn here() -> Result<(), Error> {
    Places::new(&Containment::InProcess, &Notices::none())?.make(TRIAL, Spare::None).map(drop)
}

/// Starts a child and says how much Landlock denies it; everything else is in force if it starts.
pub fn contained(program: PathBuf, user: User) -> Result<Landlock, Error> {
    let containment = Containment::Child { program, user, quarantine: None };
    Ok(match Places::new(&containment, &Notices::none())?.make(TRIAL, Spare::None)? {
        Place::Apart(contained) => contained.landlock(),
        Place::Here(_) => Landlock::Absent,
    })
}

impl Place {
    /// Gives a batch, and takes what has come back: of this batch, or of the one before. Returns an
    /// empty batch.
    pub fn exchange(&mut self, mut batch: Batch, take: &mut Returned) -> Batch {
        match self {
            Self::Here(dissector) => {
                let answer = dissector.work(&batch);
                take.counts.add(&answer.counts);
                take.flows = Some(answer.counts.flows);
                take.settled.extend(answer.settled);
                let verdicts = answer.verdicts.into_iter();
                let verdicts = verdicts.map(|layer7| Verdict { layer7, is_lost: false });
                take.verdicts.extend(batch.finished().zip(verdicts));
                batch.clear();
                batch
            }
            Self::Apart(contained) => contained.exchange(batch, take),
        }
    }

    /// Waits for what has not come back.
    pub fn collect(&mut self, take: &mut Returned) {
        if let Self::Apart(contained) = self {
            contained.collect(take);
        }
    }

    /// Replaces a child that died at rest. To be called from time to time.
    pub fn look(&mut self) {
        if let Self::Apart(contained) = self {
            contained.look();
        }
    }
}
