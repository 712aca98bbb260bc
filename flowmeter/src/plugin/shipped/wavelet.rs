//! How does a flow's traffic vary, on which scale of time?

use flowmeter_common::knobs::MILLISECOND;
use flowmeter_common::packet::Layer;

use super::settings::{Invalid, Settings};
use crate::fields::Added;
use crate::fields::columns::Kind;
use crate::flow::{Flow, Own, Side};
use crate::plugin::{Packet, Plugin, Standing, column};

/// Features of the stationary Haar transform of a flow's bytes over time: `NFStream`'s `WFPlugin`.
///
/// Each direction is a series of 2^`levels` sums of IP bytes over the active timeout; the flow's
/// first packet is left out, as there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wavelet {
    /// Length of the series, in s: at least the meter's active timeout. Packets beyond it are left
    /// out.
    pub active_timeout: u32,
    /// Levels of the transform, 1 to 16.
    pub levels: u32,
}

/// The series so far.
#[derive(Debug)]
pub struct Series {
    first_ms: u64,
    /// Of each direction, the places that are not 0.
    sides: [Vec<(u32, f64)>; 2],
}

impl Wavelet {
    pub(super) fn from_settings(settings: &mut Settings<'_>) -> Result<Self, Invalid> {
        let active_timeout = settings.number("active_timeout", 1..=u32::MAX.into())?;
        let levels = settings.number("levels", 1..=16)?;
        Ok(Self {
            active_timeout: active_timeout.unwrap_or(1_800) as u32,
            levels: levels.unwrap_or(5) as u32,
        })
    }

    /// How many places a series has.
    fn places(self) -> usize {
        1 << self.levels
    }

    /// The place of a time since the flow's first packet; none beyond the series.
    fn place(self, since_ms: u64) -> Option<u32> {
        let width_ms = f64::from(self.active_timeout) / self.places() as f64 * 1_000.0;
        let since = since_ms as f64;
        let place = ((since - since % width_ms) / width_ms).round();
        (place < self.places() as f64).then_some(place as u32)
    }

    /// Of a direction's series, each row of its transform's p, then u, σ and S: 4 × (`levels` + 1)
    /// numbers. None if the series is not 2^`levels` long, or there are no levels.
    pub fn features(series: Vec<f64>, levels: u32) -> Option<Vec<f64>> {
        if levels == 0 || 1_usize.checked_shl(levels) != Some(series.len()) {
            return None;
        }
        let n = series.len() as f64;
        let rows = transform(series, levels);
        let energies: Vec<f64> = rows.iter().map(|row| row.iter().map(|c| c * c).sum()).collect();
        let all: f64 = energies.iter().sum();
        let each = rows.iter().zip(&energies);
        let shares = energies.iter().map(|energy| energy / (all + NEAR_ZERO));
        let sizes = rows.iter().map(|row| row.iter().map(|c| c.abs()).sum::<f64>() / n);
        let deviations = rows.iter().map(|row| {
            let mean = row.iter().sum::<f64>() / n;
            (row.iter().map(|c| (c - mean) * (c - mean)).sum::<f64>() / n).sqrt()
        });
        let entropies = each.map(|(row, energy)| {
            let sum: f64 = row
                .iter()
                .map(|c| {
                    let share = c * c / (energy + NEAR_ZERO);
                    share * (share + NEAR_ZERO).ln()
                })
                .sum();
            -(sum + 0.0)
        });
        Some(shares.chain(sizes).chain(deviations).chain(entropies).collect())
    }

    /// A direction's features.
    fn of_side(self, side: &[(u32, f64)]) -> Vec<f64> {
        let mut series = vec![0.0; self.places()];
        for (place, bytes) in side {
            if let Some(sum) = series.get_mut(*place as usize) {
                *sum += bytes;
            }
        }
        Self::features(series, self.levels).unwrap_or_default()
    }
}

/// What keeps divisions and logarithms from 0.
const NEAR_ZERO: f64 = 1e-7;

/// The stationary Haar transform, circular: first the approximation, then the details from the
/// coarsest to the finest.
fn transform(x: Vec<f64>, levels: u32) -> Vec<Vec<f64>> {
    let n = x.len();
    let mut approximation = x;
    let mut details = Vec::new();
    for level in 0..levels {
        let step = 1 << level;
        let pair = |i: usize| (approximation[i], approximation[(i + step) % n]);
        let half = std::f64::consts::FRAC_1_SQRT_2;
        let detail = (0..n).map(|i| (pair(i).0 - pair(i).1) * half).collect();
        let next = (0..n).map(|i| (pair(i).0 + pair(i).1) * half).collect();
        details.push(detail);
        approximation = next;
    }
    details.push(approximation);
    details.reverse();
    details
}

impl Plugin for Wavelet {
    type State = Box<Series>;

    fn columns(&self) -> Vec<Added> {
        let mut columns = Vec::new();
        for (side, of) in [("f", "the initiator's"), ("b", "the responder's")] {
            for (feature, doc) in [
                ("p", "share of the energy"),
                ("u", "mean size of the coefficients"),
                ("sigma", "standard deviation of the coefficients"),
                ("S", "entropy of the coefficients"),
            ] {
                for k in 0..=self.levels {
                    let name = format!("{side}_{feature}_k_{k}");
                    let doc = format!("{doc} of {of} bytes over time, row {k} of the transform");
                    columns.push(column(name, Kind::Float, "", doc));
                }
            }
        }
        columns
    }

    fn on_init(&mut self, packet: &Packet<'_>, _: &mut Standing<'_>) -> Box<Series> {
        Box::new(Series { first_ms: packet.time_ns / MILLISECOND, sides: Default::default() })
    }

    fn on_update(&mut self, series: &mut Box<Series>, packet: &Packet<'_>, _: &mut Standing<'_>) {
        let since_ms = (packet.time_ns / MILLISECOND).saturating_sub(series.first_ms);
        let Some(place) = self.place(since_ms) else { return };
        let bytes = f64::from(packet.size(Layer::Ip));
        let side = &mut series.sides[usize::from(packet.direction == Side::Dst2Src)];
        // Time does not go back.
        match side.last_mut() {
            Some((last, sum)) if *last == place => *sum += bytes,
            _ => side.push((place, bytes)),
        }
    }

    fn on_expire(&mut self, series: Box<Series>, _: &mut Flow, values: &mut Vec<Own>) {
        for side in &series.sides {
            values.extend(self.of_side(side).into_iter().map(Own::F64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_of_two_series() {
        let wavelet = Wavelet { active_timeout: 10, levels: 2 };
        let got = wavelet.of_side(&[(0, 40.0), (1, 127.0), (3, 1_028.0)]);
        let wanted = [
            0.436_74,
            0.248_766,
            0.314_494,
            597.5,
            450.5,
            394.212_031,
            0.0,
            450.943_733,
            507.028_845,
            1.386_294,
            1.382_362,
            0.754_487,
        ];
        for (got, wanted) in got.iter().zip(wanted) {
            assert!((got - wanted).abs() < 2e-6, "{got} is not {wanted}");
        }
        let empty = wavelet.of_side(&[]);
        assert!(empty.iter().all(|x| *x == 0.0));
        assert!(empty[9..].iter().all(|x| x.is_sign_negative()), "as NFStream has it");
        assert_eq!(Wavelet::features(vec![0.0; 3], 2), None);
        assert_eq!(Wavelet::features(vec![0.0; 1], 0), None);
    }

    #[test]
    fn places_are_of_whole_widths() {
        let wavelet = Wavelet { active_timeout: 10, levels: 2 };
        let places = [0, 2_499, 2_500, 9_999, 10_000].map(|ms| wavelet.place(ms));
        assert_eq!(places, [Some(0), Some(0), Some(1), Some(3), None]);
    }
}
