use tempfile::TempDir;

use super::*;
use crate::consent::{Closed, PortLimit, Purpose, Subject, Whom, managed, table::Space};

struct Lab {
    folder: TempDir,
    lists: ConsentLists,
}

impl Lab {
    fn new(sources: ConsentSources) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let join = |paths: Vec<PathBuf>| {
            paths
                .into_iter()
                .map(|path| folder.path().join(path))
                .collect()
        };
        let sources = ConsentSources {
            lists: join(sources.lists),
            exclusions: join(sources.exclusions),
            state_dir: Some(folder.path().join("state")),
            ..sources
        };
        let lists = ConsentLists::new(sources);
        Self { folder, lists }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join(name)).unwrap();
    }

    /// As after a restart of the agent.
    fn restart(&mut self) {
        self.lists = ConsentLists::new(self.lists.sources.clone());
    }

    fn allows(&self, address: &str) -> bool {
        self.lists
            .compile(now())
            .allows(0, address.parse().unwrap(), None, Purpose::Detect)
    }

    fn plain(&self, text: impl ToString) -> String {
        text.to_string()
            .replace(&format!("{}/", self.folder.path().display()), "")
    }
}

fn asked(prefix: &str) -> Asked<'static> {
    prefix.parse::<IpNet>().unwrap().into()
}

fn whom(prefix: &str) -> Whom {
    Subject::Prefix(prefix.parse().unwrap()).into()
}

fn now() -> Timestamp {
    "2026-12-01T12:00:00Z".parse().unwrap()
}

fn sources(model: ConsentModel, lists: &[&str], exclusions: &[&str]) -> ConsentSources {
    ConsentSources {
        model,
        lists: lists.iter().map(PathBuf::from).collect(),
        no_list: false,
        exclusions: exclusions.iter().map(PathBuf::from).collect(),
        notice_since: None,
        state_dir: None,
    }
}

#[test]
fn nothing_is_matched_before_the_lists_are_read() {
    let mut lab = Lab::new(sources(ConsentModel::OptOut, &["a"], &[]));
    lab.write("a", "203.0.113.7\n");
    assert!(!lab.allows("203.0.113.8"));
    let reload = lab.lists.reload();
    assert!(reload.matching_allowed && reload.problems.is_empty());
    assert!(lab.allows("203.0.113.8") && !lab.allows("203.0.113.7"));
}

#[test]
fn without_a_list_nothing_is_matched_unless_the_config_says_that_there_is_none() {
    let mut lab = Lab::new(sources(ConsentModel::OptOut, &[], &[]));
    assert!(!lab.lists.reload().matching_allowed);
    assert!(!lab.allows("203.0.113.7"));
    let mut lab = Lab::new(ConsentSources {
        no_list: true,
        ..sources(ConsentModel::OptOut, &[], &[])
    });
    assert!(lab.lists.reload().matching_allowed);
    assert!(lab.allows("203.0.113.7"));
}

#[test]
fn one_list_that_was_never_readable_stops_all_matching() {
    let mut lab = Lab::new(sources(ConsentModel::OptOut, &["a"], &["b"]));
    lab.write("a", "203.0.113.7\n");
    let reload = lab.lists.reload();
    assert!(!reload.matching_allowed);
    insta::assert_snapshot!(lab.plain(&reload.problems[0]), @"b: error: cannot be read: No such file or directory (os error 2): nothing is matched until it can be read");
    assert_eq!(
        lab.lists.compile(now()).closed(),
        Some(Closed::UnknownRefusals)
    );
    lab.write("b", "# none\n");
    assert!(lab.lists.reload().matching_allowed);
}

#[test]
fn what_waits_for_a_clean_file_waits_over_a_restart() {
    let mut lab = Lab::new(sources(ConsentModel::OptOut, &["a"], &[]));
    lab.write(
        "a",
        "203.0.113.7 purposes=detect\nsubscriber=x\n203.0.113.8\n",
    );
    lab.lists.reload();
    lab.lists.remember().unwrap();
    lab.restart();
    lab.write("a", "203.0.113.8\nbroken\n");
    let reload = lab.lists.reload();
    assert_eq!(reload.held_back, 2);
    assert!(!lab.allows("203.0.113.7"));
    let mentions = lab.lists.explain(asked("203.0.113.7/32"));
    insta::assert_snapshot!(lab.plain(&mentions[0]), @"a: 203.0.113.7 purposes=detect (no longer in the file; in force until the file is clean)");
    // And with the file gone, the last good reading still holds.
    lab.lists.remember().unwrap();
    lab.restart();
    lab.remove("a");
    assert!(lab.lists.reload().matching_allowed);
    assert!(!lab.allows("203.0.113.7") && lab.allows("203.0.113.9"));
    lab.write("a", "# all gone\n");
    lab.lists.reload();
    assert!(lab.allows("203.0.113.7"));
}

#[test]
fn a_damaged_last_good_reading_is_none() {
    let mut lab = Lab::new(sources(ConsentModel::OptOut, &["a"], &[]));
    lab.write("a", "203.0.113.7\n");
    lab.lists.reload();
    lab.lists.remember().unwrap();
    let folder = lab.folder.path().join("state/last-good");
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("203.0.113.7", "203.0.1")).unwrap();
    }
    lab.remove("a");
    lab.restart();
    assert!(!lab.lists.reload().matching_allowed);
}

#[test]
fn an_opt_out_by_command_is_in_force_after_a_reload_and_can_be_taken_back() {
    let mut lab = Lab::new(sources(ConsentModel::OptOut, &["a"], &["b"]));
    lab.write("a", "203.0.113.0/28\n");
    lab.write("b", "198.51.100.0/24\n");
    let state = lab.folder.path().join("state");
    let subject = whom("203.0.113.7/32");
    let model = ConsentModel::OptOut;
    let out = managed::opt_out(model, &state, &subject, PurposeSet::ALL, now()).unwrap();
    lab.lists.reload();
    assert!(out && !lab.allows("203.0.113.7"));
    let back = managed::opt_in(model, &state, &subject, PurposeSet::ALL, now()).unwrap();
    lab.lists.reload();
    // The operator's own list still names the prefix around it.
    let refusals = lab
        .lists
        .refusals(asked("203.0.113.7/32"), Purpose::Detect.into());
    assert!(back && refusals.len() == 1 && refusals[0].whole);
    insta::assert_snapshot!(lab.plain(&refusals[0]), @"a:1: 203.0.113.0/28");
    let around = lab.lists.explain(asked("203.0.112.0/23"));
    assert!(around.len() == 1 && !around[0].whole);
}

#[test]
fn in_the_opt_in_model_only_those_who_consented_are_matched() {
    let mut lab = Lab::new(sources(ConsentModel::OptIn, &["a"], &[]));
    lab.write("a", "203.0.113.7\n");
    let state = lab.folder.path().join("state");
    let model = ConsentModel::OptIn;
    let eight = whom("203.0.113.8/32");
    managed::opt_in(model, &state, &eight, PurposeSet::ALL, now()).unwrap();
    lab.lists.reload();
    assert!(lab.allows("203.0.113.7") && lab.allows("203.0.113.8") && !lab.allows("203.0.113.9"));
    let seven = whom("203.0.113.7/32");
    for subject in [&seven, &eight] {
        managed::opt_out(model, &state, subject, PurposeSet::ALL, now()).unwrap();
    }
    lab.lists.reload();
    assert!(!lab.allows("203.0.113.7") && !lab.allows("203.0.113.8"));
}

#[test]
fn a_managed_list_that_vanished_keeps_its_opt_outs() {
    let mut lab = Lab::new(ConsentSources {
        no_list: true,
        ..sources(ConsentModel::OptOut, &[], &[])
    });
    let state = lab.folder.path().join("state");
    let subject = whom("203.0.113.7/32");
    managed::opt_out(
        ConsentModel::OptOut,
        &state,
        &subject,
        PurposeSet::ALL,
        now(),
    )
    .unwrap();
    lab.lists.reload();
    lab.remove("state/opt-out.list");
    let reload = lab.lists.reload();
    assert_eq!(reload.problems.len(), 1);
    assert!(!lab.allows("203.0.113.7") && lab.allows("203.0.113.8"));
}

#[test]
fn a_line_for_a_space_that_does_not_exist_is_reported_and_favours_the_subscriber() {
    for (model, outcome) in [
        (ConsentModel::OptOut, "the line holds in every space"),
        (ConsentModel::OptIn, "the line grants nothing"),
    ] {
        let mut lab = Lab::new(sources(model, &["a"], &[]));
        lab.write(
            "a",
            "# comment\n10.0.0.7 space=8\n10.0.0.8 space=7\n10.0.0.9 space=0\n",
        );
        lab.lists.set_spaces(vec![Space {
            id: 7,
            prefixes: vec!["10.0.0.0/8".parse().unwrap()],
        }]);
        let reload = lab.lists.reload();
        assert!(reload.matching_allowed);
        let problems: Vec<String> = reload.problems.iter().map(|p| lab.plain(p)).collect();
        let reason = "there is no subscriber space 8 (see [[subscribers.space]])";
        assert_eq!(problems, [format!("a:2: note: {reason}: {outcome}")]);
        let table = lab.lists.compile(now());
        for space in [0, 7, 8] {
            let allowed = table.allows(space, "10.0.0.7".parse().unwrap(), None, Purpose::Detect);
            assert!(!allowed, "{model} {space}");
        }
    }
}

#[test]
fn only_lines_that_touch_the_ports_and_the_space_are_named() {
    let mut lab = Lab::new(sources(ConsentModel::OptOut, &["a"], &[]));
    lab.write(
        "a",
        "198.51.100.9 ports=1024-2047\n198.51.100.9 map-e=a:4,k:8,psid:0x34\n\
         198.51.100.9 space=7\n198.51.100.0/24 purposes=notify\n",
    );
    lab.lists.set_spaces(vec![Space {
        id: 7,
        prefixes: vec![],
    }]);
    lab.lists.reload();
    let prefix = "198.51.100.9/32".parse().unwrap();
    let ports = PortLimit::read_ports("1500-1600").unwrap();
    let lines = |asked| {
        let found = lab.lists.explain(asked).into_iter();
        let found = found.map(|mention| (mention.line, mention.whole));
        found.collect::<Vec<_>>()
    };
    let everything = [(1, false), (2, false), (3, false), (4, true)];
    assert_eq!(lines(Asked::from(prefix)), everything);
    let in_space_0 = Asked {
        prefix,
        space: Some(0),
        ports: Some(&ports),
    };
    assert_eq!(lines(in_space_0), [(1, false), (4, true)]);
    let port_set = PortLimit::read_map_e("a:4,k:8,psid:52").unwrap();
    let in_space_7 = Asked {
        prefix,
        space: Some(7),
        ports: Some(&port_set),
    };
    assert_eq!(lines(in_space_7), [(2, true), (3, true), (4, true)]);
}
