//! A Linux host flow meter.

pub mod annotate;
pub mod capture;
pub mod cli;
pub mod collector;
pub mod config;
pub mod dissect;
pub mod doctor;
pub mod engine;
pub mod fields;
pub mod health;
pub mod record;
pub mod sink;
pub mod table;

/// Stand-in until attribution is merged.
pub mod attribution {
    #![allow(missing_docs)]
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Owner {
        pub pid: u32,
        pub name: String,
        pub method: Method,
    }
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Method {
        Procfs,
    }
    impl Method {
        pub fn as_str(self) -> &'static str {
            "procfs"
        }
    }
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Owners {
        pub src: Option<Owner>,
        pub dst: Option<Owner>,
    }
}
