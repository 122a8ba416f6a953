//! The answering side.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::UCred},
    sync::{mpsc, oneshot, watch},
};

use super::{Door, MAX_REQUEST, Request, TailLine};
use crate::{
    instance::Answer,
    store::{Cursor, Store},
};

/// A request under way to the agent.
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Answer>,
}

/// Does the part of a request that cannot wait, or says why it could not.
pub type AtOnce = dyn Fn(&Request) -> Result<(), String> + Send + Sync;

/// What connections share.
pub struct Desk {
    /// Requests to the agent.
    pub requests: mpsc::Sender<Asked>,
    /// The cursor of the last stored hit.
    pub stored: watch::Receiver<u64>,
    /// What of a request cannot wait until the agent comes to it.
    pub at_once: Box<AtOnce>,
    /// Opens the store for reading hits.
    pub open_store: Box<dyn Fn() -> Result<Store, String> + Send + Sync>,
}

/// Hits read from the store at once for one tail.
const TAIL_BATCH: usize = 1_000;
/// A quiet tail gets a sign of life so often, so that a lost peer is noticed.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long a peer may take to send its request.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// Listens at `door`. A socket that an agent left behind is replaced; the
/// caller holds the agent's lock, so no other agent uses it.
///
/// # Errors
/// When the socket cannot be made or protected.
pub fn listen(door: &Door) -> io::Result<UnixListener> {
    match fs::remove_file(&door.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&door.path)?;
    let mode = if door.group.is_some() { 0o660 } else { 0o600 };
    std::os::unix::fs::chown(&door.path, None, door.group)?;
    fs::set_permissions(&door.path, fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Answers connections until dropped.
pub async fn serve(listener: UnixListener, door: Door, desk: Arc<Desk>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let door = door.clone();
                let desk = Arc::clone(&desk);
                tokio::spawn(async move {
                    if let Err(error) = connection(stream, &door, &desk).await {
                        tracing::debug!("control connection ended: {error}");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: those under way will end.
                tracing::warn!("control socket: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, door: &Door, desk: &Desk) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let (reader, mut writer) = stream.into_split();
    if !may_ask(&peer, door.group) {
        tracing::warn!(
            "control socket: refused user {} (process {})",
            peer.uid(),
            peer.pid().unwrap_or(0)
        );
        let answer = Answer {
            err: "not permitted: only root and the group control.group may talk to the agent\n"
                .into(),
            exit: 3,
            ..Answer::default()
        };
        return send(&mut writer, &answer).await;
    }
    let mut reader = BufReader::new(reader.take(MAX_REQUEST));
    let mut line = String::new();
    tokio::time::timeout(REQUEST_TIME, reader.read_line(&mut line))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => {
            let answer = Answer {
                err: format!(
                    "the agent does not understand the request ({error}); are command and agent of the same version?\n"
                ),
                exit: 1,
                ..Answer::default()
            };
            return send(&mut writer, &answer).await;
        }
    };
    if let Request::Tail { after } = request {
        return tail(&mut writer, after, desk).await;
    }
    if let Err(error) = tokio::task::block_in_place(|| (desk.at_once)(&request)) {
        // The agent tries again, and answers.
        tracing::warn!("control socket: {error}");
    }
    let (reply, answer) = oneshot::channel();
    let asked = Asked { request, reply };
    if desk.requests.send(asked).await.is_err() {
        return Ok(());
    }
    match answer.await {
        Ok(answer) => send(&mut writer, &answer).await,
        // The agent is ending; the asker sees the connection close.
        Err(_) => Ok(()),
    }
}

/// Sends hits as they are stored. Reads them from the store, so that a slow
/// reader slows nobody else.
async fn tail(
    writer: &mut (impl AsyncWriteExt + Unpin),
    after: Option<u64>,
    desk: &Desk,
) -> io::Result<()> {
    let mut stored = desk.stored.clone();
    let mut cursor = after.unwrap_or_else(|| *stored.borrow());
    let store = tokio::task::block_in_place(|| (desk.open_store)()).map_err(io::Error::other)?;
    // A first sign of life tells the reader from where on it sees hits.
    send(writer, &TailLine { cursor, hit: None }).await?;
    loop {
        let hits = tokio::task::block_in_place(|| store.hits_after(Cursor(cursor), TAIL_BATCH))
            .map_err(io::Error::other)?;
        let mut lines = Vec::new();
        for (at, hit) in &hits {
            cursor = at.0;
            let line = TailLine {
                cursor,
                hit: Some(serde_json::to_value(hit)?),
            };
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        writer.write_all(&lines).await?;
        if hits.len() < TAIL_BATCH {
            match tokio::time::timeout(HEARTBEAT, stored.changed()).await {
                Ok(Ok(())) => {}
                // The agent is ending.
                Ok(Err(_)) => return Ok(()),
                Err(_) => send(writer, &TailLine { cursor, hit: None }).await?,
            }
        }
    }
}

async fn send(
    writer: &mut (impl AsyncWriteExt + Unpin),
    message: &impl serde::Serialize,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

/// Root, the agent's own user, and members of the configured group.
fn may_ask(peer: &UCred, group: Option<u32>) -> bool {
    let own = rustix::process::geteuid().as_raw();
    if peer.uid() == 0 || peer.uid() == own {
        return true;
    }
    let Some(group) = group else {
        return false;
    };
    peer.gid() == group
        || peer.pid().is_some_and(|pid| {
            fs::read_to_string(format!("/proc/{pid}/status"))
                .is_ok_and(|status| supplementary(&status).any(|gid| gid == group))
        })
}

fn supplementary(status: &str) -> impl Iterator<Item = u32> + '_ {
    status
        .lines()
        .filter_map(|line| line.strip_prefix("Groups:"))
        .flat_map(str::split_whitespace)
        .filter_map(|gid| gid.parse().ok())
}

/// The number of a group, from `/etc/group`.
///
/// # Errors
/// When the file cannot be read or has no such group.
pub fn group_id(name: &str) -> io::Result<u32> {
    group_in(&fs::read_to_string(Path::new("/etc/group"))?, name).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no group {name:?} (control.group)"),
        )
    })
}

fn group_in(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        let groups = "root:x:0:\nmatcher:x:998:alice,bob\nmatcherx:x:7:\n";
        assert_eq!(group_in(groups, "matcher"), Some(998));
        assert_eq!(group_in(groups, "match"), None);
    }

    #[test]
    fn supplementary_groups_count() {
        let status = "Name:\tx\nGroups:\t4 24 998 \nUid:\t5\n";
        assert_eq!(supplementary(status).collect::<Vec<_>>(), [4, 24, 998]);
    }
}
