//! Batches that the store did not take yet, each in a file of its own. Bounded: beyond that the oldest
//! go, as the newest say how it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::files;
use crate::monitor::archive::Chunk;

/// Samples name hosts and keys, which are nobody else's business.
const MODE: u32 = 0o600;

/// The spool.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    bytes_max: u64,
    next: u64,
}

impl Spool {
    /// Opens it, as it was left.
    ///
    /// # Errors
    /// If its directory cannot be read.
    pub fn open(state_dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let directory = state_dir.join("samples");
        let mut spool = Self { directory, bytes_max, next: 0 };
        spool.next = spool.files()?.last().map_or(0, |(number, ..)| number + 1);
        Ok(spool)
    }

    /// Keeps a batch. Says how many older ones had to go.
    ///
    /// # Errors
    /// If it could not be written.
    pub fn push(&mut self, batch: &[Chunk]) -> io::Result<usize> {
        let text = serde_json::to_vec(batch)?;
        let path = self.directory.join(format!("{:020}.json", self.next));
        files::replace(&path, &text, MODE, files::Name::Soon)?;
        self.next += 1;
        let kept = self.files()?;
        let mut bytes: u64 = kept.iter().map(|(_, size, _)| size).sum();
        let mut gone = 0;
        // Not the one that was just written, however large.
        for (_, size, path) in kept.iter().take(kept.len().saturating_sub(1)) {
            if bytes <= self.bytes_max {
                break;
            }
            fs::remove_file(path)?;
            bytes -= size;
            gone += 1;
        }
        Ok(gone)
    }

    /// The oldest batch and what to call it. A file that makes no sense is removed.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn oldest(&self) -> io::Result<Option<(PathBuf, Vec<Chunk>)>> {
        for (_, _, path) in self.files()? {
            match serde_json::from_slice(&fs::read(&path)?) {
                Ok(batch) => return Ok(Some((path, batch))),
                Err(_) => fs::remove_file(&path)?,
            }
        }
        Ok(None)
    }

    /// A batch is in the store.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn done(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// Number, size and path of each batch, the oldest first.
    fn files(&self) -> io::Result<Vec<(u64, u64, PathBuf)>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let is_batch = path.extension().is_some_and(|extension| extension == "json");
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            if let Some(number) = number.filter(|_| is_batch) {
                files.push((number, entry.metadata()?.len(), path));
            }
        }
        files.sort();
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(at_ms: i64) -> Chunk {
        Chunk {
            name: "a".to_owned(),
            grp: "g".to_owned(),
            kind: "host".to_owned(),
            suffix: String::new(),
            at_ms,
            offsets: vec![0],
            vals: vec![Some(1.5)],
            levels: "g".to_owned(),
        }
    }

    #[test]
    fn batches_come_back_in_order_also_to_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        spool.push(&[chunk(1), chunk(2)]).unwrap();
        spool.push(&[chunk(3)]).unwrap();
        let mut again = Spool::open(dir.path(), 1 << 20).unwrap();
        again.push(&[chunk(4)]).unwrap();
        fs::write(dir.path().join("samples/00000000000000000001.json"), "nonsense").unwrap();
        let mut seen = Vec::new();
        while let Some((path, batch)) = again.oldest().unwrap() {
            seen.extend(batch.iter().map(|chunk| chunk.at_ms));
            again.done(&path).unwrap();
        }
        assert_eq!(seen, [1, 2, 4]);
    }

    #[test]
    fn it_is_bounded_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let one = serde_json::to_vec(&[chunk(1)]).unwrap().len() as u64;
        let mut spool = Spool::open(dir.path(), one * 3).unwrap();
        let gone: Vec<_> = (1..=5).map(|at| spool.push(&[chunk(at)]).unwrap()).collect();
        assert_eq!(gone, [0, 0, 0, 1, 1]);
        assert_eq!(spool.oldest().unwrap().unwrap().1[0].at_ms, 3);
    }
}
