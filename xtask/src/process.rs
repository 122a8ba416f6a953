//! Child processes. Every failure names the command line and how it ended.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, anyhow, bail};

/// Runs a command with the terminal as its output.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    check(command, status)
}

/// Runs a command and gives its standard output as text; its standard error goes into the error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", failure(command, output.status), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Becomes the command: its signals and its exit status are then those of xtask. Returns only
/// when it cannot be started.
pub fn replace(command: &mut Command) -> anyhow::Error {
    let error = command.exec();
    anyhow!(error).context(format!("cannot start `{}`", line(command)))
}

/// An error unless the command succeeded.
pub fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() {
        Ok(())
    } else {
        bail!("{}", failure(command, status))
    }
}

/// "`cargo test` failed: exit status: 101".
pub fn failure(command: &Command, status: ExitStatus) -> String {
    format!("`{}` failed: {status}", line(command))
}

/// The command as a person would type it.
pub fn line(command: &Command) -> String {
    let mut text = String::new();
    for part in std::iter::once(command.get_program()).chain(command.get_args()) {
        let part = part.to_string_lossy();
        if !text.is_empty() {
            text.push(' ');
        }
        if part.is_empty()
            || part.contains(|c: char| c.is_whitespace() || "'\"$&;|<>()*".contains(c))
        {
            text.push('\'');
            text.push_str(&part.replace('\'', r"'\''"));
            text.push('\'');
        } else {
            text.push_str(&part);
        }
    }
    text
}

/// The first executable of that name on `PATH`.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| {
            file.metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

/// Whether this process may change the machine.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_named_with_its_status() {
        let error = run(Command::new("sh").args(["-c", "exit 7"]))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "`sh -c 'exit 7'` failed: exit status: 7");
    }

    #[test]
    fn a_command_that_cannot_start_is_named() {
        let error = output(Command::new("/nonexistent/x").arg("a"))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "cannot start `/nonexistent/x a`");
    }

    #[test]
    fn what_a_failing_command_said_is_in_the_error() {
        let error =
            output(Command::new("sh").args(["-c", "echo no such thing >&2; exit 1"])).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("failed: exit status: 1: no such thing"),
            "{error}"
        );
    }

    #[test]
    fn arguments_with_spaces_and_quotes_are_quoted() {
        let mut command = Command::new("echo");
        command.args(["a b", "it's", "", "plain"]);
        assert_eq!(
            line(&command),
            r"echo 'a b' it's '' plain".replace("it's", r"'it'\''s'")
        );
    }
}
