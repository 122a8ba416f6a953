//! The asking side: blocking, as commands are.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::{Request, TailLine};
use crate::instance::Answer;

/// A connection to the agent.
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects; `None` when no agent listens there.
    ///
    /// # Errors
    /// When one may listen but cannot be reached.
    pub fn connect(socket: &Path) -> io::Result<Option<Self>> {
        match UnixStream::connect(socket) {
            Ok(stream) => Ok(Some(Self {
                stream: BufReader::new(stream),
            })),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When the agent hangs up before it has answered.
    pub fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        self.send(request)?;
        let line = self.line()?.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the agent ended before it answered; see its log",
            )
        })?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Asks, and waits for the answer so long at most; `None` when none came.
    ///
    /// # Errors
    /// When the agent hangs up before it has answered.
    pub fn ask_within(
        &mut self,
        request: &Request,
        patience: Duration,
    ) -> io::Result<Option<Answer>> {
        self.stream.get_ref().set_read_timeout(Some(patience))?;
        match self.ask(request) {
            Ok(answer) => Ok(Some(answer)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks for hits.
    ///
    /// # Errors
    /// When the request cannot be sent.
    pub fn tail(mut self, after: Option<u64>) -> io::Result<Tail> {
        self.send(&Request::Tail { after })?;
        Ok(Tail { client: self })
    }

    fn send(&mut self, request: &Request) -> io::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        match self.stream.get_mut().write_all(&line) {
            // An agent that refuses hangs up at once; what it said can be read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent,
        }
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line)?;
        Ok((read > 0 && line.ends_with('\n')).then_some(line))
    }
}

/// Hits from the agent, until it ends.
pub struct Tail {
    client: Client,
}

impl Iterator for Tail {
    type Item = io::Result<TailLine>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.client.line() {
            Ok(Some(line)) => Some(tail_line(&line)),
            Ok(None) => None,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// A hit, or why there will be none.
fn tail_line(line: &str) -> io::Result<TailLine> {
    serde_json::from_str(line).map_err(|error| match serde_json::from_str::<Answer>(line) {
        Ok(answer) => {
            let kind = match answer.exit {
                3 => io::ErrorKind::PermissionDenied,
                _ => io::ErrorKind::Other,
            };
            io::Error::new(kind, answer.err.trim_end().to_owned())
        }
        Err(_) => error.into(),
    })
}
