//! Free TCP ports that stay ours: a server killed and restarted finds its port free again.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result, bail};

/// Ports are taken from below the kernel's ephemeral range (32768 and up), so that no outgoing connection of any test
/// sits on the port of a server that is down for a moment.
const FIRST: u16 = 21_000;
const LAST: u16 = 31_999;

/// A port of 127.0.0.1 reserved for this value's life, across all test processes of this machine.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Locked for as long as the port is reserved; the kernel unlocks it when the process dies.
    _reservation: File,
}

impl Port {
    /// Reserves a port on which nothing listens.
    ///
    /// # Errors
    /// When the folder for reservations cannot be written or every port is taken.
    pub fn reserve() -> Result<Self> {
        let folder = std::env::temp_dir().join("sluicegate-test-ports");
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let count = LAST - FIRST + 1;
        let start = fastrand::u16(0..count);
        for step in 0..count {
            let number = FIRST + (start + step) % count;
            let path = folder.join(number.to_string());
            let reservation = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .with_context(|| format!("opening {}", path.display()))?;
            if reservation.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _reservation: reservation });
            }
        }
        bail!("no free TCP port between {FIRST} and {LAST}: end what listens there")
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The port on 127.0.0.1.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_differ_and_can_be_bound() {
        let ports: Vec<Port> = (0..20).map(|_| Port::reserve().unwrap()).collect();
        for (index, port) in ports.iter().enumerate() {
            assert!(ports[..index].iter().all(|other| other.number() != port.number()));
            TcpListener::bind(port.address()).unwrap();
        }
    }
}
