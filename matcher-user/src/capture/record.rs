//! The bytes of one record at a time, and where in the file it starts.

use std::io::{self, Read};

/// Whether the reader had as many bytes as were asked for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// It had.
    Whole,
    /// It ended before.
    Short,
}

/// The record being read.
#[derive(Debug)]
pub(super) struct Record<R> {
    reader: R,
    bytes: Vec<u8>,
    offset: u64,
    /// Bytes of the record that were passed over, not kept.
    skipped: u64,
}

impl<R: Read> Record<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            bytes: Vec::new(),
            offset: 0,
            skipped: 0,
        }
    }

    /// Starts the record after the present one.
    pub(super) fn start_next(&mut self) {
        self.offset += self.bytes.len() as u64 + self.skipped;
        self.bytes.clear();
        self.skipped = 0;
    }

    /// Where the record starts in the file, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What was read of the record.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads on until the record has `length` bytes. Memory grows with what is
    /// read, not with what a header claims.
    pub(super) fn fill_to(&mut self, length: usize) -> io::Result<Fill> {
        let missing = length.saturating_sub(self.bytes.len());
        self.reader
            .by_ref()
            .take(missing as u64)
            .read_to_end(&mut self.bytes)?;
        Ok(if self.bytes.len() < length {
            Fill::Short
        } else {
            Fill::Whole
        })
    }

    /// Passes over `length` bytes of the record.
    pub(super) fn skip(&mut self, length: u64) -> io::Result<Fill> {
        let passed = io::copy(&mut self.reader.by_ref().take(length), &mut io::sink())?;
        self.skipped += passed;
        Ok(if passed < length {
            Fill::Short
        } else {
            Fill::Whole
        })
    }
}
