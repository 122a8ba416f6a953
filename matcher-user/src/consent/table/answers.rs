//! Answers, each kept once: most sharers of most addresses hold one of few
//! port sets.

use std::{collections::HashMap, sync::Arc};

use crate::consent::{
    answer::{Answer, PortAnswers},
    purpose::PurposeSet,
};

/// Ids below this stand for answers that are the same for every port: the id
/// is the set's bits.
const WHOLE: u32 = 1 << 8;

/// One of the [`Answers`] of a table; equal ids are equal answers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct AnswerId(u32);

/// All answers of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    by_port: Vec<Arc<PortAnswers>>,
}

impl Answers {
    pub(super) fn get(&self, id: AnswerId) -> Answer {
        match self.at(id) {
            Ok(whole) => Answer::Whole(whole),
            Err(None) => Answer::Whole(PurposeSet::NONE),
            Err(Some(by_port)) => Answer::ByPort(Arc::clone(by_port)),
        }
    }

    pub(super) fn allowed(&self, id: AnswerId, port: Option<u16>) -> PurposeSet {
        match self.at(id) {
            Ok(whole) => whole,
            Err(_) => self.get(id).allowed(port),
        }
    }

    fn at(&self, AnswerId(id): AnswerId) -> Result<PurposeSet, Option<&Arc<PortAnswers>>> {
        match u8::try_from(id) {
            Ok(bits) => Ok(PurposeSet::from_bits(bits)),
            Err(_) => Err(usize::try_from(id - WHOLE)
                .ok()
                .and_then(|index| self.by_port.get(index))),
        }
    }
}

/// Collects answers.
#[derive(Default)]
pub(super) struct Interner {
    answers: Answers,
    ids: HashMap<Arc<PortAnswers>, AnswerId>,
}

impl Interner {
    pub(super) fn id(&mut self, answer: Answer) -> AnswerId {
        let by_port = match answer {
            Answer::Whole(whole) => return AnswerId(whole.bits().into()),
            Answer::ByPort(by_port) => by_port,
        };
        if let Some(known) = self.ids.get(&by_port) {
            return *known;
        }
        let index = u32::try_from(self.answers.by_port.len()).unwrap_or(u32::MAX);
        let id = AnswerId(WHOLE.saturating_add(index));
        self.answers.by_port.push(Arc::clone(&by_port));
        self.ids.insert(by_port, id);
        id
    }

    pub(super) fn into_answers(self) -> Answers {
        self.answers
    }
}
