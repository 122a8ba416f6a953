//! Why a fetch failed, for an operator.

use std::{path::PathBuf, time::Duration};

use crate::feeds::UrlError;

/// Why a fetch failed. The last good copy stays. Addresses are without what
/// may be secret in them.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// 401 or 403.
    #[error(
        "{url} refuses us (HTTP {status}): check auth and secret_file, and whether the account may \
         read this"
    )]
    Refused {
        /// Asked for.
        url: String,
        /// Status of HTTP.
        status: u16,
    },
    /// 404 or 410.
    #[error("there is no {url} (HTTP {status}): the list has moved or ended; ask its publisher")]
    Gone {
        /// Asked for.
        url: String,
        /// Status of HTTP.
        status: u16,
    },
    /// 429 or 503.
    #[error(
        "{url} wants to be asked later (HTTP {status}{})",
        retry_after.map(|it| format!(", in {} s", it.as_secs())).unwrap_or_default()
    )]
    Busy {
        /// Asked for.
        url: String,
        /// Status of HTTP.
        status: u16,
        /// How much later.
        retry_after: Option<Duration>,
    },
    /// Another status than one that brings a list.
    #[error("{url} answers with HTTP {status}")]
    Status {
        /// Asked for.
        url: String,
        /// Status of HTTP.
        status: u16,
    },
    /// From address to address without end.
    #[error("{url} redirects in a circle, or more than {limit} times")]
    RedirectLoop {
        /// Asked for first.
        url: String,
        /// Redirects that are followed.
        limit: usize,
    },
    /// To where everybody on the way can read and change the list.
    #[error(
        "{url} redirects to {to}, without TLS: not followed, as anybody on the way could change \
         the list"
    )]
    PlainRedirect {
        /// Asked for.
        url: String,
        /// Where to.
        to: String,
    },
    /// To nowhere.
    #[error("{url} redirects to what is no address: {source}")]
    BadRedirect {
        /// Asked for.
        url: String,
        /// What is wrong with it.
        source: UrlError,
    },
    /// More than the limit, by promise or by what came.
    #[error("{url} sends more than {limit} bytes{}: raise max_bytes if that is right", promise(*promised))]
    TooLarge {
        /// Asked for.
        url: String,
        /// The limit.
        limit: u64,
        /// What `Content-Length` said.
        promised: Option<u64>,
    },
    /// Took too long as a whole.
    #[error("{url} took longer than {} s (max_time): given up", limit.as_secs_f64())]
    TooSlow {
        /// Asked for.
        url: String,
        /// The limit.
        limit: Duration,
    },
    /// Nothing came for too long.
    #[error("{url} sent nothing for {} s: given up", limit.as_secs_f64())]
    Stalled {
        /// Asked for.
        url: String,
        /// The limit.
        limit: Duration,
    },
    /// gzip that is damaged or cut off.
    #[error("what {url} sends is compressed, and damaged or cut off: {reason}")]
    Compressed {
        /// Asked for.
        url: String,
        /// What the decoder says.
        reason: String,
    },
    /// Not connected, no TLS, broken off.
    #[error("{url} cannot be fetched: {reason}")]
    Transport {
        /// Asked for.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// What came is not a list that may replace the last good one.
    #[error("what came is no list to use: {0}")]
    NotUsable(String),
    /// The answer is not what the protocol (TAXII, a feed of MISP) wants.
    #[error("{url}: {reason}")]
    Answer {
        /// Asked for.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The secret cannot be used.
    #[error("secret_file {}: {reason}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The authorities cannot be read.
    #[error("ca_file {}: {reason}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The proxy of the environment cannot be used. Its address may hold a
    /// password and is not shown.
    #[error("the proxy in {variable} cannot be used: {reason}")]
    Proxy {
        /// The variable.
        variable: &'static str,
        /// Why.
        reason: String,
    },
    /// The copy cannot be written or read.
    #[error("cannot keep the copy in {}: {source}", path.display())]
    Keep {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

fn promise(promised: Option<u64>) -> String {
    promised
        .map(|bytes| format!(" (it promises {bytes})"))
        .unwrap_or_default()
}

impl FetchError {
    /// Asking again will not help before somebody has changed something.
    pub fn needs_a_person(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. }
                | Self::Gone { .. }
                | Self::RedirectLoop { .. }
                | Self::PlainRedirect { .. }
                | Self::BadRedirect { .. }
                | Self::TooLarge { .. }
                | Self::NotUsable(_)
                | Self::Secret { .. }
                | Self::Authorities { .. }
                | Self::Proxy { .. }
        )
    }

    /// For how long the server wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
