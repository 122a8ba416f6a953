//! The client: one request after the other, within limits, with redirects
//! followed by our own rules.

use std::{
    io::Read as _,
    sync::Arc,
    time::{Duration, Instant},
};

use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use ureq::{
    Agent, Proxy,
    tls::{Certificate, PemItem, RootCerts, TlsConfig},
};

use super::{FetchError, Validators, proxy, secret};
use crate::feeds::{FeedUrl, FetchLimits, Remote};

/// Redirects in a row that are followed.
const MAX_REDIRECTS: usize = 5;
/// Header of TAXII 2.1: up to when what came was added.
const ADDED_LAST: &str = "X-TAXII-Date-Added-Last";
/// What is read at once.
const PIECE: usize = 64 << 10;

/// What may be told about the progress of a request: bytes so far, and bytes
/// promised.
pub(super) type Meter<'a> = &'a (dyn Fn(u64, Option<u64>) + Sync);

/// A client for one fetch of one feed.
pub(super) struct Client<'a> {
    remote: &'a Remote,
    secret: Option<secret::SecretHeader>,
    tls: TlsConfig,
    /// By the proxy they use.
    agents: Vec<(Option<String>, Agent)>,
    deadline: Instant,
    /// Bytes that may still come.
    room: u64,
    now: Timestamp,
    meter: Meter<'a>,
}

/// What is asked for.
pub(super) struct Question<'q> {
    pub(super) url: &'q FeedUrl,
    pub(super) accept: &'static str,
    /// Only if it is another version than this.
    pub(super) unless: Option<&'q Validators>,
}

/// What came.
pub(super) enum Reply {
    /// The version that was named is the current one.
    Unchanged,
    Body(Body),
}

pub(super) struct Body {
    /// Unpacked.
    pub(super) bytes: Vec<u8>,
    pub(super) validators: Validators,
    /// Up to when what came was added to a collection of TAXII.
    pub(super) added_last: Option<String>,
    /// Where it came from in the end.
    pub(super) url: FeedUrl,
}

/// An answer with its body still to come.
type Response = ureq::http::Response<ureq::Body>;

impl<'a> Client<'a> {
    /// Reads secret and authorities; asks nobody yet.
    pub(super) fn new(
        remote: &'a Remote,
        now: Timestamp,
        meter: Meter<'a>,
    ) -> Result<Self, FetchError> {
        let secret = match &remote.auth {
            Some((auth, path)) => Some(secret::read(auth, path)?),
            None => None,
        };
        Ok(Self {
            secret,
            tls: tls(remote)?,
            remote,
            agents: Vec::new(),
            deadline: Instant::now() + remote.limits.total,
            room: remote.limits.bytes,
            now,
            meter,
        })
    }

    /// Asks, follows redirects, and reads the answer to its end.
    pub(super) fn get(&mut self, question: &Question<'_>) -> Result<Reply, FetchError> {
        let first = question.url;
        let mut url = first.clone();
        let mut seen = vec![url.clone()];
        loop {
            let response = self.ask(&url, question)?;
            let status = response.status().as_u16();
            let header = |name: &str| {
                let value = response.headers().get(name)?;
                value.to_str().ok().map(str::to_owned)
            };
            match status {
                200 => return self.body(url, response).map(Reply::Body),
                304 if question.unless.is_some() => return Ok(Reply::Unchanged),
                301 | 302 | 303 | 307 | 308 => {
                    let next = url
                        .join(header("Location").unwrap_or_default().trim())
                        .map_err(|source| FetchError::BadRedirect {
                            url: first.to_string(),
                            source,
                        })?;
                    // Plain HTTP stays where the operator allowed it.
                    if !next.is_tls() && (url.is_tls() || next.host() != first.host()) {
                        return Err(FetchError::PlainRedirect {
                            url: first.to_string(),
                            to: next.to_string(),
                        });
                    }
                    if seen.contains(&next) || seen.len() > MAX_REDIRECTS {
                        return Err(FetchError::RedirectLoop {
                            url: first.to_string(),
                            limit: MAX_REDIRECTS,
                        });
                    }
                    seen.push(next.clone());
                    url = next;
                }
                401 | 403 => {
                    return Err(FetchError::Refused {
                        url: url.to_string(),
                        status,
                    });
                }
                404 | 410 => {
                    return Err(FetchError::Gone {
                        url: url.to_string(),
                        status,
                    });
                }
                429 | 503 => {
                    return Err(FetchError::Busy {
                        url: url.to_string(),
                        status,
                        retry_after: header("Retry-After")
                            .and_then(|text| retry_after(&text, self.now)),
                    });
                }
                _ => {
                    return Err(FetchError::Status {
                        url: url.to_string(),
                        status,
                    });
                }
            }
        }
    }

    fn ask(&mut self, url: &FeedUrl, question: &Question<'_>) -> Result<Response, FetchError> {
        let limits = self.remote.limits;
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(too_slow(url, limits));
        }
        let agent = self.agent(url)?;
        let mut request = agent
            .get(url.in_full())
            .config()
            .timeout_global(Some(left))
            .build()
            .header("Accept", question.accept)
            .header("Accept-Encoding", "gzip");
        // Neither version nor secret of one server is another one's business.
        let unless = question.unless.filter(|_| url.same_origin(question.url));
        if let Some(Validators {
            etag,
            last_modified,
        }) = unless
        {
            if let Some(etag) = etag {
                request = request.header("If-None-Match", etag);
            }
            if let Some(time) = last_modified {
                request = request.header("If-Modified-Since", time);
            }
        }
        if let Some(secret) = &self.secret
            && url.same_origin(&self.remote.url)
        {
            let mut value = ureq::http::HeaderValue::from_str(&secret.value).map_err(|_| {
                FetchError::Transport {
                    url: url.to_string(),
                    reason: "the secret cannot stand in a header".into(),
                }
            })?;
            value.set_sensitive(true);
            request = request.header(&secret.name, value);
        }
        request
            .call()
            .map_err(|error| broken(url, limits, self.deadline, error))
    }

    /// The agent for the proxy of this address.
    fn agent(&mut self, url: &FeedUrl) -> Result<Agent, FetchError> {
        let chosen = proxy::proxy_for(url, |name| std::env::var(name).ok());
        let address = chosen.as_ref().map(|(_, address)| address.clone());
        if let Some((_, agent)) = self.agents.iter().find(|(known, _)| *known == address) {
            return Ok(agent.clone());
        }
        let proxy = match &chosen {
            None => None,
            Some((variable, address)) => {
                Some(Proxy::new(address).map_err(|error| FetchError::Proxy {
                    variable,
                    reason: error.to_string(),
                })?)
            }
        };
        let agent: Agent = Agent::config_builder()
            .tls_config(self.tls.clone())
            .proxy(proxy)
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("matcher/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(self.remote.limits.idle))
            .timeout_connect(Some(self.remote.limits.idle))
            .timeout_per_read(Some(self.remote.limits.idle))
            .timeout_per_write(Some(self.remote.limits.idle))
            .build()
            .into();
        self.agents.push((address, agent.clone()));
        Ok(agent)
    }

    fn body(&mut self, url: FeedUrl, response: Response) -> Result<Body, FetchError> {
        let limits = self.remote.limits;
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let validators = Validators {
            etag: header("ETag"),
            last_modified: header("Last-Modified"),
        };
        let added_last = header(ADDED_LAST);
        let said_gzip = header("Content-Encoding").is_some_and(|it| it.contains("gzip"));
        let promised = header("Content-Length").and_then(|it| it.trim().parse::<u64>().ok());
        let too_large = |promised| FetchError::TooLarge {
            url: url.to_string(),
            limit: limits.bytes,
            promised,
        };
        if promised.is_some_and(|bytes| bytes > self.room) {
            return Err(too_large(promised));
        }
        let mut reader = response
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader();
        let mut bytes = Vec::new();
        let mut piece = vec![0; PIECE];
        loop {
            let read = reader
                .read(&mut piece)
                .map_err(|error| broken(&url, limits, self.deadline, ureq::Error::from(error)))?;
            let Some(fresh) = piece.get(..read).filter(|it| !it.is_empty()) else {
                break;
            };
            bytes.extend_from_slice(fresh);
            if bytes.len() as u64 > self.room {
                return Err(too_large(None));
            }
            (self.meter)(bytes.len() as u64, promised);
        }
        // Some publishers serve the packed file as it is.
        if said_gzip || bytes.starts_with(b"\x1f\x8b") {
            bytes = unpack(&bytes, self.room).map_err(|error| match error {
                Unpack::TooLarge => too_large(None),
                Unpack::Damaged(reason) => FetchError::Compressed {
                    url: url.to_string(),
                    reason,
                },
            })?;
        }
        self.room = self.room.saturating_sub(bytes.len() as u64);
        Ok(Body {
            bytes,
            validators,
            added_last,
            url,
        })
    }
}

enum Unpack {
    TooLarge,
    Damaged(String),
}

fn unpack(packed: &[u8], room: u64) -> Result<Vec<u8>, Unpack> {
    let mut bytes = Vec::new();
    MultiGzDecoder::new(packed)
        .take(room.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| Unpack::Damaged(error.to_string()))?;
    if bytes.len() as u64 > room {
        return Err(Unpack::TooLarge);
    }
    Ok(bytes)
}

fn too_slow(url: &FeedUrl, limits: FetchLimits) -> FetchError {
    FetchError::TooSlow {
        url: url.to_string(),
        limit: limits.total,
    }
}

/// What a failure below HTTP means.
fn broken(url: &FeedUrl, limits: FetchLimits, deadline: Instant, error: ureq::Error) -> FetchError {
    match unwrapped(error) {
        ureq::Error::Timeout(_) if Instant::now() >= deadline => too_slow(url, limits),
        ureq::Error::Timeout(ureq::Timeout::Global | ureq::Timeout::PerCall) => {
            too_slow(url, limits)
        }
        ureq::Error::Timeout(_) => FetchError::Stalled {
            url: url.to_string(),
            limit: limits.idle,
        },
        error => FetchError::Transport {
            url: url.to_string(),
            reason: match error {
                ureq::Error::HostNotFound => "there is no such host".to_owned(),
                error => error.to_string(),
            },
        },
    }
}

/// Errors of the body come wrapped in those of reading.
fn unwrapped(error: ureq::Error) -> ureq::Error {
    match error {
        ureq::Error::Io(io) if io.get_ref().is_some_and(|it| it.is::<ureq::Error>()) => {
            match io.downcast::<ureq::Error>() {
                Ok(inner) => unwrapped(inner),
                Err(io) => ureq::Error::Io(io),
            }
        }
        error => error,
    }
}

fn tls(remote: &Remote) -> Result<TlsConfig, FetchError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots: Vec<Certificate<'static>> = match &remote.ca_file {
        Some(path) => {
            let failed = |reason: String| FetchError::Authorities {
                path: path.clone(),
                reason,
            };
            let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
            let mut certificates = Vec::new();
            for item in ureq::tls::parse_pem(&pem) {
                if let PemItem::Certificate(it) = item.map_err(|error| failed(error.to_string()))? {
                    certificates.push(it);
                }
            }
            if certificates.is_empty() {
                return Err(failed("there is no certificate in it (PEM form)".into()));
            }
            certificates
        }
        // Nobody needs authorities who does not use TLS.
        None if !remote.url.is_tls() => Vec::new(),
        None => rustls_native_certs::load_native_certs()
            .certs
            .iter()
            .map(|it| Certificate::from_der(it).to_owned())
            .collect(),
    };
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(RootCerts::from(roots))
        .build())
}

/// Seconds, or a date of HTTP (RFC 9110 section 10.2.3).
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_read_as_seconds_or_as_a_date() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        for (text, pause) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 22 Nov 2026 10:30:00 GMT", Some(1800)),
            ("Sun, 22 Nov 2026 09:30:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let pause = pause.map(Duration::from_secs);
            assert_eq!(retry_after(text, now), pause, "{text}");
        }
    }
}
