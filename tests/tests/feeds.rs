//! Feeds from the outside: every format by its name, what a load would change,
//! and how the last load went.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};
use matcher_tests::{
    lab::Lab,
    matcher::{Deployment, binary},
    skip::skip,
};
use serde_json::Value;

fn is_skipped(test: &str) -> bool {
    Lab::obstacle()
        .inspect(|reason| skip(test, reason))
        .is_some()
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/feeds")
        .join(name)
}

#[test]
fn every_format_of_the_contract_is_read_by_its_name() -> Result<()> {
    for (format, file, entries, names) in [
        ("plain", "plain.txt", 10, 0),
        ("feodo-csv", "feodo.csv", 5, 0),
        ("feodo-json", "feodo.json", 2, 0),
        ("threatfox-csv", "threatfox.csv", 2, 1),
        ("threatfox-json", "threatfox-export.json", 1, 0),
        ("spamhaus-drop", "drop_v4.json", 4, 0),
        ("netset", "firehol.netset", 2, 0),
        ("dshield", "dshield.txt", 2, 0),
        ("et-block", "emerging-block.txt", 4, 0),
        ("sslbl-csv", "sslbl.csv", 2, 0),
        ("misp", "misp-feed", 5, 3),
        ("stix", "stix-bundle.json", 6, 1),
        ("taxii", "taxii-pages.json", 6, 1),
        ("cymru", "cymru.txt", 2, 0),
        ("rpz", "urlhaus.rpz", 0, 2),
    ] {
        let feed = format!("{format}:{}", fixture(file).display());
        let checked = Command::new(binary()?)
            .args(["feed", "check", "--json", &feed])
            .env_remove("MATCHER_CONFIG")
            .output()?;
        let out = String::from_utf8(checked.stdout)?;
        let report: Value = serde_json::from_str(out.trim()).context(out)?;
        assert_eq!(report["counts"]["entries"], entries, "{feed}: {report}");
        assert_eq!(report["counts"]["names"], names, "{feed}: {report}");
        assert_eq!(report["usable"], true, "{feed}: {report}");
    }
    Ok(())
}

#[test]
fn what_a_load_would_change_is_said_before_and_how_it_went_after() -> Result<()> {
    if is_skipped("what_a_load_would_change_is_said_before_and_how_it_went_after") {
        return Ok(());
    }
    let deployment = Deployment::new()?;
    let never = deployment.matcher(["feed", "list"])?.succeeded();
    assert!(never.out.contains("never loaded"), "{}", never.out);
    deployment.start()?;
    deployment.write("cc.txt", "198.51.100.77:8443 malware=QakBot\n")?;
    let said = deployment.matcher(["feed", "diff"])?.succeeded();
    assert!(
        said.out.contains("1 added, 3 removed, 0 changed"),
        "{}",
        said.out
    );
    assert!(
        said.out
            .contains("+ 198.51.100.77 port 8443, feeds cc, malware QakBot")
    );
    let json = deployment.matcher(["feed", "diff", "--json"])?.succeeded();
    let json: Value = serde_json::from_str(json.out.trim())?;
    assert_eq!(json["added"][0]["value"], "198.51.100.77");
    assert_eq!(json["removed"].as_array().map(Vec::len), Some(3));
    // Nothing was changed by asking.
    let rows = |deployment: &Deployment| -> Result<Value> {
        let list = deployment.matcher(["feed", "list", "--json"])?.succeeded();
        Ok(serde_json::from_str(list.out.trim())?)
    };
    assert_eq!(rows(&deployment)?[0]["entries"], 3);
    // A broken file: the last good list stays, and the list says why.
    deployment.write("cc.txt", "<html>\n")?;
    deployment.matcher(["load"])?.failed(1);
    let broken = rows(&deployment)?;
    assert_eq!(broken[0]["entries"], 3);
    let error = broken[0]["last"]["error"].as_str().context("a reason")?;
    assert!(error.contains("looks like a web page"), "{error}");
    assert!(broken[0]["last"]["last_used"].is_string());
    let text = deployment.matcher(["feed", "list"])?.succeeded();
    assert!(text.out.contains("NOT USED"), "{}", text.out);
    deployment.write("cc.txt", "198.51.100.77:8443\n")?;
    deployment.matcher(["load"])?.succeeded();
    let loaded = rows(&deployment)?;
    assert_eq!(
        (&loaded[0]["entries"], &loaded[0]["last"]["error"]),
        (&1.into(), &Value::Null)
    );
    Ok(())
}
