use std::collections::BTreeSet;

use matcher_common::abi::CounterKind;

use super::*;

#[test]
fn every_exit_of_the_program_is_in_the_table() {
    let seen: BTreeSet<Counter> = table().iter().map(|case| case.answer.verdict).collect();
    let exits: BTreeSet<Counter> = Counter::ALL
        .iter()
        .copied()
        .filter(|counter| counter.kind() == CounterKind::Exit)
        .collect();
    assert_eq!(seen, exits);
}

#[test]
fn descriptions_tell_cases_apart() {
    let table = table();
    let descriptions: BTreeSet<&str> = table.iter().map(|case| case.description).collect();
    assert_eq!(descriptions.len(), table.len());
    assert!(table.len() > 130);
}

#[test]
fn the_model_decides_every_case_as_it_is_written() {
    for case in table() {
        let answer = standard_world(&case.conditions).decide(&case.seen.packet);
        assert_eq!(answer, case.answer, "{}", case.description);
    }
}
