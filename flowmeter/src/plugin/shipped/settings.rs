//! How are a plugin's settings read?

use std::ops::RangeInclusive;

use thiserror::Error;

/// Why a text names no plugin.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Invalid {
    /// There is none of this name.
    #[error("no plugin is named `{name}`; there are {known}")]
    Name {
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The plugin has no such setting.
    #[error("`{plugin}` has no setting `{key}`; it has {known}")]
    Key {
        /// The plugin.
        plugin: String,
        /// What was set.
        key: String,
        /// Those that there are.
        known: String,
    },
    /// A setting without a value.
    #[error("`{0}` has no value: write NAME:key=value,key=value")]
    NoValue(String),
    /// A setting is there twice.
    #[error("`{plugin}`: {key} is set twice")]
    Twice {
        /// The plugin.
        plugin: String,
        /// The setting.
        key: String,
    },
    /// A value that cannot be.
    #[error("`{plugin}`: {key} must be a number from {least} to {most}, not `{value}`")]
    Value {
        /// The plugin.
        plugin: String,
        /// The setting.
        key: &'static str,
        /// Its smallest value.
        least: u64,
        /// Its largest value.
        most: u64,
        /// What was given.
        value: String,
    },
    /// None of the settings is there of which it takes one.
    #[error("`{plugin}` needs one of {keys}")]
    Missing {
        /// The plugin.
        plugin: String,
        /// The settings.
        keys: String,
    },
}

/// The settings of a plugin that were not taken yet.
pub struct Settings<'a> {
    plugin: &'a str,
    left: Vec<(&'a str, &'a str)>,
    known: Vec<&'static str>,
}

impl<'a> Settings<'a> {
    /// Those in a text, `key=value,…`.
    pub fn parse(plugin: &'a str, text: &'a str) -> Result<Self, Invalid> {
        let mut left: Vec<(&str, &str)> = Vec::new();
        for setting in text.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
            let (key, value) =
                setting.split_once('=').ok_or_else(|| Invalid::NoValue(setting.to_owned()))?;
            if left.iter().any(|(other, _)| *other == key) {
                return Err(Invalid::Twice { plugin: plugin.into(), key: key.into() });
            }
            left.push((key, value));
        }
        Ok(Self { plugin, left, known: Vec::new() })
    }

    /// The number that `key` has, if it is there.
    pub fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, Invalid> {
        self.known.push(key);
        let Some(at) = self.left.iter().position(|(other, _)| *other == key) else {
            return Ok(None);
        };
        let (_, value) = self.left.remove(at);
        match value.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(Invalid::Value {
                plugin: self.plugin.into(),
                key,
                least: *range.start(),
                most: *range.end(),
                value: value.into(),
            }),
        }
    }

    /// None of what was asked for is there, though it takes one.
    pub fn missing(&self) -> Invalid {
        Invalid::Missing { plugin: self.plugin.into(), keys: self.known.join(", ") }
    }

    /// All that there are were taken.
    pub fn end(self) -> Result<(), Invalid> {
        let Some((key, _)) = self.left.first() else { return Ok(()) };
        let (plugin, key) = (self.plugin.into(), (*key).into());
        let known = if self.known.is_empty() { "none".into() } else { self.known.join(", ") };
        Err(Invalid::Key { plugin, key, known })
    }
}
