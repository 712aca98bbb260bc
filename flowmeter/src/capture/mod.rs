//! Where do packets come from?

pub mod kernel;
