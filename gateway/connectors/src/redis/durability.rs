//! Whether the server keeps what it has confirmed: a fact of the running server, so it is looked up at connect.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;

use super::server::Server;

/// Logs a warning for each setting under which a crash of the server or a full memory loses entries. A server that does
/// not tell (CONFIG is often forbidden on managed ones) is believed to be safe.
pub(super) async fn warn_if_unsafe(server: &Server, connection: &mut MultiplexedConnection) {
    let mut pipeline = redis::pipe();
    for name in ["appendonly", "appendfsync", "maxmemory", "maxmemory-policy"] {
        pipeline.cmd("CONFIG").arg("GET").arg(name);
    }
    let answers: Result<Vec<HashMap<String, String>>, _> = pipeline.query_async(connection).await;
    match answers {
        Ok(answers) => {
            for risk in risks(&answers.into_iter().flatten().collect()) {
                tracing::warn!(server = %server.place, "{risk}");
            }
        }
        Err(error) => tracing::debug!(server = %server.place, "whether Redis keeps its data is not known: {error}"),
    }
}

fn risks(settings: &HashMap<String, String>) -> Vec<&'static str> {
    let is = |name: &str, value: &str| settings.get(name).is_some_and(|found| found == value);
    let mut risks = Vec::new();
    if is("appendonly", "no") {
        risks.push("Redis runs without AOF: a crash of the server loses confirmed entries; set appendonly yes");
    } else if is("appendfsync", "everysec") {
        risks.push("Redis syncs its AOF once a second: a power failure loses up to a second of confirmed entries; set appendfsync always");
    } else if is("appendfsync", "no") {
        risks.push(
            "Redis never syncs its AOF by itself: a power failure loses confirmed entries; set appendfsync always",
        );
    }
    let evicts = settings.get("maxmemory-policy").is_some_and(|policy| policy.starts_with("allkeys"));
    if evicts && !is("maxmemory", "0") {
        risks.push("Redis evicts any key when its memory is full, streams too; set maxmemory-policy noeviction");
    }
    risks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn risks_of(settings: &[(&str, &str)]) -> usize {
        risks(&settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()).len()
    }

    #[test]
    fn every_unsafe_setting_is_a_risk_and_safe_or_unknown_ones_are_not() {
        assert_eq!(risks_of(&[("appendonly", "no"), ("appendfsync", "everysec")]), 1);
        assert_eq!(risks_of(&[("appendonly", "yes"), ("appendfsync", "everysec")]), 1);
        assert_eq!(risks_of(&[("appendonly", "yes"), ("appendfsync", "no")]), 1);
        assert_eq!(risks_of(&[("maxmemory", "100"), ("maxmemory-policy", "allkeys-lru")]), 1);
        assert_eq!(risks_of(&[("maxmemory", "0"), ("maxmemory-policy", "allkeys-lru")]), 0);
        assert_eq!(
            risks_of(&[("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", "noeviction")]),
            0
        );
        assert_eq!(risks_of(&[]), 0);
    }
}
