//! Secrets for servers: read from files that others cannot read, never shown.

use std::{
    fmt,
    fs::File,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use base64::Engine as _;

use super::FetchError;
use crate::feeds::Auth;

/// Longer secrets are no secrets but another file.
const MAX_SECRET_BYTES: u64 = 16 << 10;

/// A header that says who we are.
pub(super) struct SecretHeader {
    pub(super) name: String,
    pub(super) value: String,
}

impl fmt::Debug for SecretHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: (secret)", self.name)
    }
}

/// Reads the secret of a file that nobody but its owner and group can read.
///
/// # Errors
///
/// When the file cannot be read, others may read it, its group may write it,
/// or it holds what cannot stand in a header.
pub(super) fn read(auth: &Auth, path: &Path) -> Result<SecretHeader, FetchError> {
    let failed = |reason: String| FetchError::Secret {
        path: path.to_owned(),
        reason,
    };
    let file = File::open(path).map_err(|error| failed(format!("cannot read it: {error}")))?;
    let metadata = file
        .metadata()
        .map_err(|error| failed(format!("cannot read it: {error}")))?;
    let mode = metadata.permissions().mode() & 0o777;
    let own = rustix::process::geteuid().as_raw();
    if mode & 0o027 != 0 {
        return Err(failed(format!(
            "its mode is {mode:o}: others can read it, or its group can change it (chmod 600)"
        )));
    }
    if metadata.uid() != 0 && metadata.uid() != own {
        return Err(failed(format!(
            "it belongs to user {}, who is neither root nor the one matcher runs as",
            metadata.uid()
        )));
    }
    let mut text = String::new();
    file.take(MAX_SECRET_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| failed(format!("cannot read it: {error}")))?;
    let secret = text.trim();
    if secret.is_empty() {
        return Err(failed("it is empty".into()));
    }
    if text.len() as u64 > MAX_SECRET_BYTES || !secret.bytes().all(|it| (b' '..=b'~').contains(&it))
    {
        return Err(failed(
            "it holds more than one line of printable ASCII: the secret alone belongs there".into(),
        ));
    }
    Ok(match auth {
        Auth::Bearer => authorization(format!("Bearer {secret}")),
        Auth::Basic if !secret.contains(':') => {
            return Err(failed("\"basic\" wants user:password".into()));
        }
        Auth::Basic => authorization(format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(secret)
        )),
        Auth::Header(name) => SecretHeader {
            name: name.clone(),
            value: secret.to_owned(),
        },
    })
}

fn authorization(value: String) -> SecretHeader {
    SecretHeader {
        name: "Authorization".into(),
        value,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    fn with(text: &str, mode: u32, auth: &Auth) -> Result<SecretHeader, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        read(auth, file.path()).map_err(|error| {
            error
                .to_string()
                .split(": ")
                .skip(1)
                .collect::<Vec<_>>()
                .join(": ")
        })
    }

    #[test]
    fn a_secret_becomes_the_header_that_was_asked_for() {
        for (auth, secret, header) in [
            (Auth::Bearer, "abc\n", "Authorization: Bearer abc"),
            (
                Auth::Basic,
                "user:pass\n",
                "Authorization: Basic dXNlcjpwYXNz",
            ),
            (Auth::Header("Auth-Key".into()), "abc", "Auth-Key: abc"),
        ] {
            let read = with(secret, 0o640, &auth).unwrap();
            assert_eq!(format!("{}: {}", read.name, read.value), header);
            assert!(!format!("{read:?}").contains("abc"));
        }
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        for mode in [0o644, 0o604, 0o660, 0o602] {
            let error = with("abc", mode, &Auth::Bearer).unwrap_err();
            assert!(error.contains(&format!("{mode:o}")), "{error}");
            assert!(!error.contains("abc"), "{error}");
        }
    }

    #[test]
    fn what_cannot_stand_in_a_header_is_refused_and_not_shown() {
        for (auth, secret) in [
            (Auth::Bearer, " \n"),
            (Auth::Bearer, "abc\ndef"),
            (Auth::Bearer, "abc\u{e4}"),
            (Auth::Basic, "abc"),
        ] {
            let error = with(secret, 0o600, &auth).unwrap_err();
            assert!(!error.contains("abc"), "{error}");
        }
    }
}
