//! A data set on its way over the replication protocol: where it ends, and whether it is whole.
//!
//! The end is a length, if the server wrote the data set to its own disk first, or a mark, if it
//! sends while it reads its memory. Both are judged here, and so is what came: a data set begins
//! with `REDIS`, ends with a byte of its own and has a checksum. Pure: bytes in, verdicts out.

use std::fmt;

/// Bytes of the mark that ends a data set of unknown length.
const MARK_BYTES: usize = 40;

/// Bytes of the checksum at the end of a data set.
const CHECKSUM_BYTES: usize = 8;

/// Says that nothing but the checksum follows.
const END_BYTE: u8 = 0xff;

/// What a data set begins with. Four digits follow, which say how it is written.
const MAGIC: &[u8] = b"REDIS";

/// Magic, digits, end and checksum: an empty data set is not shorter.
const BYTES_MIN: u64 = 5 + 4 + 1 + 8;

static CRC: crc::Crc<u64> = crc::Crc::<u64>::new(&crc::CRC_64_REDIS);

/// How the end of the data set is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By its length.
    Length(u64),
    /// By these bytes behind it.
    Mark([u8; MARK_BYTES]),
}

impl Ending {
    /// Reads the line before the data set. `Err` says what is wrong with it.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let shown = || format!("{:?} instead of a length or a mark", shortened(line));
        let value = line.strip_prefix('$').ok_or_else(shown)?;
        if let Some(mark) = value.strip_prefix("EOF:") {
            return Ok(Self::Mark(mark.as_bytes().try_into().map_err(|_length| shown())?));
        }
        match value.parse() {
            Ok(length) if length >= BYTES_MIN => Ok(Self::Length(length)),
            Ok(length) => Err(format!("a data set of {length} bytes")),
            Err(_not_a_number) => Err(shown()),
        }
    }

    /// Bytes of the data set, if they are known before it came.
    pub(super) const fn bytes(&self) -> Option<u64> {
        match self {
            Self::Length(length) => Some(*length),
            Self::Mark(_) => None,
        }
    }
}

/// A data set while it comes.
pub(super) struct Transfer {
    ending: Ending,
    /// Bytes that came and may be the beginning of the mark.
    held: Vec<u8>,
    seal: Seal,
}

impl Transfer {
    pub(super) fn new(ending: Ending) -> Self {
        Self { ending, held: Vec::new(), seal: Seal::default() }
    }

    /// Takes the bytes that came, and returns those that are certain to belong to the data set, and
    /// whether they were the last.
    ///
    /// # Errors
    /// As soon as it cannot be a data set, or is not whole at its end.
    pub(super) fn take(&mut self, came: &[u8]) -> Result<(Vec<u8>, bool), Damage> {
        let mut data = std::mem::take(&mut self.held);
        data.extend_from_slice(came);
        let complete = match &self.ending {
            Ending::Length(length) => {
                let left = usize::try_from(length - self.seal.bytes).unwrap_or(usize::MAX);
                let complete = data.len() >= left;
                // Behind it the server goes on with what was written since.
                data.truncate(left);
                complete
            }
            Ending::Mark(mark) => match data.windows(MARK_BYTES).position(|bytes| bytes == mark) {
                Some(end) => {
                    data.truncate(end);
                    true
                }
                None => {
                    self.held = data.split_off((data.len() + 1).saturating_sub(MARK_BYTES));
                    false
                }
            },
        };
        self.seal.add(&data)?;
        if complete {
            self.seal.check()?;
        }
        Ok((data, complete))
    }

    /// Bytes of the data set so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.seal.bytes
    }
}

/// Whether what came is a whole data set.
struct Seal {
    bytes: u64,
    digest: crc::Digest<'static, u64>,
    /// The last bytes that came, which are the checksum if nothing follows.
    tail: Vec<u8>,
    /// The first bytes, until there are enough of them to know the magic.
    head: Vec<u8>,
    /// The byte before the tail.
    before: u8,
}

impl Default for Seal {
    fn default() -> Self {
        Self { bytes: 0, digest: CRC.digest(), tail: Vec::new(), head: Vec::new(), before: 0 }
    }
}

impl Seal {
    fn add(&mut self, data: &[u8]) -> Result<(), Damage> {
        self.bytes += data.len() as u64;
        if self.head.len() < MAGIC.len() {
            self.head.extend(data.iter().take(MAGIC.len() - self.head.len()));
            if !MAGIC.starts_with(&self.head) {
                return Err(Damage::Magic { found: String::from_utf8_lossy(&self.head).into() });
            }
        }
        // Whatever has enough bytes behind it is no checksum.
        let spare = (self.tail.len() + data.len()).saturating_sub(CHECKSUM_BYTES);
        let from_tail = spare.min(self.tail.len());
        let (old, new) = (self.tail.drain(..from_tail).collect::<Vec<_>>(), spare - from_tail);
        for part in [old.as_slice(), &data[..new]] {
            self.digest.update(part);
            self.before = part.last().copied().unwrap_or(self.before);
        }
        self.tail.extend_from_slice(&data[new..]);
        Ok(())
    }

    fn check(&self) -> Result<(), Damage> {
        let checksum = <[u8; CHECKSUM_BYTES]>::try_from(self.tail.as_slice());
        let Ok(checksum) = checksum.map(u64::from_le_bytes) else {
            return Err(Damage::Short { bytes: self.bytes });
        };
        if self.bytes < BYTES_MIN || self.before != END_BYTE {
            return Err(Damage::Short { bytes: self.bytes });
        }
        // Zero is what a server writes that was told not to compute it (`rdbchecksum no`).
        if checksum != 0 && checksum != self.digest.clone().finalize() {
            return Err(Damage::Checksum);
        }
        Ok(())
    }
}

/// What is wrong with a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It is none.
    Magic {
        /// How it begins.
        found: String,
    },
    /// It ends too early.
    Short {
        /// After so many bytes.
        bytes: u64,
    },
    /// It was changed on the way, or was damaged before.
    Checksum,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic { found } => write!(f, "it begins with {found:?} instead of \"REDIS\""),
            Self::Short { bytes } => write!(f, "it breaks off after {bytes} bytes"),
            Self::Checksum => f.write_str("its checksum does not fit"),
        }
    }
}

/// As much of a line as belongs into a message.
fn shortened(line: &str) -> String {
    line.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: [u8; MARK_BYTES] = *b"0123456789abcdef0123456789abcdef01234567";

    /// A data set with `filling` in it, sealed as Redis does.
    fn data_set(filling: &[u8]) -> Vec<u8> {
        let mut data = [b"REDIS0010".as_slice(), filling, &[END_BYTE]].concat();
        let checksum = CRC.checksum(&data);
        data.extend(checksum.to_le_bytes());
        data
    }

    /// Hands `stream` over in pieces of `size` and returns the data set.
    fn receive(ending: &Ending, stream: &[u8], size: usize) -> Result<Option<Vec<u8>>, Damage> {
        let mut transfer = Transfer::new(ending.clone());
        let mut received = Vec::new();
        for piece in stream.chunks(size) {
            let (data, complete) = transfer.take(piece)?;
            received.extend(data);
            if complete {
                assert_eq!(transfer.bytes(), received.len() as u64);
                return Ok(Some(received));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_data_set_is_the_same_however_it_is_cut_into_pieces() {
        let data = data_set(&[7; 200]);
        let behind = b"*1\r\n$4\r\nPING\r\n";
        let with_mark = [data.as_slice(), &MARK, behind].concat();
        let with_length = [data.as_slice(), behind].concat();
        for size in (1..120).chain([with_mark.len()]) {
            let length = Ending::Length(data.len() as u64);
            assert_eq!(receive(&length, &with_length, size).unwrap().as_ref(), Some(&data));
            let mark = Ending::Mark(MARK);
            assert_eq!(receive(&mark, &with_mark, size).unwrap().as_ref(), Some(&data));
        }
    }

    #[test]
    fn what_looks_like_the_mark_is_data_unless_it_is_all_of_it() {
        let data = data_set(&MARK[..MARK_BYTES - 1]);
        let stream = [data.as_slice(), &MARK].concat();
        for size in [1, 7, 40, stream.len()] {
            let received = receive(&Ending::Mark(MARK), &stream, size).unwrap();
            assert_eq!(received.as_ref(), Some(&data));
        }
    }

    #[test]
    fn one_byte_less_is_not_complete() {
        let data = data_set(b"x");
        let length = Ending::Length(data.len() as u64);
        assert_eq!(receive(&length, &data[..data.len() - 1], 5), Ok(None));
        let stream = [data.as_slice(), &MARK[..MARK_BYTES - 1]].concat();
        assert_eq!(receive(&Ending::Mark(MARK), &stream, 5), Ok(None));
    }

    #[test]
    fn each_damage_is_told() {
        let data = data_set(&[7; 100]);
        let length = Ending::Length(data.len() as u64);
        let mut changed = data.clone();
        changed[50] ^= 1;
        assert_eq!(receive(&length, &changed, 30), Err(Damage::Checksum));
        let mut unended = data.clone();
        unended[data.len() - CHECKSUM_BYTES - 1] = 0;
        let short = Damage::Short { bytes: data.len() as u64 };
        assert_eq!(receive(&length, &unended, 30), Err(short));
        let early = [&data[..12], &MARK].concat();
        assert_eq!(receive(&Ending::Mark(MARK), &early, 60), Err(Damage::Short { bytes: 12 }));
        assert_eq!(receive(&length, b"-ERR no", 3), Err(Damage::Magic { found: "-ER".to_owned() }));
        let mut unsealed = changed;
        let end = unsealed.len() - CHECKSUM_BYTES;
        unsealed[end..].fill(0);
        assert!(receive(&length, &unsealed, 30).is_ok(), "the server computes no checksum");
    }

    #[test]
    fn the_line_before_the_data_set() {
        assert_eq!(Ending::parse("$18"), Ok(Ending::Length(18)));
        let mark = String::from_utf8(MARK.to_vec()).unwrap();
        assert_eq!(Ending::parse(&format!("$EOF:{mark}")), Ok(Ending::Mark(MARK)));
        for bad in ["", "18", "$", "$17", "$-1", "$EOF:short", "+OK", "$18446744073709551616"] {
            assert!(Ending::parse(bad).is_err(), "{bad:?}");
        }
    }
}
