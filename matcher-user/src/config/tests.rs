use std::{collections::BTreeSet, fmt::Write as _, str::FromStr};

use proptest::prelude::*;

use super::*;

const EXAMPLE: &str = include_str!("../../../matcher.example.toml");

/// The least that can be said.
const LEAST: &str = r#"
[consent]
model = "opt-out"
notice_since = "2026-11-01T00:00:00+09:00"
no_list = true
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/matcher/matcher.toml"), text, |_| true)
}

fn problems(text: &str) -> String {
    match parse(text) {
        Ok(config) => lines(&config.warnings),
        Err(error) => error.to_string(),
    }
    .replace("/etc/matcher/", "")
}

fn lines(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics {
        writeln!(text, "{diagnostic}").unwrap();
    }
    text
}

/// The example with its commented-out keys and tables in force.
fn example_with_every_key() -> String {
    EXAMPLE
        .lines()
        .map(|line| {
            let key = line
                .strip_prefix('#')
                .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['));
            format!("{}\n", key.unwrap_or(line))
        })
        .collect()
}

#[test]
fn the_example_has_no_problem_and_the_documented_defaults_are_the_real_ones() {
    let example = parse(EXAMPLE).unwrap();
    assert_eq!(lines(&example.warnings), "");
    let least = parse(LEAST).unwrap();
    assert_eq!(example.paths, least.paths);
    assert_eq!(example.paths, Paths::default());
    assert_eq!(example.guards, least.guards);
    assert_eq!(example.tables, least.tables);
    assert_eq!(example.candidates, least.candidates);
    assert_eq!(example.retention, least.retention);
    assert_eq!(example.consent.deadline, least.consent.deadline);
    assert_eq!(example.ebpf_object, None);
    assert_eq!(example.control, ControlConfig::default());
    assert_eq!(example.canary, None, "off unless asked for");
    let every_key = parse(&example_with_every_key()).unwrap();
    assert_eq!(every_key.canary, Some(CanaryConfig::default()));
    assert_eq!(
        example.interfaces[1],
        InterfaceArgument::from_str("eth1:core")
            .unwrap()
            .interface(AttachMode::Auto)
    );
}

#[test]
fn the_example_shows_a_feed_of_each_format() {
    let shown: String = EXAMPLE
        .split("\n\n")
        .filter(|block| block.starts_with("# [[feed]]\n"))
        .flat_map(str::lines)
        .map(|line| format!("{}\n", line.strip_prefix("# ").unwrap()))
        .collect();
    let example = parse(&format!("{EXAMPLE}\n{shown}")).unwrap();
    assert_eq!(lines(&example.warnings), "");
    let formats: BTreeSet<&str> = example.feeds.iter().map(|it| it.format.name()).collect();
    assert_eq!(
        formats,
        crate::feeds::Format::ALL.map(|it| it.name()).into()
    );
}

/// Every key of a table and of those in it, as `table.key`.
fn keys(table: &toml::Table, before: &str, found: &mut BTreeSet<String>) {
    for (name, value) in table {
        let name = format!("{before}{name}");
        let tables: Vec<&toml::Table> = match value {
            toml::Value::Table(table) => vec![table],
            toml::Value::Array(array) => array.iter().filter_map(|item| item.as_table()).collect(),
            _ => Vec::new(),
        };
        if tables.is_empty() {
            found.insert(name);
            continue;
        }
        for table in tables {
            keys(table, &format!("{name}."), found);
        }
    }
}

#[test]
fn the_example_has_every_known_key_and_no_other() {
    let text = example_with_every_key();
    let table: toml::Table = text.parse().unwrap();
    let mut found = BTreeSet::new();
    keys(&table, "", &mut found);
    let known: BTreeSet<String> = KEYS.iter().map(|key| (*key).to_owned()).collect();
    assert_eq!(known, found);
    assert_eq!(known.len(), KEYS.len(), "a key is listed twice");
    parse(&text).unwrap();
}

#[test]
fn every_known_key_is_read() {
    for key in KEYS {
        let text = match key.rsplit_once('.') {
            Some((
                table @ ("interface" | "feed" | "guards.allow" | "guards.confirmed"
                | "subscribers.space"),
                key,
            )) => {
                format!("[[{table}]]\n{key} = {{ x = 1 }}\n")
            }
            Some((table, key)) => format!("[{table}]\n{key} = {{ x = 1 }}\n"),
            None => format!("{key} = {{ x = 1 }}\n"),
        };
        let name = key.rsplit('.').next().unwrap();
        let error = parse(&text).unwrap_err();
        let expected = format!("{name} must be ");
        assert!(
            error
                .problems
                .iter()
                .any(|problem| problem.message.starts_with(&expected)),
            "{key}: {error}"
        );
    }
}

#[test]
fn every_mistake_is_reported_with_its_place() {
    let text = r#"edge = 7
edgge = "x"
deadline = "5m"

[paths]
state_dir = ""

[[interface]]
name = "eth0"
rol = "core"
role = "edge"

[[interface]]
name = "eth0"
role = "core"
mode = "fast"

[subscribers]
prefixes = ["203.0.113.0/24", "203.0.113.7/24", "10.0.0.0/33", 5, "203.0.113.0/24"]

[[subscribers.space]]
id = 7
vlans = ["100", "4095", "300-200", "1.2.3"]
prefixes = ["10.0.0.0/8"]

[[subscribers.space]]
id = 7
vlans = ["101"]

[[subscribers.space]]
id = 0
vlan = ["102"]

[[subscribers.space]]
id = 9
vlans = ["90-110"]
prefixes = ["10.0.0.0/8"]

[nat64]
prefixes = ["64:ff9b::/95", "64:ff9b::/96", "10.0.0.0/8"]

[consent]
model = "opt-out"
notice_since = 2026-11-01
no_list = true
lists = ["opt-out.list"]
deadline = "30s"

[[feed]]
name = "feodo"
format = "feodo-jsn"
path = "feodo.csv"
confidence = 101

[[feed]]
name = "dshield"
format = "dshield"
path = "block.txt"

[guards]
min_prefix_len_v4 = 33
min_remaining_share = 1.5
max_age = "5s"
allow = [{ value = "192.0.2.7/24", reason = "x" }, { value = "192.0.2.7" }]

[[guards.confirmed]]
value = "203.0.113.7"
by = "A. Person"

[guards.notify]
min_feed = 2

[tables]
ring_bytes = 100000
max_indicator = 5
max_port_ranges = 0

[retention]
hits = "0d"

[controll]
group = "x"
"#;
    insta::assert_snapshot!(problems(text));
}

#[test]
fn folding_is_off_or_has_a_window_of_seconds() {
    let folding = |text: &str| {
        parse(&format!("{LEAST}[folding]\n{text}"))
            .map(|config| config.folding)
            .map_err(|error| error.to_string())
    };
    assert_eq!(folding("").unwrap(), FoldingConfig::default());
    let off = folding("window = \"0s\"\nmax_flows = 1\nmax_events = 2").unwrap();
    assert!(off.window.is_zero());
    assert_eq!((off.max_flows, off.max_events), (1, 2));
    for (wrong, said) in [
        ("window = \"999ms\"", "at least \"1s\""),
        ("window = \"11m\"", "window must be from 0s to 10m"),
        ("max_flows = 0", "max_flows must be"),
        ("max_events = 0", "max_events must be"),
    ] {
        let error = folding(wrong).unwrap_err();
        assert!(error.contains(said), "{wrong}: {error}");
    }
}

#[test]
fn what_is_missing_is_asked_for() {
    insta::assert_snapshot!(problems(
        "[[interface]]\nmode = \"auto\"\n[[feed]]\n[consent]\nmodel = \"opt-out\"\n"
    ));
}

#[test]
fn an_empty_file_asks_who_consents() {
    insta::assert_snapshot!(problems(""));
}

#[test]
fn every_syntax_error_is_reported_and_what_follows_from_it_is_not() {
    insta::assert_snapshot!(problems(
        "edgge = 1\nedge = \n[consent\nmodel = \"opt-out\"\ndeadline = 'x'\nlists = [\"a\"\n\n[tables]\nring_bytes = 3\nring_bytes = 4\n"
    ));
}

#[test]
fn doubtful_settings_are_warned_of() {
    let text = r#"
[[interface]]
name = "a"
role = "both"
[[interface]]
name = "b"
role = "both"
source_validated = true
[[interface]]
name = "c"
role = "core"
source_validated = true
[[interface]]
name = "d"
role = "access"
source_validated = false
[consent]
model = "opt-in"
notice_since = 2026-11-01T00:00:00+09:00
lists = ["opt-in.list", "opt-in.list"]
"#;
    insta::assert_snapshot!(problems(text));
}

#[test]
fn a_file_that_is_not_there_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("matcher.toml");
    fs::write(&path, format!("ebpf_object = \"x.o\"\n{LEAST}")).unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!(config.ebpf_object, Some(folder.path().join("x.o")));
    let warning = config
        .warnings
        .iter()
        .find(|warning| warning.line == 1 && warning.column > 1);
    let warning = warning.unwrap();
    assert_eq!((warning.line, warning.column), (1, 15));
    assert!(
        warning.message.starts_with("there is no file "),
        "{warning}"
    );
    fs::write(folder.path().join("x.o"), "").unwrap();
    let config = Config::load(&path).unwrap();
    assert!(
        config
            .warnings
            .iter()
            .all(|warning| !warning.message.contains("x.o"))
    );
}

#[test]
fn a_config_that_cannot_be_read_names_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("matcher.toml");
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(
        error.contains("matcher.toml: error: cannot read it: "),
        "{error}"
    );
    fs::write(&path, b"edge = \"a\"\n# \x83\n").unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(
        error.ends_with("matcher.toml:2:3: error: the file is not UTF-8 from here on"),
        "{error}"
    );
}

#[test]
fn the_edge_is_named_after_the_host_unless_set() {
    assert!(!parse(LEAST).unwrap().edge.is_empty());
    assert_eq!(parse(&format!("edge = \"e\"\n{LEAST}")).unwrap().edge, "e");
}

#[test]
fn times_and_relative_paths_are_read() {
    let config = parse(
        "[consent]\nmodel = \"opt-out\"\nnotice_since = 2026-12-01T00:00:00+09:00\nlists = [\"a\", \"/b\"]\n",
    )
    .unwrap();
    assert_eq!(
        config.consent.notice_since,
        Some("2026-11-30T15:00:00Z".parse().unwrap())
    );
    assert_eq!(
        config.consent.lists,
        [PathBuf::from("/etc/matcher/a"), PathBuf::from("/b")]
    );
}

#[test]
fn subscriber_spaces_and_nat64_prefixes_are_read() {
    let config = parse(&format!(
        "[[subscribers.space]]\nid = 4294967295\nvlans = [\"100\", \"100.200\"]\nfiles = [\"s\"]\n\
         [nat64]\nprefixes = [\"64:ff9b::/96\"]\n{LEAST}"
    ))
    .unwrap();
    let space = &config.subscribers.spaces[0];
    assert_eq!((space.id, space.vlans.len()), (u32::MAX, 2));
    assert_eq!(space.files, [PathBuf::from("/etc/matcher/s")]);
    assert_eq!(config.nat64, ["64:ff9b::/96".parse().unwrap()]);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_with_a_place(text in "(\\[\\[?(consent|feed|paths)\\]\\]?|[a-z_]{1,9} = (\"[a-z]*\"|\\[|1)|[\\[\\]{}='\".#]|\n|\\PC)*") {
        if let Err(error) = parse(&text) {
            prop_assert!(error.problems.iter().all(|problem| problem.line > 0 && problem.column > 0));
        }
    }

    #[test]
    fn a_damaged_example_is_read_or_refused(at in 0usize..6000, damage in "\\PC{0,3}", cut in 0usize..20) {
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        let start = at.min(text.len());
        let end = (start + cut).min(text.len());
        text.splice(start..end, damage.chars());
        let text: String = text.into_iter().collect();
        if let Err(error) = parse(&text) {
            prop_assert!(error.problems.iter().any(|problem| problem.severity == Severity::Error));
        }
    }
}

#[test]
fn the_canary_takes_only_addresses_that_nobody_has() {
    let canary = |keys: &str| parse(&format!("{LEAST}\n[canary]\n{keys}"));
    let config = canary("").unwrap();
    assert_eq!(config.canary, Some(CanaryConfig::default()));
    // Where packets of the canary are subscribers' packets.
    let prefix = "198.18.255.1/32".parse().unwrap();
    assert!(config.subscribers.prefixes.contains(&prefix));
    assert_eq!(parse(LEAST).unwrap().canary, None);

    let v6 =
        "subscriber = \"2001:db8:ffff::1\"\nremote = \"2001:2::1\"\nport = 4000\nevery = \"10s\"";
    assert_eq!(canary(v6).unwrap().canary.unwrap().port, 4000);
    let told: Vec<String> = [
        "subscriber = \"9.9.9.9\"",
        "remote = \"2001:2::1\"",
        "remote = \"198.18.255.1\"",
        "every = \"1s\"",
        "port = 0",
    ]
    .iter()
    .flat_map(|keys| canary(keys).unwrap_err().problems)
    .filter(|problem| problem.severity == Severity::Error)
    .map(|problem| lines(&[problem]))
    .collect();
    insta::assert_snapshot!(told.concat());
}

#[test]
fn a_feed_that_is_fetched_is_read() {
    let config = parse(&format!(
        "{LEAST}[paths]\nstate_dir = \"state\"\n[[feed]]\nname = \"a/b\"\nformat = \"threatfox-csv\"\n\
         url = \"https://example.org/x.csv?key=1\"\nevery = \"30m\"\nauth = \"Auth-Key\"\n\
         secret_file = \"key\"\nmax_bytes = 1000\nidle_time = \"5s\"\n"
    ))
    .unwrap();
    let feed = &config.feeds[0];
    assert_eq!(feed.path, Path::new("/etc/matcher/state/feeds/a%2fb/copy"));
    let remote = feed.remote.as_ref().unwrap();
    assert_eq!(remote.url.in_full(), "https://example.org/x.csv?key=1");
    assert_eq!(remote.every.as_secs(), 1800);
    assert_eq!(
        remote.auth,
        Some((
            crate::feeds::Auth::Header("Auth-Key".into()),
            "/etc/matcher/key".into()
        ))
    );
    let limits = remote.limits;
    assert_eq!((limits.bytes, limits.idle.as_secs()), (1000, 5));
    assert_eq!(limits.total.as_secs(), 300);
}

#[test]
fn what_cannot_be_fetched_as_meant_is_reported() {
    let of = |keys: &str| {
        let text = format!("{LEAST}[[feed]]\nname = \"x\"\nformat = \"spamhaus-drop\"\n{keys}\n");
        problems(&text)
            .lines()
            .filter(|line| line.contains("error") || line.contains("has no effect on a feed"))
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect::<Vec<_>>()
            .join("\n")
    };
    let https = "url = \"https://example.org/drop.json\"";
    assert_eq!(of(https), "");
    insta::assert_snapshot!(
        of("url = \"http://example.org/drop.json\""),
        @r#"error: without TLS anybody on the way can change the list: write https:// (plain_http = true says that you mean it)"#
    );
    assert_eq!(of("url = \"http://example.org/\"\nplain_http = true"), "");
    assert_eq!(of("url = \"http://127.0.0.1:8000/\""), "");
    insta::assert_snapshot!(
        of("url = \"https://me:secret@example.org/\""),
        @"error: url: no name or password belongs into an address: set auth and secret_file"
    );
    insta::assert_snapshot!(
        of(&format!("{https}\nevery = \"10m\"")),
        @"error: every must be at least 3600 s for spamhaus-drop: more often brings nothing new and can get this edge locked out"
    );
    insta::assert_snapshot!(
        of(&format!("{https}\nauth = \"bearer\"")),
        @"error: auth and secret_file belong together: how the secret is shown, and where it is"
    );
    insta::assert_snapshot!(
        of(&format!("{https}\npath = \"drop.json\"")),
        @"error: path and url: a feed is a file or is fetched; remove one"
    );
    insta::assert_snapshot!(
        of("path = \"drop.json\"\nevery = \"2h\""),
        @"warning: every has no effect on a feed that is a file: it is watched"
    );
}
