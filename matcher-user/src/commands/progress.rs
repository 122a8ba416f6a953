//! A line on the terminal that says how far a load is. Nothing where standard
//! error is no terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use matcher_user::instance::{Progress, Step};

/// The line; gone when it is dropped.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// Shows itself at once, and that time goes by.
    pub(super) fn begin() -> Self {
        // Draws on standard error, and only on a terminal.
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_message("loading feeds");
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    /// Takes the line away before something else is printed.
    pub(super) fn end(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.end();
    }
}

impl Progress for Bar {
    fn at(&self, step: Step<'_>) {
        self.0.set_message(text(step));
    }
}

fn text(step: Step<'_>) -> String {
    match step {
        Step::Fetching {
            feed,
            bytes,
            of: Some(of),
        } => format!("fetching {feed}: {bytes} of {of} bytes"),
        Step::Fetching {
            feed,
            bytes,
            of: None,
        } => format!("fetching {feed}: {bytes} bytes"),
        Step::Reading { feed, number, of } => format!("reading {feed} ({number} of {of})"),
        Step::Merging(entries) => format!("putting {entries} entries together"),
        Step::Writing(indicators) => {
            format!("writing {indicators} indicators into the kernel's tables")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_in_words() {
        let fetching = |of| {
            text(Step::Fetching {
                feed: "feodo",
                bytes: 10,
                of,
            })
        };
        assert_eq!(fetching(Some(20)), "fetching feodo: 10 of 20 bytes");
        assert_eq!(fetching(None), "fetching feodo: 10 bytes");
        let reading = Step::Reading {
            feed: "feodo",
            number: 2,
            of: 3,
        };
        assert_eq!(text(reading), "reading feodo (2 of 3)");
    }
}
