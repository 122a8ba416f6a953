//! A small reader over a TOML document that goes on after a mistake: it notes
//! what is wrong and where, gives the default instead, and at the end of each
//! table reports the keys that nobody knows.

use std::{str::FromStr, time::Duration};

use ipnet::IpNet;
use jiff::{SpanRelativeTo, Timestamp};
use toml::{
    Spanned,
    de::{DeInteger, DeTable, DeValue},
};

use super::{KEYS, diagnostic::Diagnostics};
use crate::subscribers::exact_prefix;

/// A value and the byte offset where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) offset: usize,
    pub(super) value: T,
}

/// The document: diagnostics so far, and whether all of it could be read.
pub(super) struct Document<'a> {
    pub(super) diagnostics: Diagnostics<'a>,
    /// Where the first syntax error stands. From there on what looks unknown
    /// may be a consequence of it, as may anything that looks missing, so only
    /// wrong values are reported.
    pub(super) broken_from: Option<usize>,
}

impl Document<'_> {
    /// A key, table or statement that has to be there.
    pub(super) fn missing(&mut self, at: usize, message: impl Into<String>) {
        if self.broken_from.is_none() {
            self.diagnostics.error(at, message);
        }
    }

    /// The same, where the config can be used without it.
    pub(super) fn missing_but_usable(&mut self, at: usize, message: impl Into<String>) {
        if self.broken_from.is_none() {
            self.diagnostics.warn(at, message);
        }
    }
}

/// One table of the document. `name` is its name in [`KEYS`] with the dot
/// (`"consent."`), empty for the top.
pub(super) struct Section<'t> {
    name: &'static str,
    /// Where the table's header stands; where a missing key is reported.
    pub(super) offset: usize,
    table: Option<&'t DeTable<'t>>,
}

impl<'t> Section<'t> {
    pub(super) fn top(table: &'t Spanned<DeTable<'t>>) -> Self {
        Self {
            name: "",
            offset: 0,
            table: Some(table.get_ref()),
        }
    }

    /// The section is not in the document, as far as it could be read.
    pub(super) fn is_absent(&self) -> bool {
        self.table.is_none()
    }

    /// Whether the key is given, readable or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Whether the key is absent, or a list without items.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        self.get(key).is_none_or(|value| {
            value
                .get_ref()
                .as_array()
                .is_some_and(|list| list.is_empty())
        })
    }

    fn get(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        debug_assert!(
            KEYS.iter().any(|known| {
                known
                    .strip_prefix(self.name)
                    .is_some_and(|rest| rest == key || rest.split('.').next() == Some(key))
            }),
            "{}{key} is read but not in KEYS",
            self.name
        );
        self.table?.get(key)
    }

    /// A table below this one; all defaults where it is absent.
    pub(super) fn table(&self, document: &mut Document<'_>, name: &'static str) -> Self {
        let (whole, key) = keys_of(name);
        let (offset, table) = match self.get(key) {
            None => (self.offset, None),
            Some(value) => {
                let offset = value.span().start;
                match value.get_ref() {
                    DeValue::Table(table) => (offset, Some(table)),
                    other => {
                        let message = wrong_type(key, &format!("a table: write [{whole}]"), other);
                        document.diagnostics.error(offset, message);
                        (offset, None)
                    }
                }
            }
        };
        Self {
            name,
            offset,
            table,
        }
    }

    /// The tables of an array `[[name]]`.
    pub(super) fn tables(&self, document: &mut Document<'_>, name: &'static str) -> Vec<Self> {
        let (whole, key) = keys_of(name);
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let form = format!("a list of tables: write [[{whole}]] above each");
        let DeValue::Array(array) = value.get_ref() else {
            let message = wrong_type(key, &form, value.get_ref());
            document.diagnostics.error(value.span().start, message);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in array.iter() {
            let offset = item.span().start;
            match item.get_ref() {
                DeValue::Table(table) => sections.push(Self {
                    name,
                    offset,
                    table: Some(table),
                }),
                other => {
                    let message = wrong_type(key, &form, other);
                    document.diagnostics.error(offset, message);
                }
            }
        }
        sections
    }

    /// Reports the keys that [`KEYS`] does not have.
    pub(super) fn finish(self, document: &mut Document<'_>) {
        let Some(table) = self.table else { return };
        let known: Vec<&str> = KEYS
            .iter()
            .filter_map(|key| key.strip_prefix(self.name))
            .filter_map(|rest| rest.split('.').next())
            .collect();
        for key in table.keys() {
            let (name, offset) = (key.get_ref().as_ref(), key.span().start);
            let doubtful = document.broken_from.is_some_and(|broken| offset >= broken);
            if known.contains(&name) || doubtful {
                continue;
            }
            let message = format!("unknown key {name}{}", self.hint(name, &known));
            document.diagnostics.error(offset, message);
        }
    }

    /// What was probably meant by an unknown key.
    fn hint(&self, name: &str, known: &[&str]) -> String {
        let lower = name.to_lowercase();
        let nearest = known
            .iter()
            .map(|known| (strsim::damerau_levenshtein(&lower, known), *known))
            .min();
        // A third of the letters wrong is another word.
        if let Some((distance, nearest)) = nearest
            && distance <= nearest.len().div_ceil(3)
        {
            return format!(": did you mean {nearest}?");
        }
        let elsewhere = KEYS
            .iter()
            .find(|key| key.rsplit('.').next() == Some(name))
            .map(|key| key.rsplit_once('.').map_or("", |(section, _)| section));
        match elsewhere {
            Some("") => ": it belongs at the top, above the first [table]".to_owned(),
            Some(section) => format!(": it belongs in [{section}]"),
            None => {
                let mut known: Vec<&str> = known.to_vec();
                known.dedup();
                format!(" (known here: {})", known.join(", "))
            }
        }
    }

    /// A value of any type, read by `read`; `None` where it is absent or
    /// wrong, which is then reported.
    fn value<T>(
        &self,
        document: &mut Document<'_>,
        key: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<At<T>> {
        let value = self.get(key)?;
        let offset = value.span().start;
        match read(value.get_ref()) {
            Ok(value) => Some(At { offset, value }),
            Err(message) => {
                document.diagnostics.error(offset, message);
                None
            }
        }
    }

    pub(super) fn boolean(&self, document: &mut Document<'_>, key: &str) -> Option<At<bool>> {
        self.value(document, key, |value| {
            value
                .as_bool()
                .ok_or_else(|| wrong_type(key, "true or false", value))
        })
    }

    /// A string with at least one character that is not space.
    pub(super) fn string(&self, document: &mut Document<'_>, key: &str) -> Option<At<String>> {
        self.value(document, key, |value| read_string(key, value))
    }

    /// A string that has a form of its own.
    pub(super) fn parsed<T: FromStr<Err: std::fmt::Display>>(
        &self,
        document: &mut Document<'_>,
        key: &str,
    ) -> Option<At<T>> {
        self.value(document, key, |value| {
            let text = read_string(key, value)?;
            text.parse().map_err(|error| format!("{key}: {error}"))
        })
    }

    /// A whole number from `least` to `most`.
    pub(super) fn integer(
        &self,
        document: &mut Document<'_>,
        key: &str,
        least: u32,
        most: u32,
    ) -> Option<At<u32>> {
        self.value(document, key, |value| {
            let form = format!("a whole number from {least} to {most}");
            let DeValue::Integer(integer) = value else {
                return Err(wrong_type(key, &form, value));
            };
            whole(integer)
                .and_then(|number| u32::try_from(number).ok())
                .filter(|number| (least..=most).contains(number))
                .ok_or_else(|| format!("{key} must be {form}, not {integer}"))
        })
    }

    /// A share from 0 to 1.
    pub(super) fn share(&self, document: &mut Document<'_>, key: &str) -> Option<At<f64>> {
        self.value(document, key, |value| {
            let form = "a share from 0.0 to 1.0";
            let (number, given): (Option<f64>, _) = match value {
                DeValue::Float(float) => (float.as_str().parse().ok(), float.as_str()),
                DeValue::Integer(integer) => {
                    (whole(integer).map(|number| number as f64), integer.as_str())
                }
                other => return Err(wrong_type(key, form, other)),
            };
            number
                .filter(|number| (0.0..=1.0).contains(number))
                .ok_or_else(|| format!("{key} must be {form}, not {given}"))
        })
    }

    /// A duration as people write it, from `least` to `most`.
    pub(super) fn duration(
        &self,
        document: &mut Document<'_>,
        key: &str,
        least: (&str, Duration),
        most: (&str, Duration),
    ) -> Option<At<Duration>> {
        self.value(document, key, |value| {
            let form = r#"a duration as "15m", "36h" or "90d""#;
            let DeValue::String(text) = value else {
                return Err(wrong_type(key, form, value));
            };
            let duration =
                read_duration(text).ok_or_else(|| format!("{key} must be {form}, not {text:?}"))?;
            if (least.1..=most.1).contains(&duration) {
                Ok(duration)
            } else {
                Err(format!(
                    "{key} must be from {} to {}, not {text:?}",
                    least.0, most.0
                ))
            }
        })
    }

    /// A time with its offset, as a TOML date-time or a string.
    pub(super) fn timestamp(
        &self,
        document: &mut Document<'_>,
        key: &str,
    ) -> Option<At<Timestamp>> {
        self.value(document, key, |value| {
            let form = "a time with offset (RFC 3339), as 2026-12-01T00:00:00+09:00";
            let text = match value {
                DeValue::String(text) => text.to_string(),
                DeValue::Datetime(datetime) => datetime.to_string(),
                other => return Err(wrong_type(key, form, other)),
            };
            text.parse()
                .map_err(|_| format!("{key} must be {form}, not {text}"))
        })
    }

    /// A list of strings, each read by `read`; a wrong item is reported and
    /// left out.
    pub(super) fn list<T>(
        &self,
        document: &mut Document<'_>,
        key: &str,
        what: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<At<T>> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let form = format!("a list of {what}");
        let DeValue::Array(array) = value.get_ref() else {
            let message = wrong_type(key, &form, value.get_ref());
            document.diagnostics.error(value.span().start, message);
            return Vec::new();
        };
        let mut items = Vec::new();
        for item in array.iter() {
            let offset = item.span().start;
            let read = match item.get_ref() {
                DeValue::String(text) if !text.trim().is_empty() => read(text),
                DeValue::String(_) => Err(format!("{key} has an empty item")),
                other => Err(wrong_type(
                    &format!("each item of {key}"),
                    "a string",
                    other,
                )),
            };
            match read {
                Ok(value) => items.push(At { offset, value }),
                Err(message) => document.diagnostics.error(offset, message),
            }
        }
        items
    }

    /// A list of prefixes; one that is given twice is warned of.
    pub(super) fn prefixes(&self, document: &mut Document<'_>, key: &str) -> Vec<IpNet> {
        let items = self.list(document, key, "prefixes", exact_prefix);
        let mut prefixes: Vec<IpNet> = Vec::with_capacity(items.len());
        let mut seen = std::collections::HashSet::new();
        for At { offset, value } in items {
            if seen.insert(value) {
                prefixes.push(value);
            } else {
                let message = format!("{value} stands twice in {key}");
                document.diagnostics.warn(offset, message);
            }
        }
        prefixes
    }
}

/// The name of a table as it is written, and its key in the table around it.
fn keys_of(name: &'static str) -> (&'static str, &'static str) {
    let whole = name.trim_end_matches('.');
    (whole, whole.rsplit('.').next().unwrap_or(whole))
}

fn read_string(key: &str, value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) if text.trim().is_empty() => Err(format!("{key} must not be empty")),
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(wrong_type(key, "a string", other)),
    }
}

fn whole(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn wrong_type(key: &str, form: &str, value: &DeValue<'_>) -> String {
    let given = match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("{key} must be {form}, not {given}")
}

/// Days count 24 hours; months and years have no fixed length and are refused.
fn read_duration(text: &str) -> Option<Duration> {
    let span: jiff::Span = text.trim().parse().ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(duration).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("15m", 900),
            ("90d", 7_776_000),
            ("1h30m", 5400),
            ("2w", 1_209_600),
            ("15 minutes", 900),
        ] {
            assert_eq!(
                read_duration(text),
                Some(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in ["", "15", "-15m", "1mo", "1y", "m", "15x"] {
            assert_eq!(read_duration(text), None, "{text}");
        }
    }
}
