//! Interfaces, their roles, and how the program is attached to them.

use std::{fmt, str::FromStr};

/// Where an interface stands (design decision 9).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Packets come in from subscribers: the source must be one.
    Access,
    /// Packets come in from outside: a source in the subscriber space is
    /// spoofed.
    Core,
    /// Either.
    Both,
}

impl Role {
    const ALL: [Self; 3] = [Self::Access, Self::Core, Self::Both];

    /// The name in the config.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Core => "core",
            Self::Both => "both",
        }
    }

    /// Whether a subscriber's address cannot be forged there, unless the
    /// operator says otherwise: an access network checks its sources.
    pub const fn source_validated(self) -> bool {
        matches!(self, Self::Access)
    }
}

/// How the program is attached.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum AttachMode {
    /// In the driver where it can, else in the kernel's generic hook with a
    /// warning.
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's generic hook: any interface, slower.
    Generic,
}

impl AttachMode {
    const ALL: [Self; 3] = [Self::Auto, Self::Native, Self::Generic];

    /// The name in the config.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// A word that is none of the names that can stand there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no {what} (known: {known})")]
pub struct UnknownName {
    what: &'static str,
    given: String,
    known: String,
}

impl UnknownName {
    pub(super) fn new<'a>(
        what: &'static str,
        given: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        Self {
            what,
            given: given.to_owned(),
            known: known.join(", "),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Role {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| UnknownName::new("role", text, Self::ALL.map(Self::name)))
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for AttachMode {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.name() == text)
            .ok_or_else(|| UnknownName::new("attach mode", text, Self::ALL.map(Self::name)))
    }
}

/// A text that no interface can be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be an interface's name: 1 to 15 bytes, without space, '/' or ':', not '.' or '..'"
)]
pub struct InterfaceNameError(pub String);

/// Checks a name as the kernel does (`dev_valid_name` in net/core/dev.c).
///
/// # Errors
/// The text, where no interface can be called so.
pub fn check_interface_name(name: &str) -> Result<(), InterfaceNameError> {
    let valid = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name
            .chars()
            .any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if valid {
        Ok(())
    } else {
        Err(InterfaceNameError(name.to_owned()))
    }
}

/// An interface that the program is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// As the kernel calls it.
    pub name: String,
    /// Where it stands.
    pub role: Role,
    /// How the program is attached to it.
    pub mode: AttachMode,
    /// A subscriber's address cannot be forged in what comes in there; only
    /// such packets can make a candidate (design decision 8).
    pub source_validated: bool,
}

/// `NAME[:ROLE]` of `--iface`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceArgument {
    /// As the kernel calls it.
    pub name: String,
    /// Where it stands; `None` where it was not said.
    pub role: Option<Role>,
}

/// An `--iface` that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterfaceArgumentError {
    /// The part before the colon.
    #[error(transparent)]
    Name(#[from] InterfaceNameError),
    /// The part after the colon.
    #[error(transparent)]
    Role(#[from] UnknownName),
}

impl FromStr for InterfaceArgument {
    type Err = InterfaceArgumentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, role) = match text.split_once(':') {
            Some((name, role)) => (name, Some(role.parse()?)),
            None => (text, None),
        };
        check_interface_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            role,
        })
    }
}

impl InterfaceArgument {
    /// The interface with what the role implies; [`Role::Both`] where none was
    /// said, which proves nothing about sources.
    pub fn interface(self, mode: AttachMode) -> Interface {
        let role = self.role.unwrap_or(Role::Both);
        Interface {
            name: self.name,
            role,
            mode,
            source_validated: role.source_validated(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        for mode in AttachMode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert_eq!(Role::ALL.map(Role::name), ["access", "core", "both"]);
        assert_eq!(
            AttachMode::ALL.map(AttachMode::name),
            ["auto", "native", "generic"]
        );
    }

    #[test]
    fn an_interface_argument_is_a_name_and_perhaps_a_role() {
        let read = |text: &str| text.parse::<InterfaceArgument>();
        let plain = read("eth0").unwrap().interface(AttachMode::Auto);
        assert_eq!((plain.role, plain.source_validated), (Role::Both, false));
        let access = read("eth0:access").unwrap().interface(AttachMode::Native);
        assert_eq!((access.role, access.source_validated), (Role::Access, true));
        insta::assert_snapshot!(read("eth0:edge").unwrap_err(), @r#""edge" is no role (known: access, core, both)"#);
        for wrong in ["", ":access", "eth 0", "a/b", "..", "sixteen-bytes-xx"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
