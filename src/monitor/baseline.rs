//! What a check was like when a person said that all is well.

use super::threshold::Figure;

/// Percentiles that are kept: 1 to 99.
pub const PERCENTILES: usize = 99;

/// A check's numbers over some time.
#[derive(Clone, Debug, PartialEq)]
pub struct Baseline {
    /// How many there were.
    pub samples: u64,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation.
    pub deviation: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
    /// Percentiles 1 to 99.
    pub percentiles: Vec<f64>,
}

impl Baseline {
    /// One figure of it.
    #[must_use]
    pub fn figure(&self, figure: Figure) -> Option<f64> {
        match figure {
            Figure::Mean => Some(self.mean),
            Figure::Min => Some(self.least),
            Figure::Max => Some(self.greatest),
            Figure::Deviation => Some(self.deviation),
            Figure::Percentile(number) => {
                self.percentiles.get(usize::from(number).checked_sub(1)?).copied()
            }
        }
    }

    /// How far a value is from its mean: in percent, and in standard deviations.
    #[must_use]
    pub fn distance(&self, value: f64) -> (Option<f64>, Option<f64>) {
        let apart = value - self.mean;
        let percent = (self.mean != 0.0).then(|| apart / self.mean.abs() * 100.0);
        let deviations = (self.deviation > 0.0).then(|| apart / self.deviation);
        (percent, deviations)
    }
}
