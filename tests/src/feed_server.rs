//! A web server for feeds that does what it is told, good and bad.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use matcher_tests::feed_server::{FeedServer, reply};
//!
//! let server = FeedServer::start()?;
//! server.on("/list.txt", |_, out| reply(out, 200, &[], b"192.0.2.1\n"));
//! assert!(server.url("/list.txt").starts_with("http://127.0.0.1:"));
//! # Ok(())
//! # }
//! ```
//!
//! It listens on loopback only and ends when it is dropped.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::lab::Namespace;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Path and query.
    pub target: String,
    /// Headers, names in lower case.
    pub headers: HashMap<String, String>,
}

impl Asked {
    /// The path alone.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What the server does with a request.
type Deed = dyn Fn(&Asked, &mut dyn Write) -> io::Result<()> + Send + Sync;

#[derive(Default)]
struct Shared {
    deeds: Mutex<HashMap<String, Arc<Deed>>>,
    asked: Mutex<Vec<Asked>>,
    ended: AtomicBool,
}

/// A server on loopback.
pub struct FeedServer {
    address: SocketAddr,
    authority: Option<String>,
    shared: Arc<Shared>,
}

impl FeedServer {
    /// Without TLS, in the network namespace of the test.
    ///
    /// # Errors
    /// There is no loopback.
    pub fn start() -> Result<Self> {
        Self::listen(TcpListener::bind("127.0.0.1:0")?, None)
    }

    /// Without TLS, in a namespace of a laboratory.
    ///
    /// # Errors
    /// There is no loopback.
    pub fn start_in(namespace: &Namespace) -> Result<Self> {
        let listener = namespace.run(|| TcpListener::bind("127.0.0.1:0"))??;
        Self::listen(listener, None)
    }

    /// With TLS and a certificate of an authority of its own.
    ///
    /// # Errors
    /// There is no loopback.
    pub fn start_tls() -> Result<Self> {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let certificate = key.cert.der().clone();
        let secret = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der())
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], secret)?;
        let mut server = Self::listen(TcpListener::bind("127.0.0.1:0")?, Some(Arc::new(config)))?;
        server.authority = Some(key.cert.pem());
        Ok(server)
    }

    fn listen(listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let server = Self {
            address,
            authority: None,
            shared: Arc::clone(&shared),
        };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.ended.load(Ordering::SeqCst) {
                    return;
                }
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                // Whoever asks may hang up at any time.
                thread::spawn(move || {
                    let _ = match tls {
                        None => answer(&shared, stream),
                        Some(tls) => ServerConnection::new(tls)
                            .map_err(io::Error::other)
                            .and_then(|it| answer(&shared, StreamOwned::new(it, stream))),
                    };
                });
            }
        });
        Ok(server)
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        match self.authority {
            Some(_) => format!("https://localhost:{}{path}", self.address.port()),
            None => format!("http://{}{path}", self.address),
        }
    }

    /// Host and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The authority to trust, in PEM form.
    ///
    /// # Errors
    /// The server has no TLS.
    pub fn authority(&self) -> Result<&str> {
        self.authority.as_deref().context("a server with TLS")
    }

    /// What is done from now on with requests for a path; others get 404.
    pub fn on(
        &self,
        path: &str,
        deed: impl Fn(&Asked, &mut dyn Write) -> io::Result<()> + Send + Sync + 'static,
    ) {
        let mut deeds = self
            .shared
            .deeds
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        deeds.insert(path.to_owned(), Arc::new(deed));
    }

    /// Gives a list with a version, and 304 to those who have it.
    pub fn list(&self, path: &str, version: &str, body: impl Into<Vec<u8>>) {
        let (etag, body) = (format!("\"{version}\""), body.into());
        self.on(path, move |asked, out| {
            let headers = [("ETag", etag.as_str())];
            if asked.header("if-none-match") == Some(&etag) {
                reply(out, 304, &headers, b"")
            } else {
                reply(out, 200, &headers, &body)
            }
        });
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self
            .shared
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }

    /// The last request.
    ///
    /// # Errors
    /// There was none.
    pub fn last(&self) -> Result<Asked> {
        self.asked().pop().context("a request")
    }
}

impl Drop for FeedServer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the listener; in another namespace the process's end does.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_millis(200));
    }
}

fn answer(shared: &Shared, mut stream: impl Read + Write) -> io::Result<()> {
    let mut asked = Asked {
        target: String::new(),
        headers: HashMap::new(),
    };
    let mut reader = BufReader::new(&mut stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    asked.target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim().split_once(':') {
            Some((name, value)) => {
                let value = value.trim().to_owned();
                asked.headers.insert(name.to_ascii_lowercase(), value);
            }
            None => break,
        }
    }
    let deed = {
        let deeds = shared.deeds.lock().unwrap_or_else(PoisonError::into_inner);
        deeds.get(asked.path()).cloned()
    };
    shared
        .asked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(asked.clone());
    match deed {
        Some(deed) => deed(&asked, &mut stream)?,
        None => reply(&mut stream, 404, &[], b"no such list")?,
    }
    stream.flush()
}

/// A plain answer with its length.
///
/// # Errors
/// Whoever asked has hung up.
pub fn reply(
    out: &mut dyn Write,
    status: u16,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<()> {
    head(out, status, headers)?;
    if status != 304 {
        write!(out, "Content-Length: {}\r\n", body.len())?;
    }
    out.write_all(b"\r\n")?;
    out.write_all(body)
}

/// An answer's beginning, to which headers can be added.
///
/// # Errors
/// Whoever asked has hung up.
pub fn head(out: &mut dyn Write, status: u16, headers: &[(&str, &str)]) -> io::Result<()> {
    write!(out, "HTTP/1.1 {status} X\r\nConnection: close\r\n")?;
    for (name, value) in headers {
        write!(out, "{name}: {value}\r\n")?;
    }
    Ok(())
}
