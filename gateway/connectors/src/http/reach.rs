//! Which addresses an outgoing request may reach.
//!
//! Whoever names the host of a request could name one inside: `http://169.254.169.254/`, or a public name whose DNS answers
//! with a private address, at the first request or at the second (rebinding). So addresses are judged where they are used:
//! the client's own resolver looks a host up once for each connection and hands on only the addresses that may be reached,
//! and the connection goes to one of these. A host written as an address is judged before anything is sent. Redirects are
//! not followed at all.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use ipnet::IpNet;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Most exceptions from [`Reach::Public`].
pub const MAX_NETWORKS: usize = 64;

/// Which addresses may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reach {
    /// All: who names the host is trusted.
    #[default]
    Anywhere,
    /// Those of the public internet, and these networks.
    Public {
        /// Exceptions.
        and: Vec<IpNet>,
    },
}

impl Reach {
    /// Whether this address may be reached.
    pub fn allows(&self, address: IpAddr) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Public { and } => {
                let plain = address.to_canonical();
                is_public(plain) || and.iter().any(|network| network.contains(&plain))
            }
        }
    }

    /// Judges a host that is written as an address; names are judged when they are looked up.
    ///
    /// # Errors
    /// It may not be reached.
    pub fn check(&self, url: &Url) -> Result<(), OutOfReach> {
        let host = url.host_str().unwrap_or_default();
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match literal {
            Ok(address) if !self.allows(address) => Err(OutOfReach { host: host.to_owned() }),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// A network as it is written, such as `10.1.0.0/16`; a single address stands for itself.
pub fn parse_network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Whether an address belongs to the public internet. What is not known to is taken for private: special-purpose
/// registries of IANA for IPv4 (RFC 6890 and later), and for IPv6 all but global unicast.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match (a, b, c) {
        (0 | 10 | 127, ..) => true,                 // this network, private, loopback
        (100, 64..=127, _) => true,                 // carrier-grade NAT
        (169, 254, _) => true,                      // link-local, with the metadata of clouds
        (172, 16..=31, _) => true,                  // private
        (192, 0, 0 | 2) => true,                    // protocol assignments, documentation
        (192, 88, 99) => true,                      // 6to4 relays
        (192, 168, _) => true,                      // private
        (198, 18 | 19, _) | (198, 51, 100) => true, // benchmarks, documentation
        (203, 0, 113) => true,                      // documentation
        (224..=255, ..) => true,                    // multicast, reserved, broadcast
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let s = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        // NAT64: what a network with DNS64 makes of an IPv4 address.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2001, 0..=0x1ff, ..] => false, // protocol assignments, Teredo among them
        [0x2001, 0xdb8, ..] => false,     // documentation
        [0x2002, ..] => false,            // 6to4: may lead to any IPv4 address
        [0x3fff, 0..=0xfff, ..] => false, // documentation
        // All the rest is loopback, unspecified, unique-local, link-local, multicast, or not given out.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// An address that may not be reached. Does not say which: an answer of DNS from inside is none of the asker's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutOfReach {
    host: String,
}

impl fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no host of the public internet, and only such may be called from here", self.host)
    }
}

impl Error for OutOfReach {}

impl OutOfReach {
    /// Whether an error was caused by one.
    pub fn caused(error: &(dyn Error + 'static)) -> bool {
        let mut cause = Some(error);
        while let Some(one) = cause {
            if one.is::<Self>() {
                return true;
            }
            cause = one.source();
        }
        false
    }
}

/// Finds the addresses of a host.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// Those there are now. Cancel safe.
    ///
    /// # Errors
    /// The host is not known, or nobody answers.
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// As the system does it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// A client's resolver that hands on only what may be reached.
pub(super) struct Guarded {
    pub reach: Arc<Reach>,
    pub lookup: Arc<dyn Lookup>,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (reach, lookup) = (Arc::clone(&self.reach), Arc::clone(&self.lookup));
        Box::pin(async move {
            let found = lookup.lookup(name.as_str()).await?;
            if found.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address").into());
            }
            let allowed: Vec<SocketAddr> = found
                .into_iter()
                .filter(|address| reach.allows(*address))
                .map(|address| SocketAddr::new(address, 0))
                .collect();
            if allowed.is_empty() {
                return Err(OutOfReach { host: name.as_str().to_owned() }.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
#[path = "reach_tests.rs"]
mod tests;
