//! A feed that is fetched: from where, how often, and within which limits.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use super::{FeedUrl, Format};

/// From where and how a feed is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The file; the folder or the manifest of a feed of MISP; the discovery,
    /// an API root or a collection of a TAXII server.
    pub url: FeedUrl,
    /// How long after a fetch the next one is due; at least
    /// [`Format::least_interval`].
    pub every: Duration,
    /// How we tell the server who we are.
    pub auth: Option<(Auth, PathBuf)>,
    /// Authorities to trust instead of the system's, a file in PEM form.
    pub ca_file: Option<PathBuf>,
    /// Fetched without TLS, and that is meant.
    pub plain_http: bool,
    /// TAXII: ids or titles of the collections; all that may be read when
    /// there are none.
    pub collections: Vec<String>,
    /// What one fetch may take.
    pub limits: FetchLimits,
}

impl Remote {
    /// Names of fetched feeds become names of folders: longer ones do not fit.
    pub const MAX_NAME_BYTES: usize = 80;

    /// Where the last good copy of a feed is kept. Whatever the name holds,
    /// the folder lies right below `state_dir/feeds`.
    pub fn copy_path(state_dir: &Path, name: &str) -> PathBuf {
        let mut folder = String::new();
        for byte in name.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
                    folder.push(char::from(byte));
                }
                _ => folder.push_str(&format!("%{byte:02x}")),
            }
        }
        state_dir.join("feeds").join(folder).join("copy")
    }
}

/// What one fetch may take at most.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// All that comes, unpacked, in bytes.
    pub bytes: u64,
    /// From the first packet to the last.
    pub total: Duration,
    /// Between two pieces.
    pub idle: Duration,
}

impl Default for FetchLimits {
    /// 256 MiB in 5 minutes without a pause of 30 seconds: more than the
    /// largest published lists, within the time of the shortest interval of
    /// most publishers.
    fn default() -> Self {
        Self {
            bytes: 256 << 20,
            total: Duration::from_secs(300),
            idle: Duration::from_secs(30),
        }
    }
}

/// How a secret is shown to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer SECRET` (RFC 6750).
    Bearer,
    /// `Authorization: Basic ...` (RFC 7617); the secret is `user:password`.
    Basic,
    /// A header of this name with the secret as it is, such as `Auth-Key`.
    Header(String),
}

impl FromStr for Auth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "bearer" => Ok(Self::Bearer),
            "basic" => Ok(Self::Basic),
            name if !name.is_empty()
                && name
                    .bytes()
                    .all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it)) =>
            {
                Ok(Self::Header(name.to_owned()))
            }
            other => Err(format!(
                "{other:?} is neither \"bearer\" nor \"basic\" nor the name of a header, such as \
                 \"Auth-Key\""
            )),
        }
    }
}

impl Format {
    /// A list of this format is not asked for more often, whatever the
    /// configuration and whoever asks. Spamhaus locks out those who fetch DROP
    /// more than once an hour (spamhaus.org/drop); DShield makes its list anew
    /// once an hour (isc.sans.edu diary of 2016-09-07). The others are our own
    /// caution, no word of the publishers.
    pub fn least_interval(self) -> Duration {
        let minute = 60;
        Duration::from_secs(match self {
            Self::SpamhausDrop | Self::Dshield | Self::EtBlock => 60 * minute,
            Self::FeodoCsv
            | Self::FeodoJson
            | Self::ThreatfoxCsv
            | Self::ThreatfoxJson
            | Self::SslblCsv => 5 * minute,
            Self::Plain
            | Self::Netset
            | Self::Misp
            | Self::Stix
            | Self::Taxii
            | Self::Cymru
            | Self::Rpz => 10,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_s_name_cannot_lead_out_of_its_folder() {
        let path = |name| Remote::copy_path(Path::new("/s"), name);
        assert_eq!(path("feodo-1"), Path::new("/s/feeds/feodo-1/copy"));
        assert_eq!(path("../x"), Path::new("/s/feeds/%2e%2e%2fx/copy"));
        assert_ne!(path("a.b"), path("a%2eb"));
    }

    #[test]
    fn a_way_to_show_a_secret_is_read() {
        assert_eq!("bearer".parse(), Ok(Auth::Bearer));
        assert_eq!("basic".parse(), Ok(Auth::Basic));
        assert_eq!("Auth-Key".parse(), Ok(Auth::Header("Auth-Key".into())));
        for wrong in ["", "Auth Key", "X:\r\nY"] {
            assert!(wrong.parse::<Auth>().is_err(), "{wrong}");
        }
    }
}
