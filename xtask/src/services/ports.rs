//! Free loopback ports.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

/// Below the range from which Linux and macOS take the source ports of outgoing connections:
/// a restarted service must find its port free, not taken by a client that tries to reach it.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
const TRIES: u64 = 1_000;

/// `N` different ports nobody listens on.
pub(crate) fn free<const N: usize>() -> Result<[u16; N]> {
    let random = RandomState::new();
    let width = u64::from(RANGE.end - RANGE.start);
    let offsets = (0..TRIES).map(|attempt| random.hash_one(attempt) % width);
    let ports = offsets.filter_map(|offset| Some(RANGE.start + u16::try_from(offset).ok()?));
    match pick(ports) {
        Some(ports) => Ok(ports),
        None => bail!("no {N} free ports between {} and {} on 127.0.0.1", RANGE.start, RANGE.end),
    }
}

/// The first `N` different ones of `candidates` that are free.
fn pick<const N: usize>(candidates: impl Iterator<Item = u16>) -> Option<[u16; N]> {
    // Held until all are found: a port that comes twice is then taken.
    let held = |port| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        Some((port, listener))
    };
    let held: Vec<_> = candidates.filter_map(held).take(N).collect();
    let ports: Vec<_> = held.iter().map(|(port, _)| *port).collect();
    ports.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_nobody_listens_on_them() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = taken.local_addr().map(|address| (taken, address.port())).unwrap();
        let candidates = std::iter::once(taken.1).chain(RANGE.flat_map(|port| [port, port]));
        let mut ports = pick::<4>(candidates).unwrap().to_vec();
        ports.dedup();
        assert_eq!(ports.len(), 4);
        assert!(!ports.contains(&taken.1));
    }

    #[test]
    fn too_few_free_ports_are_an_error() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(pick::<1>([port, port].into_iter()), None);
    }

    #[test]
    fn ports_lie_below_those_of_outgoing_connections() {
        assert!(free::<4>().unwrap().iter().all(|port| RANGE.contains(port)));
    }
}
