//! Fetching against a server that misbehaves in every way seen in the field:
//! the last good copy stays, and the reason is told.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use matcher_tests::{
    feed_server::{Asked, FeedServer, head, reply},
    fetching::Fetching,
    matcher::PATIENCE,
};
use matcher_user::{
    feeds::{Auth, FetchLimits, Format},
    fetch::{FetchError, FetchState, is_due, plan::Asker},
};

const GOOD: &str = "192.0.2.1\n192.0.2.2:443\n";
const BETTER: &str = "192.0.2.1\n192.0.2.2:443\n192.0.2.3\n";
const PATH: &str = "/list.txt";

/// A server with a good list, and the feed that is fetched from it.
fn with_a_good_list() -> Result<(FeedServer, Fetching)> {
    let server = FeedServer::start()?;
    server.list(PATH, "1", GOOD);
    let feed = Fetching::new(Format::Plain, &server.url(PATH))?;
    Ok((server, feed))
}

/// A good list is in force, then `deed` happens: the good list stays, the
/// error says `reason`, and once the server is well again so is the feed.
fn survives(
    deed: impl Fn(&Asked, &mut dyn Write) -> io::Result<()> + Send + Sync + 'static,
    reason: &str,
) -> Result<()> {
    survives_with(|_| (), deed, reason).map(drop)
}

/// As [`survives`], with limits that hold while `deed` happens. Gives what is
/// kept of the failure.
fn survives_with(
    limit: impl Fn(&mut FetchLimits),
    deed: impl Fn(&Asked, &mut dyn Write) -> io::Result<()> + Send + Sync + 'static,
    reason: &str,
) -> Result<FetchState> {
    let (server, mut feed) = with_a_good_list()?;
    feed.new_copy()?;
    let before = feed.state();

    server.on(PATH, deed);
    let usual = feed.remote.limits;
    limit(&mut feed.remote.limits);
    let error = feed.failure()?.to_string();
    feed.remote.limits = usual;
    assert!(error.contains(reason), "{error}");
    assert_eq!(feed.copy()?, GOOD, "the last good list stays");
    let failed = feed.state();
    assert_eq!(failed.error, Some(error), "and the reason is kept");
    assert_eq!(failed.failures, 1);
    assert_eq!(failed.validators, before.validators);
    assert_eq!(failed.copied, before.copied);
    let now = Timestamp::now();
    assert!(!is_due(&feed.source, &failed, Asker::Schedule, now));

    server.list(PATH, "2", BETTER);
    feed.new_copy()?;
    assert_eq!(feed.copy()?, BETTER);
    assert_eq!((feed.state().failures, feed.state().error), (0, None));
    Ok(failed)
}

/// Sends everybody elsewhere.
fn redirect(
    status: u16,
    to: impl Into<String>,
) -> impl Fn(&Asked, &mut dyn Write) -> io::Result<()> + Send + Sync + 'static {
    let to = to.into();
    move |_, out| reply(out, status, &[("Location", &to)], b"")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

#[test]
fn an_unchanged_list_304_is_no_new_copy() -> Result<()> {
    let (server, feed) = with_a_good_list()?;
    feed.new_copy()?;
    assert_eq!(server.last()?.header("if-none-match"), None);
    let first = feed.state();
    feed.unchanged()?;
    assert_eq!(server.last()?.header("if-none-match"), Some("\"1\""));
    let second = feed.state();
    assert_eq!(second.copied, first.copied);
    assert!(second.confirmed > first.confirmed);
    // Without the copy the version helps nobody.
    fs::remove_file(&feed.source.path)?;
    feed.new_copy()?;
    assert_eq!(server.last()?.header("if-none-match"), None);
    Ok(())
}

#[test]
fn a_list_with_a_date_only_is_asked_for_by_its_date() -> Result<()> {
    const DATE: &str = "Sun, 22 Nov 2026 10:00:00 GMT";
    let server = FeedServer::start()?;
    server.on(PATH, |asked, out| match asked.header("if-modified-since") {
        Some(DATE) => reply(out, 304, &[], b""),
        _ => reply(out, 200, &[("Last-Modified", DATE)], GOOD.as_bytes()),
    });
    let feed = Fetching::new(Format::Plain, &server.url(PATH))?;
    feed.new_copy()?;
    feed.unchanged()
}

#[test]
fn the_same_bytes_without_a_version_are_no_new_copy() -> Result<()> {
    let server = FeedServer::start()?;
    server.on(PATH, |_, out| reply(out, 200, &[], GOOD.as_bytes()));
    let feed = Fetching::new(Format::Plain, &server.url(PATH))?;
    feed.new_copy()?;
    feed.unchanged()
}

#[test]
fn an_unasked_304_leaves_the_last_good_list() -> Result<()> {
    let server = FeedServer::start()?;
    server.on(PATH, |_, out| reply(out, 304, &[], b""));
    let feed = Fetching::new(Format::Plain, &server.url(PATH))?;
    assert!(matches!(
        feed.failure()?,
        FetchError::Status { status: 304, .. }
    ));
    Ok(())
}

#[test]
fn a_slow_drip_is_given_up() -> Result<()> {
    let begun = Instant::now();
    survives_with(
        |limits| limits.total = Duration::from_secs(2),
        |_, out| {
            head(out, 200, &[("Content-Length", "10000")])?;
            out.write_all(b"\r\n")?;
            let begun = Instant::now();
            // Until we are hung up on.
            while begun.elapsed() < PATIENCE {
                out.write_all(b"1")?;
                out.flush()?;
                thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        },
        "took longer than 2 s",
    )?;
    assert!(begun.elapsed() < PATIENCE, "nobody waited for its end");
    Ok(())
}

/// It says nothing more for longer than anybody waits here.
fn stall() -> io::Result<()> {
    thread::sleep(PATIENCE);
    Ok(())
}

#[test]
fn a_server_that_stalls_is_given_up() -> Result<()> {
    survives_with(
        |limits| limits.idle = Duration::from_millis(700),
        |_, out| {
            head(out, 200, &[("Content-Length", "1000")])?;
            out.write_all(b"\r\n192.0.2.1\n")?;
            out.flush()?;
            stall()
        },
        "sent nothing for 0.7 s",
    )?;
    Ok(())
}

#[test]
fn a_server_that_never_answers_is_given_up() -> Result<()> {
    survives_with(
        |limits| limits.idle = Duration::from_millis(700),
        |_, _| stall(),
        "sent nothing for 0.7 s",
    )?;
    Ok(())
}

#[test]
fn a_packed_list_is_unpacked() -> Result<()> {
    let server = FeedServer::start()?;
    server.on(PATH, |asked, out| {
        assert!(
            asked
                .header("accept-encoding")
                .is_some_and(|it| it.contains("gzip"))
        );
        reply(
            out,
            200,
            &[("Content-Encoding", "gzip")],
            &gzip(GOOD.as_bytes()),
        )
    });
    let feed = Fetching::new(Format::Plain, &server.url(PATH))?;
    feed.new_copy()?;
    assert_eq!(feed.copy()?, GOOD);
    // A .gz file that is served as it is.
    server.on(PATH, |_, out| {
        reply(out, 200, &[], &gzip(BETTER.as_bytes()))
    });
    feed.new_copy()?;
    assert_eq!(feed.copy()?, BETTER);
    Ok(())
}

#[test]
fn truncated_gzip_leaves_the_last_good_list() -> Result<()> {
    survives(
        |_, out| {
            let whole = gzip(BETTER.repeat(50).as_bytes());
            let part = &whole[..whole.len() - 12];
            reply(out, 200, &[("Content-Encoding", "gzip")], part)
        },
        "damaged or cut off",
    )
}

#[test]
fn a_body_that_breaks_off_leaves_the_last_good_list() -> Result<()> {
    survives(
        |_, out| {
            head(out, 200, &[("Content-Length", "1000")])?;
            write!(out, "\r\n{BETTER}")
        },
        "cannot be fetched",
    )
}

#[test]
fn an_empty_body_with_200_leaves_the_last_good_list() -> Result<()> {
    survives(|_, out| reply(out, 200, &[], b""), "has no entries")?;
    Ok(())
}

#[test]
fn comments_alone_with_200_leave_the_last_good_list() -> Result<()> {
    survives(
        |_, out| {
            reply(
                out,
                200,
                &[],
                b"# This list has been deprecated on 2025-01-03\n",
            )
        },
        "says that the list is deprecated",
    )
}

#[test]
fn an_html_error_page_with_200_leaves_the_last_good_list() -> Result<()> {
    let failed = survives_with(
        |_| (),
        |_, out| {
            let page = b"<!DOCTYPE html>\n<html><body>\n<h1>Database error</h1>\n</body></html>\n";
            reply(out, 200, &[("Content-Type", "text/html")], page)
        },
        "the file looks like a web page",
    )?;
    // Kept for a person to look at.
    assert!(failed.error.is_some_and(|it| it.contains("/rejected")));
    Ok(())
}

#[test]
fn the_wrong_charset_leaves_the_last_good_list() -> Result<()> {
    survives(
        |_, out| {
            let utf16: Vec<u8> = std::iter::once(0xfeff_u16)
                .chain(BETTER.encode_utf16())
                .flat_map(u16::to_le_bytes)
                .collect();
            reply(
                out,
                200,
                &[("Content-Type", "text/plain; charset=utf-8")],
                &utf16,
            )
        },
        "the file is UTF-16",
    )
}

#[test]
fn a_redirect_loop_leaves_the_last_good_list() -> Result<()> {
    survives(redirect(302, PATH), "redirects in a circle")
}

#[test]
fn redirects_without_end_leave_the_last_good_list() -> Result<()> {
    let server = FeedServer::start()?;
    for number in 0..20 {
        server.on(
            &format!("/{number}"),
            redirect(301, format!("/{}", number + 1)),
        );
    }
    let feed = Fetching::new(Format::Plain, &server.url("/0"))?;
    assert!(matches!(
        feed.failure()?,
        FetchError::RedirectLoop { limit: 5, .. }
    ));
    assert_eq!(server.asked().len(), 6);
    Ok(())
}

#[test]
fn a_list_that_moved_is_fetched_from_there() -> Result<()> {
    let server = FeedServer::start()?;
    server.on(PATH, redirect(308, "new/list?v=2"));
    server.list("/new/list", "1", GOOD);
    let feed = Fetching::new(Format::Plain, &server.url(PATH))?;
    feed.new_copy()?;
    assert_eq!(server.last()?.target, "/new/list?v=2");
    Ok(())
}

#[test]
fn a_redirect_to_plain_http_is_not_followed() -> Result<()> {
    let plain = FeedServer::start()?;
    plain.list(PATH, "1", BETTER);
    let server = FeedServer::start_tls()?;
    server.list(PATH, "1", GOOD);
    let mut feed = Fetching::new(Format::Plain, &server.url(PATH))?;
    feed.remote.ca_file = Some(feed.file("ca.pem", server.authority()?)?);
    feed.new_copy()?;
    // The same host, to which a list without TLS may be configured.
    let to = format!("http://localhost:{}{PATH}", plain.address().port());
    server.on(PATH, redirect(302, to));
    let error = feed.failure()?;
    assert!(matches!(error, FetchError::PlainRedirect { .. }), "{error}");
    assert!(plain.asked().is_empty());
    assert_eq!(feed.copy()?, GOOD);
    Ok(())
}

#[test]
fn a_server_that_no_authority_knows_is_refused() -> Result<()> {
    let server = FeedServer::start_tls()?;
    server.list(PATH, "1", GOOD);
    let mut feed = Fetching::new(Format::Plain, &server.url(PATH))?;
    let error = feed.failure()?.to_string();
    assert!(error.contains("ertificate"), "{error}");
    assert!(server.asked().is_empty());
    // Nor does an authority vouch for another name.
    let other = format!("https://127.0.0.1:{}{PATH}", server.address().port());
    let authority = feed.file("ca.pem", server.authority()?)?;
    let mut named = Fetching::new(Format::Plain, &other)?;
    named.remote.ca_file = Some(authority.clone());
    let error = named.failure()?.to_string();
    assert!(error.contains("ertificate"), "{error}");
    feed.remote.ca_file = Some(authority);
    feed.new_copy()
}

#[test]
fn a_promised_length_far_past_the_limit_is_not_even_begun() -> Result<()> {
    survives(
        |_, out| {
            head(out, 200, &[("Content-Length", "99999999999999")])?;
            out.write_all(b"\r\n")
        },
        "sends more than 100000 bytes (it promises 99999999999999)",
    )
}

#[test]
fn a_body_without_end_is_cut_at_the_limit() -> Result<()> {
    survives(
        |_, out| {
            head(out, 200, &[])?;
            out.write_all(b"\r\n")?;
            loop {
                out.write_all(&[b'1'; 4096])?;
            }
        },
        "sends more than 100000 bytes",
    )
}

#[test]
fn a_small_packet_that_unpacks_to_more_than_the_limit_is_refused() -> Result<()> {
    survives(
        |_, out| {
            let bomb = gzip(&vec![b'\n'; 50_000_000]);
            assert!(bomb.len() < 100_000);
            reply(out, 200, &[("Content-Encoding", "gzip")], &bomb)
        },
        "sends more than 100000 bytes",
    )
}

#[test]
fn flapping_never_loses_the_last_good_list() -> Result<()> {
    let server = FeedServer::start()?;
    let feed = Fetching::new(Format::Plain, &server.url(PATH))?;
    for round in 0..6_u8 {
        let list = format!("192.0.2.{round}\n");
        server.list(PATH, &round.to_string(), list.clone());
        feed.new_copy()?;
        assert_eq!(feed.state().failures, 0);
        for failures in 1..=2 {
            server.on(PATH, move |_, out| match failures {
                1 => reply(out, 500, &[], b"oops"),
                _ => reply(out, 200, &[], b"<html>"),
            });
            feed.failure()?;
            assert_eq!(feed.copy()?, list);
            assert_eq!(feed.state().failures, failures);
        }
    }
    Ok(())
}

#[test]
fn status_401_says_to_check_the_secret() -> Result<()> {
    survives(|_, out| reply(out, 401, &[], b"?"), "refuses us (HTTP 401)")?;
    Ok(())
}

#[test]
fn status_403_says_to_check_the_account() -> Result<()> {
    survives(|_, out| reply(out, 403, &[], b"?"), "refuses us (HTTP 403)")?;
    Ok(())
}

#[test]
fn status_404_says_that_the_list_has_moved() -> Result<()> {
    survives(|_, out| reply(out, 404, &[], b"?"), "has moved or ended")?;
    Ok(())
}

#[test]
fn status_429_with_retry_after_is_obeyed() -> Result<()> {
    let failed = survives_with(
        |_| (),
        |_, out| reply(out, 429, &[("Retry-After", "7200")], b"?"),
        "wants to be asked later (HTTP 429, in 7200 s)",
    )?;
    let pause = failed.paused_until.context("a pause")?;
    let asked = failed.attempted.context("a time")?;
    assert_eq!(pause.duration_since(asked).as_secs(), 7200);
    assert!(failed.next >= failed.paused_until);
    Ok(())
}

#[test]
fn status_503_with_a_date_is_obeyed_by_people_too() -> Result<()> {
    let server = FeedServer::start()?;
    server.on(PATH, |_, out| {
        let later = Timestamp::now() + Duration::from_secs(1800);
        let date = jiff::fmt::rfc2822::DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&later)
            .expect("a date");
        reply(out, 503, &[("Retry-After", &date)], b"?")
    });
    let feed = Fetching::new(Format::Plain, &server.url(PATH))?;
    let error = feed.failure()?.to_string();
    assert!(error.contains("HTTP 503, in 1"), "{error}");
    let due = |seconds| {
        let then = Timestamp::now() + Duration::from_secs(seconds);
        is_due(&feed.source, &feed.state(), Asker::Person, then)
    };
    assert!(!due(1700));
    assert!(due(1801));
    Ok(())
}

#[test]
fn a_secret_is_sent_to_its_own_server_and_to_no_other() -> Result<()> {
    let [server, other] = [FeedServer::start()?, FeedServer::start()?];
    server.list(PATH, "1", GOOD);
    let mut feed = Fetching::new(Format::Plain, &server.url(PATH))?;
    let secret = feed.file("secret", "hush-hush\n")?;
    feed.remote.auth = Some((Auth::Header("Auth-Key".into()), secret.clone()));
    feed.new_copy()?;
    assert_eq!(server.last()?.header("auth-key"), Some("hush-hush"));

    other.list(PATH, "2", BETTER);
    server.on(PATH, redirect(302, other.url(PATH)));
    feed.new_copy()?;
    assert_eq!(other.last()?.header("auth-key"), None);
    assert_eq!(other.last()?.header("if-none-match"), None);

    server.on(PATH, |_, out| reply(out, 401, &[], b"hush-hush"));
    assert!(!format!("{:?}", feed.failure()?).contains("hush"));
    for entry in fs::read_dir(feed.place())? {
        assert!(!fs::read_to_string(entry?.path())?.contains("hush"));
    }

    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644))?;
    let asked = server.asked().len();
    assert!(matches!(feed.failure()?, FetchError::Secret { .. }));
    assert_eq!(server.asked().len(), asked, "nobody was asked");
    Ok(())
}

#[test]
fn without_a_network_the_last_good_copy_is_read_after_a_restart() -> Result<()> {
    let (server, feed) = with_a_good_list()?;
    feed.new_copy()?;
    drop(server);
    let error = feed.failure()?;
    assert!(matches!(error, FetchError::Transport { .. }), "{error}");
    // All that a new process has is on disk.
    assert_eq!(feed.listed()?.len(), 2);
    let state = feed.state();
    assert!(state.copied.is_some() && state.error.is_some());
    assert_eq!(state.validators.etag.as_deref(), Some("\"1\""));
    Ok(())
}

#[test]
fn another_address_has_no_past() -> Result<()> {
    let server = FeedServer::start()?;
    server.list(PATH, "1", GOOD);
    server.list("/other", "1", BETTER);
    let mut feed = Fetching::new(Format::Plain, &server.url(PATH))?;
    feed.new_copy()?;
    feed.remote.url = server.url("/other").parse()?;
    feed.source.remote = Some(Arc::new(feed.remote.clone()));
    assert!(is_due(
        &feed.source,
        &feed.state(),
        Asker::Schedule,
        Timestamp::now()
    ));
    feed.new_copy()?;
    assert_eq!(server.last()?.header("if-none-match"), None);
    assert_eq!(feed.copy()?, BETTER);
    Ok(())
}
