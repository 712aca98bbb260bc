//! Which plugins come with the meter?
//!
//! `NFStream`'s, with its names and values, and what its users write most. Each is named by a text,
//! `NAME[:key=value,…]`.

mod dhcp;
mod headers;
mod ja4;
pub mod list;
mod mdns;
mod nfstream;
mod payload;
mod settings;
mod slicer;
mod splt;
mod wavelet;

use std::str::FromStr;

pub use self::dhcp::{Changes, Dhcp};
pub use self::headers::Headers;
pub use self::ja4::{Hello, Ja4};
pub use self::mdns::Mdns;
pub use self::nfstream::Unreadable;
pub use self::payload::Payload;
pub use self::settings::Invalid;
pub use self::slicer::Slicer;
pub use self::splt::Splt;
pub use self::wavelet::Wavelet;

use self::settings::Settings;
use super::{Plugin as _, Plugins};
use crate::fields::Added;
use crate::flow::Own;

/// Adds lists of this length to the values, with −1 where there is none.
fn push_filled<const N: usize>(lists: [Vec<i64>; N], length: usize, values: &mut Vec<Own>) {
    values.extend(lists.map(|mut list| {
        list.resize(length, -1);
        Own::Integers(list)
    }));
}

/// A plugin that comes with the meter, with its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum Shipped {
    /// `slicer`.
    Slicer(Slicer),
    /// `splt`.
    Splt(Splt),
    /// `dhcp`.
    Dhcp(Dhcp),
    /// `mdns`.
    Mdns(Mdns),
    /// `ja4`.
    Ja4(Ja4),
    /// `wavelet`.
    Wavelet(Wavelet),
    /// `payload`.
    Payload(Payload),
    /// `headers`.
    Headers(Headers),
}

/// How each is asked for, with all of its settings.
const USAGES: &[&str] = &[
    "slicer:packets=N,bytes=N,seconds=N",
    "splt:length=N,accounting_mode=MODE",
    "dhcp",
    "mdns",
    "ja4",
    "wavelet:active_timeout=SECS,levels=N",
    "payload:packets=N,bytes=N",
    "headers:packets=N",
];

impl FromStr for Shipped {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (name, settings) = text.split_once(':').unwrap_or((text, ""));
        let mut settings = Settings::parse(name, settings)?;
        let plugin = match name {
            "slicer" => Self::Slicer(Slicer::from_settings(&mut settings)?),
            "splt" => Self::Splt(Splt::from_settings(&mut settings)?),
            "dhcp" => Self::Dhcp(Dhcp),
            "mdns" => Self::Mdns(Mdns),
            "ja4" => Self::Ja4(Ja4),
            "wavelet" => Self::Wavelet(Wavelet::from_settings(&mut settings)?),
            "payload" => Self::Payload(Payload::from_settings(&mut settings)?),
            "headers" => Self::Headers(Headers::from_settings(&mut settings)?),
            _ => {
                let known = USAGES.iter().map(|usage| usage.split(':').next().unwrap_or_default());
                let known = known.collect::<Vec<_>>().join(", ");
                return Err(Invalid::Name { name: name.to_owned(), known });
            }
        };
        settings.end()?;
        Ok(plugin)
    }
}

impl Shipped {
    /// Adds it to a run's plugins.
    #[must_use]
    pub fn add_to(self, plugins: Plugins) -> Plugins {
        match self {
            Self::Slicer(plugin) => plugins.with(plugin),
            Self::Splt(plugin) => plugins.with(plugin),
            Self::Dhcp(plugin) => plugins.with(plugin),
            Self::Mdns(plugin) => plugins.with(plugin),
            Self::Ja4(plugin) => plugins.with(plugin),
            Self::Wavelet(plugin) => plugins.with(plugin),
            Self::Payload(plugin) => plugins.with(plugin),
            Self::Headers(plugin) => plugins.with(plugin),
        }
    }

    /// Its columns.
    pub fn columns(&self) -> Vec<Added> {
        match self {
            Self::Slicer(plugin) => plugin.columns(),
            Self::Splt(plugin) => plugin.columns(),
            Self::Dhcp(plugin) => plugin.columns(),
            Self::Mdns(plugin) => plugin.columns(),
            Self::Ja4(plugin) => plugin.columns(),
            Self::Wavelet(plugin) => plugin.columns(),
            Self::Payload(plugin) => plugin.columns(),
            Self::Headers(plugin) => plugin.columns(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Shipped>().expect_err("it is invalid").to_string()
    }

    #[test]
    fn plugins_are_named_by_texts() {
        let splt = Shipped::Splt(Splt { length: 3, layer: flowmeter_common::packet::Layer::Ip });
        assert_eq!("splt:length=3,accounting_mode=1".parse(), Ok(splt));
        assert_eq!("headers".parse(), Ok(Shipped::Headers(Headers { packets: 8 })));
        for usage in USAGES {
            let name = usage.split(':').next().expect("a name");
            let minimal = if name == "slicer" { "slicer:packets=1" } else { name };
            minimal.parse::<Shipped>().unwrap_or_else(|e| panic!("{minimal}: {e}"));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(
            error("x"),
            "no plugin is named `x`; there are slicer, splt, dhcp, mdns, ja4, wavelet, payload, headers"
        );
        assert_eq!(
            error("splt:lenght=3"),
            "`splt` has no setting `lenght`; it has length, accounting_mode"
        );
        assert_eq!(error("splt:length"), "`length` has no value: write NAME:key=value,key=value");
        assert_eq!(
            error("splt:length=0"),
            "`splt`: length must be a number from 1 to 65535, not `0`"
        );
        assert_eq!(error("splt:length=1,length=2"), "`splt`: length is set twice");
        assert_eq!(error("slicer"), "`slicer` needs one of packets, bytes, seconds");
    }
}
