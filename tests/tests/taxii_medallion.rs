//! A real exchange with a TAXII 2.1 server that others wrote: medallion, of
//! OASIS, from PyPI, in an environment of its own that is thrown away.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use matcher_tests::{matcher::wait_until, skip::skip};
use matcher_user::{
    feeds::{Auth, FeedSource, FetchLimits, Format, LoadedFeed, Remote},
    fetch::{FetchError, FetchOutcome, fetch},
};

const COLLECTION: &str = "91a7b528-80eb-42ed-a74d-c6fbd5a26116";

/// An environment of Python with medallion, or why there is none.
fn medallion(folder: &Path) -> Result<PathBuf, String> {
    let environment = folder.join("venv");
    let run = |command: &mut Command| {
        let done = command
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{command:?}: {error}"))?;
        match done.status.success() {
            true => Ok(()),
            false => Err(format!(
                "{command:?}: {}",
                String::from_utf8_lossy(&done.stderr).trim()
            )),
        }
    };
    run(Command::new("python3")
        .args(["-m", "venv"])
        .arg(&environment))?;
    run(Command::new(environment.join("bin/pip")).args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--retries=1",
        "--timeout=15",
        "medallion==3.0.0",
    ]))
    .map_err(|error| format!("PyPI cannot be reached: {error}"))?;
    Ok(environment.join("bin/medallion"))
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn indicator(number: u8) -> serde_json::Value {
    serde_json::json!({
        "type": "indicator", "spec_version": "2.1", "pattern_type": "stix",
        "id": format!("indicator--00000000-0000-4000-8000-{number:012}"),
        "created": "2026-01-01T00:00:00.000Z", "modified": "2026-01-01T00:00:00.000Z",
        "valid_from": "2026-01-01T00:00:00Z", "indicator_types": ["malicious-activity"],
        "pattern": format!("[ipv4-addr:value = '198.51.100.{number}']"),
    })
}

/// Pages of two objects each, for one user.
fn data(port: u16) -> serde_json::Value {
    let numbers = 1..=5_u8;
    let manifest: Vec<_> = numbers
        .clone()
        .map(|number| {
            serde_json::json!({
                "id": indicator(number)["id"], "media_type": "application/stix+json;version=2.1",
                "date_added": format!("2026-01-02T00:00:0{number}.000000Z"),
                "version": "2026-01-01T00:00:00.000Z",
            })
        })
        .collect();
    serde_json::json!({
        "/discovery": {
            "title": "test", "default": format!("http://127.0.0.1:{port}/group/"),
            "api_roots": [format!("http://127.0.0.1:{port}/group/")],
        },
        "group": {
            "information": {
                "title": "group", "versions": ["application/taxii+json;version=2.1"],
                "max_content_length": 1_000_000,
            },
            "status": [],
            "collections": [{
                "id": COLLECTION, "title": "C2", "can_read": true, "can_write": true,
                "media_types": ["application/stix+json;version=2.1"],
                "objects": numbers.map(indicator).collect::<Vec<_>>(), "manifest": manifest,
            }],
        },
    })
}

/// Adds an object, as another member of the sharing group does.
fn add(port: u16, number: u8) -> Result<()> {
    let body = serde_json::json!({"objects": [indicator(number)]}).to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    // dXNlcjpwYXNz is user:pass.
    write!(
        stream,
        "POST /group/collections/{COLLECTION}/objects/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\
         Authorization: Basic dXNlcjpwYXNz\r\nAccept: application/taxii+json;version=2.1\r\n\
         Content-Type: application/taxii+json;version=2.1\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.contains(" 202 "), "{answer}");
    Ok(())
}

#[test]
fn objects_of_a_real_taxii_server_are_read_page_by_page() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = match medallion(folder.path()) {
        Ok(program) => program,
        Err(reason) => {
            skip(
                "objects_of_a_real_taxii_server_are_read_page_by_page",
                &reason,
            );
            return Ok(());
        }
    };
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let [data_file, config] = ["data.json", "config.json"].map(|it| folder.path().join(it));
    fs::write(&data_file, data(port).to_string())?;
    let settings = serde_json::json!({
        "backend": {
            "module": "medallion.backends.memory_backend", "module_class": "MemoryBackend",
            "filename": data_file,
        },
        "users": {"user": "pass"},
        "taxii": {"max_page_size": 2},
    });
    fs::write(&config, settings.to_string())?;
    let log = folder.path().join("log");
    let server = Command::new(program)
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .spawn()
        .context("cannot start medallion")?;
    let _server = Server(server);
    wait_until("medallion listens", || {
        Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
    })?;

    let secret = folder.path().join("secret");
    fs::write(&secret, "user:pass\n")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    let remote = |path: &str, auth| -> Result<(FeedSource, Remote)> {
        let remote = Remote {
            url: format!("http://127.0.0.1:{port}{path}").parse()?,
            every: Duration::from_secs(3600),
            auth,
            ca_file: None,
            plain_http: false,
            collections: vec!["C2".into()],
            limits: FetchLimits::default(),
        };
        let source = FeedSource {
            remote: Some(Arc::new(remote.clone())),
            ..FeedSource::unnamed(
                Format::Taxii,
                Remote::copy_path(folder.path(), &path.replace('/', "-")),
            )
        };
        Ok((source, remote))
    };
    let now = |(source, remote): &(FeedSource, Remote)| -> Result<FetchOutcome> {
        let _lock = matcher_user::fetch::Place::of(source).lock()?;
        let fetched = fetch(source, remote, 0.5, Timestamp::now(), 0.0, &|_, _| ());
        Ok(fetched.keep(source))
    };
    let read = |feed: &(FeedSource, Remote)| -> Result<Vec<String>> {
        let loaded = LoadedFeed::read(&feed.0)?;
        Ok(loaded
            .entries
            .iter()
            .map(|it| it.value.to_string())
            .collect())
    };
    let login = || Some((Auth::Basic, secret.clone()));
    let five: Vec<String> = (1..=5).map(|it| format!("198.51.100.{it}/32")).collect();
    let six: Vec<String> = (1..=6).map(|it| format!("198.51.100.{it}/32")).collect();

    // By any of the addresses that an operator may be given.
    let collection = format!("/group/collections/{COLLECTION}/");
    let mut feeds = Vec::new();
    for path in ["/taxii2/", "/group/", "/group/collections/", &collection] {
        let feed = remote(path, login())?;
        let outcome = now(&feed)?;
        assert!(
            matches!(outcome, FetchOutcome::New),
            "{path}: {outcome:?}\n{}",
            fs::read_to_string(&log)?
        );
        assert_eq!(read(&feed)?, five, "{path}");
        let again = now(&feed)?;
        assert!(
            matches!(again, FetchOutcome::Unchanged),
            "{path}: {again:?}"
        );
        feeds.push(feed);
    }
    // What is added later comes with the next fetch.
    add(port, 6)?;
    for feed in &feeds {
        assert!(matches!(now(feed)?, FetchOutcome::New));
        assert_eq!(read(feed)?, six);
    }
    // Without a login.
    let stranger = remote("/taxii2/", None)?;
    let refused = now(&stranger)?;
    assert!(
        matches!(
            refused,
            FetchOutcome::Failed(FetchError::Refused { status: 401, .. })
        ),
        "{refused:?}"
    );
    Ok(())
}
