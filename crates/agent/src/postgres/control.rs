//! What PostgreSQL's control file says, read by `pg_controldata`, and the end of the last record.
//!
//! Used where no server runs that could be asked: before a start, and after a clean shutdown.

use std::fs::File;
use std::os::unix::fs::FileExt;

use session::{Lsn, Position, Timeline};

use super::error::Error;
use super::instance::Instance;
use super::replication::parse_lsn;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Such as `shut down`, `shut down in recovery`, `in production`, `in archive recovery`.
    pub state: String,
    pub system_identifier: u64,
    pub checkpoint: Position,
    /// Up to where recovery must go before the data is consistent; zero if nowhere.
    pub min_recovery: Position,
    pub segment_size: u64,
    pub page_size: u64,
    pub checksums: bool,
}

impl Control {
    pub fn read(instance: &Instance) -> Result<Control, Error> {
        let program = instance.program("pg_controldata");
        let out = instance
            .os_user
            .command(&program)
            .arg("-D")
            .arg(&instance.data_dir)
            .output()
            .map_err(Error::io("run", &program))?;
        if !out.status.success() {
            return Err(Error::Program {
                program: "pg_controldata",
                status: out.status.to_string(),
                text: String::from_utf8_lossy(&out.stderr).trim().to_owned(),
            });
        }
        Control::parse(&String::from_utf8_lossy(&out.stdout)).ok_or_else(|| {
            Error::unexpected("reading the control file", "pg_controldata left something out")
        })
    }

    fn parse(text: &str) -> Option<Control> {
        let value = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.trim())
        };
        let timeline = |name: &str| value(name)?.parse().ok().map(Timeline);
        Some(Control {
            state: value("Database cluster state")?.to_owned(),
            system_identifier: value("Database system identifier")?.parse().ok()?,
            checkpoint: Position {
                timeline: timeline("Latest checkpoint's TimeLineID")?,
                lsn: parse_lsn(value("Latest checkpoint location")?)?,
            },
            min_recovery: Position {
                timeline: timeline("Min recovery ending loc's timeline")?,
                lsn: parse_lsn(value("Minimum recovery ending location")?)?,
            },
            segment_size: value("Bytes per WAL segment")?.parse().ok()?,
            page_size: value("WAL block size")?.parse().ok()?,
            checksums: value("Data page checksum version")? != "0",
        })
    }

    /// It was a primary and was shut down cleanly.
    pub fn is_shut_down(&self) -> bool {
        self.state == "shut down"
    }

    /// The timeline that the data is on: recovery goes forward only.
    pub fn timeline(&self) -> Timeline {
        self.checkpoint.timeline.max(self.min_recovery.timeline)
    }

    /// The end of the checkpoint record: what a mirror that holds everything has flushed up to
    /// after a clean shutdown.
    pub fn checkpoint_end(&self, instance: &Instance) -> Result<Position, Error> {
        let start = self.checkpoint.lsn.0;
        let name = segment_name(self.checkpoint.timeline, start / self.segment_size, self);
        let path = instance.wal_dir().join(name);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let mut length = [0_u8; 4];
        file.read_exact_at(&mut length, start % self.segment_size)
            .map_err(Error::io("read", &path))?;
        let end = record_end(start, u64::from(u32::from_ne_bytes(length)), self);
        Ok(Position { timeline: self.checkpoint.timeline, lsn: Lsn(end) })
    }
}

/// The file name of a segment of WAL.
pub fn segment_name(timeline: Timeline, segment: u64, control: &Control) -> String {
    let per_id = 0x1_0000_0000 / control.segment_size;
    format!("{:08X}{:08X}{:08X}", timeline.0, segment / per_id, segment % per_id)
}

/// Where a record of `length` bytes that starts at `start` ends. Records are padded to eight
/// bytes, and go around the header at the beginning of each page.
fn record_end(start: u64, length: u64, control: &Control) -> u64 {
    const SHORT_HEADER: u64 = 24;
    const LONG_HEADER: u64 = 40;
    let mut at = start;
    let mut left = length.next_multiple_of(8);
    loop {
        let room = control.page_size - at % control.page_size;
        if left <= room {
            return at + left;
        }
        left -= room;
        at += room;
        at += if at.is_multiple_of(control.segment_size) { LONG_HEADER } else { SHORT_HEADER };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control() -> Control {
        Control {
            state: String::new(),
            system_identifier: 1,
            checkpoint: Position::default(),
            min_recovery: Position::default(),
            segment_size: 16 << 20,
            page_size: 8192,
            checksums: true,
        }
    }

    #[test]
    fn a_record_goes_around_page_headers() {
        assert_eq!(record_end(0x0300_0028, 114, &control()), 0x0300_0028 + 120);
        assert_eq!(record_end(0x0300_2000 - 32, 114, &control()), 0x0300_2000 + 24 + 88);
        assert_eq!(record_end(0x0400_0000 - 32, 114, &control()), 0x0400_0000 + 40 + 88);
        assert_eq!(record_end(0x0300_2000 - 120, 114, &control()), 0x0300_2000);
    }
}
