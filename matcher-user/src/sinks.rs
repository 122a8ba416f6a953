//! Where hits and candidates leave the agent.

use std::{fmt::Display, io, io::Write};

use serde::Serialize;

/// A line that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The reader has gone (`matcher tail | head`): end quietly.
    #[error("the reader of the output has closed it")]
    Closed,
    /// Any other failure to write.
    #[error("cannot write the output: {0}")]
    Io(#[source] io::Error),
    /// The record is no JSON.
    #[error("cannot write a record as JSON: {0}")]
    Encode(#[source] serde_json::Error),
}

impl From<io::Error> for SinkError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Io(error)
        }
    }
}

/// One JSON object a line, each in one write and flushed, so that a reader
/// never sees half a line and lines of several writers do not mix.
#[derive(Debug)]
pub struct JsonLines<W> {
    output: W,
    line: Vec<u8>,
}

impl<W: Write> JsonLines<W> {
    /// Writes to `output`.
    pub fn new(output: W) -> Self {
        Self {
            output,
            line: Vec::new(),
        }
    }

    /// Writes a hit or a candidate.
    ///
    /// # Errors
    /// [`SinkError::Closed`] when nobody reads any more.
    pub fn write(&mut self, record: &impl Serialize) -> Result<(), SinkError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record).map_err(SinkError::Encode)?;
        send(&mut self.output, &mut self.line)
    }
}

/// One sentence a line, for a terminal; written as [`JsonLines`] does.
#[derive(Debug)]
pub struct TextLines<W> {
    output: W,
}

impl<W: Write> TextLines<W> {
    /// Writes to `output`.
    pub fn new(output: W) -> Self {
        Self { output }
    }

    /// Writes what `record` displays as.
    ///
    /// # Errors
    /// [`SinkError::Closed`] when nobody reads any more.
    pub fn write(&mut self, record: &impl Display) -> Result<(), SinkError> {
        send(&mut self.output, &mut record.to_string().into_bytes())
    }
}

fn send(output: &mut impl Write, line: &mut Vec<u8>) -> Result<(), SinkError> {
    line.push(b'\n');
    output.write_all(line)?;
    output.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[derive(Default)]
    struct Calls {
        writes: Vec<Vec<u8>>,
        flushes: usize,
    }

    impl Write for &mut Calls {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.flushes += 1;
            Ok(())
        }
    }

    #[test]
    fn each_line_is_one_write_and_flushed() {
        let mut calls = Calls::default();
        let mut sink = JsonLines::new(&mut calls);
        sink.write(&["a\nb"]).unwrap();
        sink.write(&[1, 2]).unwrap();
        TextLines::new(&mut calls).write(&"a sentence").unwrap();
        assert_eq!(
            calls.writes,
            [&b"[\"a\\nb\"]\n"[..], b"[1,2]\n", b"a sentence\n"]
        );
        assert_eq!(calls.flushes, 3);
    }

    #[test]
    fn a_reader_that_has_gone_is_told_from_other_failures() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let closed = JsonLines::new(ours).write(&1);
        assert!(matches!(closed, Err(SinkError::Closed)));

        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        let failed = JsonLines::new(full.unwrap()).write(&1);
        assert!(matches!(failed, Err(SinkError::Io(_))));
    }
}
