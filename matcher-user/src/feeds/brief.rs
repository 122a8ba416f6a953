//! What a feed says of an entry: of nearly all entries of a long list nothing.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use crate::indicator::Said;

/// A [`Said`] that takes a word, and no more where nothing is said or the same
/// as of the entry it was cloned from: a long list is read as fast as memory can be
/// touched for the first time.
#[derive(Clone, Default)]
pub struct Brief(Option<Arc<Said>>);

static NOTHING: Said = Said {
    id: None,
    reference: None,
    malware: None,
    confidence: None,
    first_seen: None,
    last_seen: None,
    tlp: None,
};

impl Brief {
    /// Whether nothing is said.
    pub(super) fn is_nothing(&self) -> bool {
        **self == NOTHING
    }
}

impl Deref for Brief {
    type Target = Said;

    fn deref(&self) -> &Said {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Brief {
    fn deref_mut(&mut self) -> &mut Said {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

impl From<Said> for Brief {
    fn from(said: Said) -> Self {
        Self((said != NOTHING).then(|| Arc::new(said)))
    }
}

impl PartialEq for Brief {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Brief {}

impl fmt::Debug for Brief {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_is_the_same_however_it_came_about() {
        let mut taken_back = Brief::from(Said {
            confidence: Some(90),
            ..Said::default()
        });
        assert_ne!(taken_back, Brief::default());
        taken_back.confidence = None;
        assert_eq!(taken_back, Brief::default());
        assert_eq!(Brief::from(Said::default()), Brief::default());
        assert_eq!(*Brief::default(), Said::default());
        assert_eq!(format!("{taken_back:?}"), format!("{:?}", Said::default()));
    }

    #[test]
    fn what_is_said_of_one_entry_is_not_said_of_another() {
        let said = Said {
            malware: Some("QakBot".into()),
            ..Said::default()
        };
        let one = Brief::from(said.clone());
        let mut other = one.clone();
        assert_eq!(*other, said);
        other.confidence = Some(90);
        assert_eq!((&*one, other.confidence), (&said, Some(90)));
    }
}
