//! Ports on the loopback address: a free one, and whose socket listens on one.
//!
//! Not here: what is said through them (`openai`, `server`).

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::tree::Process;

/// Where engines' ports begin.
pub(crate) const FIRST: u16 = 18_100;
/// How many follow, before whatever the kernel has free is taken.
const COUNT: u16 = 400;

/// How far the search has got: a port is offered again only when all others had their turn, so that neither a late
/// client of the last engine nor another engine that is just starting is met.
static TURN: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on now, none of `taken`, from our own range where it has one.
///
/// It is looked up, not tried by binding: that would be in the way of another worker's engine for an instant.
pub(crate) fn free(taken: &BTreeSet<u16>) -> std::io::Result<u16> {
    let listening = listeners(None);
    // Workers start at once and would all begin with the same port: each begins elsewhere.
    let own = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or_default();
    for _ in 0..COUNT {
        let turn = TURN.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (own + turn) % COUNT;
        if !taken.contains(&port) && !listening.iter().any(|(used, _)| *used == port) {
            return Ok(port);
        }
    }
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Whether the socket that listens on `port` belongs to one of `members`; none if nothing listens there.
pub(crate) fn is_served_by(port: u16, members: &[Process]) -> Option<bool> {
    let inodes: BTreeSet<u64> = listeners(Some(port)).into_iter().map(|(_, inode)| inode).collect();
    if inodes.is_empty() {
        return None;
    }
    Some(members.iter().any(|process| sockets(process.pid).any(|inode| inodes.contains(&inode))))
}

/// Ports and inodes of listening sockets (state 0A), of one port or of all.
fn listeners(port: Option<u16>) -> Vec<(u16, u64)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(read);
    tables
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(listener)
        .filter(|(found, _)| port.is_none_or(|port| port == *found))
        .collect()
}

fn listener(line: &str) -> Option<(u16, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, port) = fields.get(1)?.rsplit_once(':')?;
    if *fields.get(3)? != "0A" {
        return None;
    }
    Some((u16::from_str_radix(port, 16).ok()?, fields.get(9)?.parse().ok()?))
}

fn sockets(pid: u32) -> impl Iterator<Item = u64> {
    fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_told_by_its_owner() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let me = Process::read(std::process::id()).unwrap();
        assert_eq!(is_served_by(port, &[me]), Some(true));
        assert_eq!(is_served_by(port, &[]), Some(false));
        drop(listener);
        // A child that another test is forking holds it for a moment, until it becomes another program.
        let begin = std::time::Instant::now();
        while is_served_by(port, &[]).is_some() {
            assert!(begin.elapsed().as_secs() < 10, "nobody listens there any more");
        }
    }

    #[test]
    fn a_taken_port_is_not_offered() {
        let first = free(&BTreeSet::new()).unwrap();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert_ne!(free(&BTreeSet::new()).unwrap(), first);
        TURN.fetch_sub(2, Ordering::Relaxed);
        let next = free(&[first].into()).unwrap();
        assert!(next != first, "it is listened on, even when its turn comes again");
    }
}
