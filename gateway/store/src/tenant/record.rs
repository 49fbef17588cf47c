//! A tenant's record: what it may use, and how much of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::error::TenantError;
use super::realm::{MAX_NAME_CHARS, TenantName, is_name};

/// Longest name for people, in characters.
pub const MAX_DISPLAY_CHARS: usize = 200;
/// Most names in one list of [`Grants`].
pub const MAX_GRANTS: usize = 1_000;
/// Longest host of [`Grants::hosts`], its port included.
const MAX_HOST_CHARS: usize = 260;
/// Largest quota: what a database can keep.
const MAX_QUOTA: u64 = i64::MAX as u64;

/// Names no tenant can have: they mean the operator, and the key of its bodies.
pub const RESERVED_NAMES: [&str; 3] = ["operator", "default", "system"];

/// A tenant, as it was when it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its name, for ever.
    pub name: TenantName,
    /// Its name for people.
    pub display: String,
    /// Whether its credentials are refused and its pipelines are to rest.
    pub suspended: bool,
    /// 1 at first, one more with each change.
    pub revision: u64,
    /// How much it may use.
    pub quotas: Quotas,
    /// What of the operator's it may use.
    pub grants: Grants,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub updated_at_ms: u64,
}

/// How much a tenant may use. 0 means nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Quotas {
    /// Messages that it sends, in a second.
    pub messages_per_second: u64,
    /// Bytes of their bodies, in a second.
    pub bytes_per_second: u64,
    /// Messages between being read and being settled, in all its pipelines.
    pub in_flight: u64,
    /// Accepted messages that wait, in all its pipelines.
    pub backlog_messages: u64,
    /// Bytes of bodies kept for it: queues, inboxes, dead letters.
    pub stored_bytes: u64,
    /// Queues.
    pub queues: u64,
    /// Pipelines and subscriptions.
    pub pipelines: u64,
    /// Plugins.
    pub plugins: u64,
    /// CPU time of its plugins in a minute, in milliseconds.
    pub plugin_cpu_ms_per_minute: u64,
}

impl Default for Quotas {
    /// A tenant of a hundred on a machine of two cores.
    fn default() -> Self {
        Self {
            messages_per_second: 1_000,
            bytes_per_second: 10 << 20,
            in_flight: 256,
            backlog_messages: 100_000,
            stored_bytes: 1 << 30,
            queues: 100,
            pipelines: 50,
            plugins: 50,
            plugin_cpu_ms_per_minute: 30_000,
        }
    }
}

impl Quotas {
    /// # Errors
    /// A number no database keeps.
    pub(super) fn check(&self) -> Result<(), TenantError> {
        let all = [
            self.messages_per_second,
            self.bytes_per_second,
            self.in_flight,
            self.backlog_messages,
            self.stored_bytes,
            self.queues,
            self.pipelines,
            self.plugins,
            self.plugin_cpu_ms_per_minute,
        ];
        match all.iter().all(|quota| *quota <= MAX_QUOTA) {
            true => Ok(()),
            false => Err(TenantError::Invalid { what: "quotas", text: format!("a quota is at most {MAX_QUOTA}") }),
        }
    }
}

/// What of the operator's a tenant may use, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Grants {
    /// Targets of the operator's files, for its pipelines.
    pub targets: BTreeSet<String>,
    /// Sources of the operator's files.
    pub sources: BTreeSet<String>,
    /// Hosts its plugins may call, in lower case, with a port unless it is the scheme's own: `api.example.org:8443`.
    pub hosts: BTreeSet<String>,
    /// Secrets of the operator's its plugins may read.
    pub secrets: BTreeSet<String>,
}

impl Grants {
    /// # Errors
    /// Names that are none, or too many.
    pub(super) fn check(&self) -> Result<(), TenantError> {
        let hint =
            format!("a name has 1 to {MAX_NAME_CHARS} of a-z, 0-9, `-` and `_`, and begins with a letter or digit");
        let lists = [
            ("grants.targets", &self.targets),
            ("grants.sources", &self.sources),
            ("grants.hosts", &self.hosts),
            ("grants.secrets", &self.secrets),
        ];
        for (what, names) in lists {
            if names.len() > MAX_GRANTS {
                return Err(TenantError::Invalid { what, text: format!("it has at most {MAX_GRANTS} names") });
            }
            let is_hosts = what == "grants.hosts";
            if let Some(wrong) = names.iter().find(|name| if is_hosts { !is_host(name) } else { !is_name(name) }) {
                let shown: String = wrong.chars().take(MAX_NAME_CHARS).collect();
                let hint =
                    if is_hosts { "a host is written `api.example.org` or `api.example.org:8443`" } else { &hint };
                return Err(TenantError::Invalid { what, text: format!("`{shown}` is none; {hint}") });
            }
        }
        Ok(())
    }
}

/// A host name with or without a port, in lower case, without a scheme.
fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "1"));
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    text.len() <= MAX_HOST_CHARS
        && host.chars().all(plain)
        && host.starts_with(|c: char| c.is_ascii_alphanumeric())
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// # Errors
/// Longer than [`MAX_DISPLAY_CHARS`], or not one line.
pub(super) fn check_display(display: &str) -> Result<(), TenantError> {
    if display.chars().count() <= MAX_DISPLAY_CHARS && !display.chars().any(char::is_control) {
        return Ok(());
    }
    let text = format!("it has at most {MAX_DISPLAY_CHARS} characters, and none of them is a control character");
    Err(TenantError::Invalid { what: "display", text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_gateway_has_kept_and_what_a_newer_one_has_can_be_read() {
        let quotas: Quotas = serde_json::from_str(r#"{"plugins": 3, "ofTomorrow": true}"#).expect("quotas");
        assert_eq!(quotas, Quotas { plugins: 3, ..Quotas::default() });
        let grants: Grants = serde_json::from_str("{}").expect("grants");
        assert_eq!(grants, Grants::default());
    }

    #[test]
    fn names_in_grants_are_names() {
        let with = |hosts: &[&str], targets: &[&str]| Grants {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            targets: targets.iter().map(|name| (*name).to_owned()).collect(),
            ..Grants::default()
        };
        assert_eq!(with(&["api.example.org", "a:8443"], &["eu"]).check(), Ok(()));
        for host in ["", "http://a", "A.org", "a:0", "a:", "a/b", "-a", "a:99999", "a b"] {
            assert!(with(&[host], &[]).check().is_err(), "{host}");
        }
        for target in ["", "a/b", "A"] {
            assert!(with(&[], &[target]).check().is_err(), "{target}");
        }
        let many = Grants { secrets: (0..=MAX_GRANTS).map(|n| format!("s{n}")).collect(), ..Grants::default() };
        assert!(many.check().is_err());
    }
}
