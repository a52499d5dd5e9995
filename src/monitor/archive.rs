//! Samples on their way into the archive: gathered in chunks of some minutes, as one row for each
//! sample would take five times the space.

use serde::{Deserialize, Serialize};

use super::level::Level;

/// Samples of one chunk. At the fastest interval that is seven minutes.
const SAMPLES_MAX: usize = 4_096;

const HOUR_MS: i64 = 3_600_000;

/// Samples of a check within some minutes, all of one hour. Times are by the wall clock, as people and
/// several nodes compare them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// Name of the check.
    pub name: String,
    /// Its group.
    pub grp: String,
    /// Its kind.
    pub kind: String,
    /// What stands behind its numbers.
    pub suffix: String,
    /// When it begins, in milliseconds since 1970.
    pub at_ms: i64,
    /// When each sample was taken, in milliseconds after that.
    pub offsets: Vec<i32>,
    /// The numbers; a sample may have none.
    pub vals: Vec<Option<f32>>,
    /// The levels, a letter each: u, g, y, r.
    pub levels: String,
}

/// Chunks that are not full yet, of the checks by number, and those that are.
#[derive(Debug, Default)]
pub struct Collector {
    open: Vec<Option<Chunk>>,
    closed: Vec<Chunk>,
}

/// Whose sample it is.
pub struct Whose<'a> {
    /// Number of the check.
    pub index: usize,
    /// Name.
    pub name: &'a str,
    /// Group.
    pub group: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// What stands behind its numbers.
    pub suffix: &'a str,
}

impl Collector {
    /// Takes a sample in.
    pub fn add(&mut self, whose: &Whose<'_>, at_ms: i64, value: Option<f64>, level: Level) {
        if self.open.len() <= whose.index {
            self.open.resize_with(whose.index + 1, || None);
        }
        let Some(slot) = self.open.get_mut(whose.index) else { return };
        let fits = slot.as_ref().is_some_and(|chunk| {
            // A clock that was set back begins a chunk of its own.
            at_ms >= chunk.at_ms
                && at_ms.div_euclid(HOUR_MS) == chunk.at_ms.div_euclid(HOUR_MS)
                && chunk.offsets.len() < SAMPLES_MAX
        });
        if !fits {
            self.closed.extend(slot.take());
        }
        let chunk = slot.get_or_insert_with(|| Chunk {
            name: whose.name.to_owned(),
            grp: whose.group.to_owned(),
            kind: whose.kind.to_owned(),
            suffix: whose.suffix.to_owned(),
            at_ms,
            offsets: Vec::new(),
            vals: Vec::new(),
            levels: String::new(),
        });
        // Within an hour, so it fits.
        chunk.offsets.push(i32::try_from(at_ms - chunk.at_ms).unwrap_or(i32::MAX));
        #[expect(clippy::cast_possible_truncation, reason = "seven digits are kept")]
        let kept = value.map(|value| value as f32).filter(|value| value.is_finite());
        chunk.vals.push(kept);
        chunk.levels.push(match level {
            Level::Unknown => 'u',
            Level::Green => 'g',
            Level::Yellow => 'y',
            Level::Red => 'r',
        });
    }

    /// All that was gathered.
    pub fn take(&mut self) -> Vec<Chunk> {
        self.closed.extend(self.open.iter_mut().filter_map(Option::take));
        std::mem::take(&mut self.closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(index: usize) -> Whose<'static> {
        Whose { index, name: "a", group: "g", kind: "host", suffix: "%" }
    }

    #[test]
    fn a_chunk_is_of_one_hour_and_one_direction_of_time() {
        let mut collector = Collector::default();
        let add = |collector: &mut Collector, at| {
            collector.add(&whose(0), at, Some(1.0), Level::Green);
        };
        for at in [10, 20, HOUR_MS - 1, HOUR_MS, HOUR_MS + 5, HOUR_MS + 4, HOUR_MS - 7] {
            add(&mut collector, at);
        }
        collector.add(&whose(3), 5, None, Level::Red);
        let chunks = collector.take();
        let shape: Vec<_> = chunks.iter().map(|c| (c.at_ms, c.offsets.clone())).collect();
        let hour = i32::try_from(HOUR_MS).unwrap();
        assert_eq!(
            shape,
            [
                (10, vec![0, 10, hour - 11]),
                (HOUR_MS, vec![0, 5, 4]),
                (HOUR_MS - 7, vec![0]),
                (5, vec![0]),
            ]
        );
        assert_eq!((chunks[3].vals.as_slice(), chunks[3].levels.as_str()), (&[None][..], "r"));
        assert!(collector.take().is_empty());
    }
}
