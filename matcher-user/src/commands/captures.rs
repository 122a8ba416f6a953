//! `matcher replay` and `matcher parse`.

use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

use matcher_user::{
    instance::{Instance, InstanceError, parse_sources},
    kernel::object::Object,
    replay::{ReplayError, dissect, matching},
};

use super::cli::Replay;

pub(super) fn replay(config: Option<&Path>, arguments: Replay) -> anyhow::Result<u8> {
    let request = matching::Request {
        feeds: parse_sources(&arguments.feeds)?,
        subscribers: arguments
            .subscribers
            .parse()
            .map_err(|error| InstanceError::Usage(format!("--subscribers: {error}")))?,
        vlan_spaces: parsed("--vlan-space", &arguments.vlan_spaces)?,
        nat64: parsed("--nat64", &arguments.nat64)?,
        opt_out: arguments.opt_out,
        guards: !arguments.no_guards,
        json: arguments.json,
        captures: arguments.captures,
    };
    let object = object(config)?;
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    match matching::replay(&object, &request, &mut out, &mut err) {
        Ok(account) => Ok(u8::from(!account.captured.all_usable())),
        Err(error) => ended(error, &mut err),
    }
}

fn parsed<T: FromStr<Err: Display>>(
    option: &str,
    values: &[String],
) -> Result<Vec<T>, InstanceError> {
    let read = |value: &String| {
        value
            .parse()
            .map_err(|error| InstanceError::Usage(format!("{option}: {error}")))
    };
    values.iter().map(read).collect()
}

pub(super) fn parse(
    config: Option<&Path>,
    json: bool,
    captures: Vec<PathBuf>,
) -> anyhow::Result<u8> {
    let request = dissect::Request { json, captures };
    let object = object(config)?;
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    match dissect::parse(&object, &request, &mut out, &mut err) {
        Ok(account) => Ok(u8::from(!account.captured.all_usable())),
        Err(error) => ended(error, &mut err),
    }
}

/// The object that a configuration names; no configuration is looked for.
fn object(config: Option<&Path>) -> anyhow::Result<Object> {
    let object = match config {
        Some(path) => Instance::of_config(path)?.object()?,
        None => Object::built_in().map_err(InstanceError::from)?,
    };
    Ok(object)
}

fn ended(error: ReplayError, err: &mut impl io::Write) -> anyhow::Result<u8> {
    match error {
        // `| head` is no failure.
        ReplayError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        ReplayError::Kernel(error) => Err(InstanceError::from(error).into()),
        error => {
            for line in error.to_string().lines() {
                writeln!(err, "error: {line}")?;
            }
            Ok(1)
        }
    }
}
