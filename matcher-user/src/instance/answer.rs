//! What a command prints, built where the work is done: in the command itself
//! or in the agent that did it for the command.

use serde::{Deserialize, Serialize};

/// Output of a command, and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// For standard output.
    pub out: String,
    /// For standard error: warnings, problems, progress.
    pub err: String,
    /// Exit code of the contract: 0 done, 1 failed, 2 usage or configuration,
    /// 3 lacks privilege or kernel support.
    pub exit: u8,
}

impl Answer {
    /// Adds a line to standard output.
    pub fn say(&mut self, line: impl AsRef<str>) {
        self.out.push_str(line.as_ref());
        self.out.push('\n');
    }

    /// Adds a line to standard error.
    pub fn warn(&mut self, line: impl AsRef<str>) {
        self.err.push_str("warning: ");
        self.err.push_str(line.as_ref());
        self.err.push('\n');
    }

    /// Adds a line to standard error that names a place in a file.
    pub fn problem(&mut self, line: impl AsRef<str>) {
        self.err.push_str(line.as_ref());
        self.err.push('\n');
    }
}
