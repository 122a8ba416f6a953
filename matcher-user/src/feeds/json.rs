//! JSON documents record by record. A record that cannot be read costs only
//! itself; nothing is built of the whole document but borrowed pieces of it.
//! A document that is not JSON to its end was cut off or is something else,
//! and is not used at all.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{ParsedFeed, lines::quoted};

/// Numbers of the lines that pieces of a text begin on.
pub(super) struct Records<'a> {
    text: &'a str,
    /// How far lines are counted, and the line there.
    counted: usize,
    line: u32,
    /// Records so far; in a document of one line the only clue to the place.
    number: u32,
}

impl<'a> Records<'a> {
    /// The next record: counts it and says its line.
    pub(super) fn begin(&mut self, feed: &mut ParsedFeed, piece: &RawValue) -> u32 {
        feed.data_lines += 1;
        self.number += 1;
        self.line_of(piece.get())
    }

    /// Reports a record as bad, with its number.
    pub(super) fn bad(&self, feed: &mut ParsedFeed, line: u32, reason: impl fmt::Display) {
        feed.bad(line, format_args!("record {}: {reason}", self.number));
    }

    /// The line on which `piece`, a part of the text, begins.
    pub(super) fn line_of(&mut self, piece: &str) -> u32 {
        let at = (piece.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        if at < self.counted {
            (self.counted, self.line) = (0, 1);
        }
        let between = self.text.as_bytes().get(self.counted..at);
        let lines = between.map_or(0, |between| {
            between.iter().filter(|byte| **byte == b'\n').count()
        });
        self.line = self
            .line
            .saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.counted = at;
        self.line
    }
}

/// What does not fit into the document's outermost structure.
pub(super) type Structure = Result<(), String>;

/// Reads a text of one or more JSON documents (pages come one after the
/// other). `wanted` says in the message what each should be.
pub(super) fn read<F>(bytes: &[u8], wanted: &str, mut each: F) -> ParsedFeed
where
    F: for<'a> FnMut(&mut ParsedFeed, &'a RawValue, &mut Records<'a>) -> Structure,
{
    let mut feed = ParsedFeed::default();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // One byte that is not UTF-8 spoils its record, not the file.
    let text = String::from_utf8_lossy(bytes);
    let mut records = Records {
        text: &text,
        counted: 0,
        line: 1,
        number: 0,
    };
    let documents = serde_json::Deserializer::from_str(&text).into_iter::<&RawValue>();
    for document in documents {
        let document = match document {
            Ok(document) => document,
            Err(error) => {
                feed.wrong_format(
                    u32::try_from(error.line()).unwrap_or(u32::MAX).max(1),
                    format_args!(
                        "not JSON, or cut off: {} (column {})",
                        reason(&error),
                        error.column()
                    ),
                );
                return feed;
            }
        };
        if let Err(found) = each(&mut feed, document, &mut records) {
            let line = records.line_of(document.get());
            feed.wrong_format(line, format_args!("expected {wanted}, found {found}"));
            return feed;
        }
    }
    feed
}

/// What serde_json says, without the place: it counts inside the piece.
pub(super) fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line ") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

/// Reads one piece; the reason where it is something else.
pub(super) fn object<'a, T: Deserialize<'a>>(piece: &'a RawValue) -> Result<T, String> {
    serde_json::from_str(piece.get()).map_err(|error| reason(&error))
}

/// Calls `each` for the items of a list.
pub(super) fn items<'a>(list: &'a RawValue, each: impl FnMut(&'a RawValue)) -> Structure {
    struct Items<F>(F);
    impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for Items<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
            while let Some(item) = list.next_element()? {
                self.0(item);
            }
            Ok(())
        }
    }
    impl<'de, F: FnMut(&'de RawValue)> DeserializeSeed<'de> for Items<F> {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, list: D) -> Result<(), D::Error> {
            list.deserialize_seq(self)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(list.get());
    Items(each)
        .deserialize(&mut reader)
        .map_err(|_| quoted(list.get()))
}

/// Calls `each` for the members of an object.
pub(super) fn members<'a>(
    object: &'a RawValue,
    each: impl FnMut(Cow<'a, str>, &'a RawValue),
) -> Structure {
    struct Members<F>(F);
    impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue)> Visitor<'de> for Members<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some((Text(key), value)) = map.next_entry()? {
                self.0(key, value);
            }
            Ok(())
        }
    }
    impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue)> DeserializeSeed<'de> for Members<F> {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, map: D) -> Result<(), D::Error> {
            map.deserialize_map(self)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(object.get());
    Members(each)
        .deserialize(&mut reader)
        .map_err(|_| quoted(object.get()))
}

/// A text that is borrowed where it can be.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A value of which feeds disagree on the type: a text, a number, true or
/// false, or null.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scalar<'a>(Option<Cow<'a, str>>);

impl Scalar<'_> {
    /// The value as text without blanks around it; empty for null.
    pub(super) fn text(&self) -> &str {
        self.0.as_deref().unwrap_or_default().trim()
    }

    /// The value, where it says something.
    pub(super) fn said(&self) -> Option<&str> {
        let text = self.text();
        (!text.is_empty() && !text.eq_ignore_ascii_case("none")).then_some(text)
    }

    /// `true`, `"true"`, `1` or `"1"`.
    pub(super) fn is_true(&self) -> bool {
        self.text() == "1" || self.text().eq_ignore_ascii_case("true")
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Scalar<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a number")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Scalar(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Scalar(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
                Ok(Scalar(Some(Cow::Borrowed(if value {
                    "true"
                } else {
                    "false"
                }))))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
                Ok(Scalar(Some(Cow::Owned(value.to_string()))))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
                Ok(Scalar(Some(Cow::Owned(value.to_string()))))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
                Ok(Scalar(Some(Cow::Owned(value.to_string()))))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Scalar(None))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
