//! What the tests of flowmeter have in common.

pub mod captures;
pub mod host;
pub mod kernel;
pub mod packets;
pub mod root;
