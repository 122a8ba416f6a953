//! What is wrong with a config, and where.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// How much a [`Diagnostic`] weighs.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The config cannot be used.
    Error,
    /// It can, but perhaps not as meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing to tell the operator about the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The config file.
    pub path: PathBuf,
    /// Line from 1; 0 where it is about the whole file.
    pub line: usize,
    /// Column from 1, in characters; 0 where it is about the whole file.
    pub column: usize,
    /// What is wrong, what to write instead.
    pub message: String,
    /// How much it weighs.
    pub severity: Severity,
}

impl fmt::Display for Diagnostic {
    /// `FILE:LINE:COL: error: message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        write!(f, " {}: {}", self.severity, self.message)
    }
}

/// A config that cannot be used: every problem of it, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Errors and warnings by line and column; at least one error.
    pub problems: Vec<Diagnostic>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Collects diagnostics and knows where in the text they belong.
pub(super) struct Diagnostics<'a> {
    path: &'a Path,
    text: &'a str,
    found: Vec<(usize, Diagnostic)>,
}

impl<'a> Diagnostics<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self {
            path,
            text,
            found: Vec::new(),
        }
    }

    pub(super) fn error(&mut self, at: usize, message: impl Into<String>) {
        self.add(at, Severity::Error, message.into());
    }

    pub(super) fn warn(&mut self, at: usize, message: impl Into<String>) {
        self.add(at, Severity::Warning, message.into());
    }

    fn add(&mut self, at: usize, severity: Severity, message: String) {
        let (line, column) = position(self.text, at);
        self.found.push((
            at,
            Diagnostic {
                path: self.path.to_owned(),
                line,
                column,
                message,
                severity,
            },
        ));
    }

    /// All of them by place, errors before warnings at the same place.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.found
            .sort_by_key(|(at, diagnostic)| (*at, diagnostic.severity));
        self.found.into_iter().map(|(_, found)| found).collect()
    }
}

/// Line and column, both from 1, of a byte offset; columns count characters.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = text.get(..at).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_not_bytes() {
        let text = "a\nüber = 1\n";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, 2), (2, 1));
        // Behind the two bytes of "ü", and in the middle of them.
        assert_eq!(position(text, 4), (2, 2));
        assert_eq!(position(text, 3), (2, 1));
        assert_eq!(position(text, usize::MAX), (3, 1));
    }
}
