//! What the person who watches sees.

use std::{
    env, fmt,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// Writes for a person, or not at all.
#[derive(Copy, Clone, Debug)]
pub struct Screen {
    shown: bool,
    styled: bool,
}

impl Screen {
    /// Shows nothing.
    pub fn silent() -> Self {
        Self {
            shown: false,
            styled: false,
        }
    }

    /// Writes to standard output, with bold headings on a terminal.
    pub fn standard_output() -> Self {
        let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            shown: true,
            styled: io::stdout().is_terminal() && !no_colour,
        }
    }

    /// A line. A reader who has gone (`| head`) ends neither the demo nor its
    /// cleaning up.
    pub fn line(self, text: impl fmt::Display) {
        if self.shown {
            let _ = writeln!(io::stdout(), "{text}");
        }
    }

    /// A line in bold.
    pub fn bold(self, text: impl fmt::Display) {
        if self.styled {
            self.line(format_args!("\x1b[1m{text}\x1b[0m"));
        } else {
            self.line(text);
        }
    }

    /// Begins a step: what happens, and why.
    pub fn step(self, title: &str, why: &str) -> Step {
        self.line("");
        self.bold(title);
        for line in why.lines() {
            self.line(format_args!("   {line}"));
        }
        Step {
            screen: self,
            start: Instant::now(),
        }
    }
}

/// A step under way.
#[derive(Debug)]
pub struct Step {
    screen: Screen,
    start: Instant,
}

impl Step {
    /// Ends it: what came of it, and how long it took.
    pub fn done(self, result: impl fmt::Display) {
        self.screen.line(format_args!(
            "   => {result}  ({})",
            seconds(self.start.elapsed())
        ));
    }
}

/// "1.3 s".
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// "23,117".
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (23_117, "23,117"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
