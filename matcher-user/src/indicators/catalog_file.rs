//! The catalog as a file beside the store: JSON lines, the first with the
//! version.
//!
//! ```text
//! {"matcher_catalog":2,"next_id":14,"indicators":3}
//! {"id":12,"value":"198.51.100.0/24","port":443,"said":[{"feed":"feodo","malware":"Dridex"}]}
//! {"id":7,"value":"203.0.113.9/32","said":[{"feed":"own"}],"left":"2026-11-21T07:03:03Z"}
//! {"id":13,"name":"c2.example","said":[{"feed":"rpz"}]}
//! ```
//!
//! Addresses first, then names, each in order of identity.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    LastSaid,
    catalog::{Catalog, Known},
    identity,
};
use crate::{
    indicator::{DomainName, Indicator, IndicatorId, Qualifier, Statement},
    protocol::Protocol,
};

const VERSION: u32 = 2;

impl Catalog {
    /// Reads a catalog; `None` when there is no such file yet.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is not what [`Self::save`] wrote.
    pub fn load(path: &Path) -> Result<Option<Self>, CatalogError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CatalogError::read(path, source)),
        };
        let mut lines = (1u64..).zip(BufReader::new(file).split(b'\n'));
        let mut next = || match lines.next() {
            None => Ok(None),
            Some((number, Ok(line))) => Ok(Some((number, line))),
            Some((_, Err(source))) => Err(CatalogError::read(path, source)),
        };
        let corrupt = |line: u64, reason: String| CatalogError::Corrupt {
            path: path.to_owned(),
            line,
            reason,
        };
        let (_, first) = next()?.ok_or_else(|| corrupt(1, "the file is empty".to_owned()))?;
        let header: Header = from_json(&first).map_err(|reason| corrupt(1, reason))?;
        if header.matcher_catalog != VERSION {
            return Err(CatalogError::Version {
                path: path.to_owned(),
                found: header.matcher_catalog,
            });
        }
        let mut addresses: Vec<Known<IpNet>> = Vec::new();
        let mut names: Vec<Known<DomainName>> = Vec::new();
        let mut shared = Shared::default();
        let mut last_line = 1;
        while let Some((number, line)) = next()? {
            last_line = number;
            let read = from_json::<Line>(&line).and_then(|line| {
                line.check(header.next_id)?;
                match (line.value, &line.name) {
                    (Some(value), None) if names.is_empty() => {
                        if value != value.trunc() {
                            return Err(format!("{value} has bits set beyond its length"));
                        }
                        push(&mut addresses, line.known(value, &mut shared))
                    }
                    (None, Some(name)) => {
                        let name = name.clone();
                        push(&mut names, line.known(name, &mut shared))
                    }
                    (Some(_), None) => Err("out of order: an address after a name".to_owned()),
                    _ => Err("neither an address nor a name, or both".to_owned()),
                }
            });
            read.map_err(|reason| corrupt(number, reason))?;
        }
        let read = addresses.len() + names.len();
        if read as u64 != header.indicators {
            let reason = format!(
                "the first line says {} indicators, the file has {read}: cut off?",
                header.indicators
            );
            return Err(corrupt(last_line, reason));
        }
        let catalog = Self::new(addresses, names, header.next_id);
        if let Some(IndicatorId(id)) = catalog.id_given_twice() {
            return Err(corrupt(last_line, format!("id {id} is given twice")));
        }
        Ok(Some(catalog))
    }

    /// Writes the catalog in one step: after a crash the file is the old one
    /// or the new one. Readable by the owner and the group only.
    ///
    /// # Errors
    ///
    /// When the directory or the disk does not let us.
    pub fn save(&self, path: &Path) -> Result<(), CatalogError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let beside = path.with_file_name(name);
        let written = self.write_to(&beside).and_then(|()| {
            fs::rename(&beside, path)?;
            // The rename itself must be on disk too.
            let directory = match path.parent() {
                Some(parent) if parent != Path::new("") => parent,
                _ => Path::new("."),
            };
            File::open(directory)?.sync_all()
        });
        written.map_err(|source| {
            // Best effort: what counts is the first error.
            let _ = fs::remove_file(&beside);
            CatalogError::Write {
                path: path.to_owned(),
                source,
            }
        })
    }

    fn write_to(&self, path: &Path) -> io::Result<()> {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o640)
            .open(path)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let header = Header {
            matcher_catalog: VERSION,
            next_id: self.next_id,
            indicators: self.len() as u64,
        };
        serde_json::to_writer(&mut out, &header)?;
        for known in &self.addresses.known {
            out.write_all(b"\n")?;
            let value = Some(known.indicator.value);
            serde_json::to_writer(&mut out, &Line::new(known, value, None))?;
        }
        for known in &self.names.known {
            out.write_all(b"\n")?;
            let name = Some(known.indicator.value.clone());
            serde_json::to_writer(&mut out, &Line::new(known, None, name))?;
        }
        out.write_all(b"\n")?;
        out.into_inner()?.sync_all()
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    matcher_catalog: u32,
    next_id: u32,
    indicators: u64,
}

/// Appends one that follows those before it.
fn push<V: Ord>(known: &mut Vec<Known<V>>, next: Known<V>) -> Result<(), String> {
    match known.last() {
        Some(last) if identity(&last.indicator) >= identity(&next.indicator) => {
            Err("out of order: the indicator is smaller than the one before".to_owned())
        }
        _ => {
            known.push(next);
            Ok(())
        }
    }
}

/// Statements and names of feeds that many indicators share.
#[derive(Default)]
struct Shared {
    feeds: HashMap<String, Arc<str>>,
    last: HashMap<String, Arc<Statement>>,
    last_said: LastSaid,
}

impl Shared {
    fn statements(&mut self, said: Vec<Arc<Statement>>) -> Arc<[Arc<Statement>]> {
        let said: Vec<Arc<Statement>> = said
            .into_iter()
            .map(|statement| self.statement(Arc::unwrap_or_clone(statement)))
            .collect();
        self.last_said.share(&said)
    }

    fn statement(&mut self, mut statement: Statement) -> Arc<Statement> {
        if let Some(last) = self.last.get(&*statement.feed)
            && **last == statement
        {
            return Arc::clone(last);
        }
        let feed = statement.feed.as_ref().to_owned();
        let shared = self.feeds.entry(feed.clone()).or_insert(statement.feed);
        statement.feed = Arc::clone(shared);
        let statement = Arc::new(statement);
        self.last.insert(feed, Arc::clone(&statement));
        statement
    }
}

/// The file's own form of an indicator, so that neither changes with the
/// other.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<IpNet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<DomainName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    protocol: Option<Protocol>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    valid_from: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    valid_until: Option<Timestamp>,
    said: Vec<Arc<Statement>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<Timestamp>,
}

impl Line {
    fn new<V>(known: &Known<V>, value: Option<IpNet>, name: Option<DomainName>) -> Self {
        let indicator = &*known.indicator;
        Self {
            id: indicator.id.0,
            value,
            name,
            protocol: indicator.qualifier.protocol,
            port: indicator.qualifier.port,
            valid_from: indicator.valid_from,
            valid_until: indicator.valid_until,
            said: indicator.statements.to_vec(),
            left: known.left,
        }
    }

    fn check(&self, next_id: u32) -> Result<(), String> {
        let id = self.id;
        if id == 0 || (next_id != 0 && id >= next_id) {
            return Err(format!("id {id} was never given: the next is {next_id}"));
        }
        if self.said.is_empty() {
            return Err("no feed says it".to_owned());
        }
        Ok(())
    }

    fn known<V>(self, value: V, shared: &mut Shared) -> Known<V> {
        Known {
            indicator: Arc::new(Indicator {
                id: IndicatorId(self.id),
                value,
                qualifier: Qualifier {
                    protocol: self.protocol,
                    port: self.port,
                },
                valid_from: self.valid_from,
                valid_until: self.valid_until,
                statements: shared.statements(self.said),
            }),
            left: self.left,
        }
    }
}

fn from_json<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(line).map_err(|error| {
        // serde_json counts lines inside the one line it is given.
        let text = error.to_string();
        let reason = text.split(" at line ").next().unwrap_or_default();
        format!("{reason} (column {})", error.column())
    })
}

/// What is wrong with a catalog file.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file exists and cannot be read.
    #[error("cannot read the indicator catalog {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file cannot be written; the old one, if any, is untouched.
    #[error("cannot write the indicator catalog {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is of another version of this program.
    #[error(
        "{}:1: the indicator catalog has version {found}, this program reads {VERSION}; when no \
         hit is waiting to be read, detach, remove the file, and attach again",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in its first line.
        found: u32,
    },
    /// The file is damaged.
    #[error(
        "{}:{line}: the indicator catalog is damaged: {reason}; restore it from a backup, or, if \
         no hit is waiting to be read, remove it together with the pinned maps",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: u64,
        /// What.
        reason: String,
    },
}

impl CatalogError {
    fn read(path: &Path, source: io::Error) -> Self {
        Self::Read {
            path: path.to_owned(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        feeds::{Format, parse},
        indicators::IndicatorSet,
    };

    fn listing(previous: &Catalog, text: &str, second: i64) -> Catalog {
        let entries = parse(Format::Plain, text.as_bytes()).entries;
        let now = Timestamp::from_second(second).unwrap();
        IndicatorSet::merge(previous, &[("own", entries.as_slice())], now)
            .unwrap()
            .1
    }

    #[test]
    fn a_saved_catalog_is_read_back_whole() {
        let text = "192.0.2.1:443 proto=tcp malware=\"a \\\"b\" confidence=3 from=2026-01-01T00:00:00Z\n\
                    2001:db8::/32 until=2027-01-01T00:00:00.5Z\n192.0.2.1\n";
        let catalog = listing(&Catalog::default(), text, 1);
        let catalog = listing(&catalog, "192.0.2.1\n192.0.2.9", 2);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.jsonl");
        assert_eq!(Catalog::load(&path).unwrap(), None);
        catalog.save(&path).unwrap();
        catalog.save(&path).unwrap();
        assert_eq!(Catalog::load(&path).unwrap(), Some(catalog));
        let names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["catalog.jsonl"], "nothing is left beside the file");
    }

    #[test]
    fn the_file_layout_is_this() {
        let catalog = listing(
            &Catalog::default(),
            "192.0.2.1:443 proto=tcp\n2001:db8::/32",
            1,
        );
        let catalog = listing(&catalog, "192.0.2.1:443 proto=tcp malware=x", 2);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.jsonl");
        catalog.save(&path).unwrap();
        insta::assert_snapshot!(fs::read_to_string(&path).unwrap());
    }

    #[test]
    fn a_damaged_file_names_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.jsonl");
        let message = |text: &str| {
            fs::write(&path, text).unwrap();
            let error = Catalog::load(&path).unwrap_err().to_string();
            error.replace(path.to_str().unwrap(), "catalog.jsonl")
        };
        let header = r#"{"matcher_catalog":2,"next_id":3,"indicators":2}"#;
        let a = r#"{"id":1,"value":"192.0.2.1/32","said":[{"feed":"own"}]}"#;
        let b = r#"{"id":2,"value":"192.0.2.2/32","said":[{"feed":"own"}]}"#;
        let messages = [
            message(""),
            message("not json\n"),
            message(&header.replace(":2,\"next", ":1,\"next")),
            message(&format!("{header}\n{a}\n")),
            message(&format!("{header}\n{a}\n{}", &b[..20])),
            message(&format!("{header}\n{b}\n{a}\n")),
            message(&format!(
                "{header}\n{a}\n{}\n",
                b.replace("\"id\":2", "\"id\":1")
            )),
            message(&format!(
                "{header}\n{a}\n{}\n",
                b.replace("\"id\":2", "\"id\":3")
            )),
            message(&format!(
                "{header}\n{a}\n{}\n",
                b.replace("\"id\":2", "\"id\":0")
            )),
            message(&format!("{header}\n{a}\n{}\n", b.replace("feed", "feeds"))),
            message(&format!("{header}\n{a}\n{}\n", b.replace("/32", "/24"))),
        ];
        insta::assert_snapshot!(messages.join("\n"));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let error = Catalog::default()
            .save(Path::new("/no/such/catalog"))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot write the indicator catalog /no/such/catalog: No such file or directory (os error 2)"
        );
        assert!(matches!(
            Catalog::load(Path::new("/")),
            Err(CatalogError::Read { .. })
        ));
    }
}
