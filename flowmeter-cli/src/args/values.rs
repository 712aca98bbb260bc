//! How is an argument's text read?

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};

/// One of a few words, each standing for a value.
pub fn choice<T>(choices: &'static [(&'static str, T)]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    PossibleValuesParser::new(choices.iter().map(|(word, _)| *word)).map(|text| {
        let found = choices.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).expect("clap let no other word pass")
    })
}

/// A number of seconds, 0 or more, which may have a fraction.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.parse().ok();
    let Some(seconds) = seconds.filter(|seconds| !seconds.is_nan()) else {
        return Err("it must be a number of seconds, such as 120 or 0.5".to_owned());
    };
    if seconds < 0.0 {
        return Err("it must be 0 or more seconds".to_owned());
    }
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| nanoseconds(*duration).is_some())
        .ok_or_else(|| "it must be at most 18446744073 seconds".to_owned())
}

/// The duration in ns, if that is below 2⁶⁴.
pub fn nanoseconds(duration: Duration) -> Option<u64> {
    duration.as_nanos().try_into().ok()
}

/// `None` for 0, which stands for "never".
pub fn unless_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}
