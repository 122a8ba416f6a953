//! An indicator by its id, in a list that is in order of identity.

use crate::indicator::IndicatorId;

/// The order of ids in a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ById {
    /// Positions in the list, in order of id; `None`: that is the order of the list,
    /// as it is where all ids were given at once.
    positions: Option<Vec<u32>>,
}

impl ById {
    /// Of a list in which each id is once: so 32 bits hold a position.
    pub(super) fn new<T>(list: &[T], id: impl Fn(&T) -> IndicatorId) -> Self {
        let positions = (!list.is_sorted_by_key(&id)).then(|| {
            let mut ids: Vec<(IndicatorId, u32)> = list.iter().map(&id).zip(0..).collect();
            ids.sort_unstable();
            ids.into_iter().map(|(_, position)| position).collect()
        });
        Self { positions }
    }

    /// What has the id, in the list and by the ids that this was made of.
    pub(super) fn find<'a, T>(
        &self,
        list: &'a [T],
        id: impl Fn(&T) -> IndicatorId,
        wanted: IndicatorId,
    ) -> Option<&'a T> {
        let at = |place: usize| match &self.positions {
            Some(positions) => list.get(*positions.get(place)? as usize),
            None => list.get(place),
        };
        // Ids are given in order, and most that were given are known: the place
        // that an id has when none is missing is nearly always the right one.
        let guess = wanted.0.checked_sub(id(at(0)?).0)? as usize;
        if let Some(found) = at(guess).filter(|found| id(found) == wanted) {
            return Some(found);
        }
        // Each id that is missing moves the others towards the beginning.
        let behind = guess.min(list.len());
        let place = match &self.positions {
            Some(positions) => positions
                .get(..behind)?
                .binary_search_by_key(&Some(wanted), |at| list.get(*at as usize).map(&id)),
            None => list.get(..behind)?.binary_search_by_key(&wanted, &id),
        };
        at(place.ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_id_is_found_and_no_other(
            ids in proptest::collection::hash_set(0_u32..200, 0..100),
            sorted in any::<bool>(),
        ) {
            let mut list: Vec<u32> = ids.iter().copied().collect();
            if sorted {
                list.sort_unstable();
            }
            let id = |it: &u32| IndicatorId(*it);
            let by_id = ById::new(&list, id);
            prop_assert_eq!(by_id.positions.is_none(), list.is_sorted());
            for wanted in 0..210 {
                let found = by_id.find(&list, id, IndicatorId(wanted));
                prop_assert_eq!(found.copied(), ids.get(&wanted).copied());
            }
        }
    }
}
