//! What each path of the API needs: the one table of it. A path that is missing here is the operator's admins' alone, so
//! that forgetting one shuts it.

use std::collections::HashMap;
use std::sync::LazyLock;

use http::Method;

use super::caller::Scope;

/// Who may use a path at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// The operator; for tenants it does not exist.
    Operator,
    /// Tenants as well, each for its own: its handlers ask the caller's realm.
    Everyone,
}

/// What a request does, for the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// Looks.
    Read,
    /// Looks as well, with a body that says at what.
    Ask,
    /// Sends messages, which have receipts of their own.
    Send,
    /// Changes something: it is written to the audit.
    Change,
}

/// What a path needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    /// In the audit.
    pub action: &'static str,
    /// `None`: any credential.
    pub scope: Option<Scope>,
    pub whom: Whom,
    pub does: Does,
}

/// Of what is not in the table.
pub(super) const UNLISTED: Rule =
    Rule { action: "unlisted", scope: Some(Scope::Admin), whom: Whom::Operator, does: Does::Change };

/// Of ingestion.
pub(super) const INGESTION: Rule =
    Rule { action: "ingest", scope: Some(Scope::Ingest), whom: Whom::Everyone, does: Does::Send };

/// Of `/metrics`, where it is protected.
pub(super) const METRICS: Rule =
    Rule { action: "metrics", scope: Some(Scope::Read), whom: Whom::Operator, does: Does::Read };

/// Method, path below `/api/v1` (or `/internal`), and what it needs.
type Row = (&'static str, &'static str, &'static str, Option<Scope>, Whom, Does);

/// All of them.
#[rustfmt::skip]
const TABLE: &[Row] = {
    use Does::{Ask, Change, Read, Send};
    use Scope::{Admin, Ingest, Redrive};
    use Whom::{Everyone, Operator};
    const SEE: Option<Scope> = Some(Scope::Read);
    &[
        ("GET",    "/whoami",                          "whoami",              None,          Everyone, Read),
        ("GET",    "/tenants",                         "tenant.list",         Some(Admin),   Operator, Read),
        ("POST",   "/tenants",                         "tenant.create",       Some(Admin),   Operator, Change),
        ("GET",    "/tenants/{name}",                  "tenant.show",         Some(Admin),   Operator, Read),
        ("PATCH",  "/tenants/{name}",                  "tenant.update",       Some(Admin),   Operator, Change),
        ("DELETE", "/tenants/{name}",                  "tenant.delete",       Some(Admin),   Operator, Change),
        ("POST",   "/tenants/{name}/suspend",          "tenant.suspend",      Some(Admin),   Operator, Change),
        ("POST",   "/tenants/{name}/resume",           "tenant.resume",       Some(Admin),   Operator, Change),
        ("GET",    "/keys",                            "key.list",            Some(Admin),   Everyone, Read),
        ("POST",   "/keys",                            "key.create",          Some(Admin),   Everyone, Change),
        ("GET",    "/keys/{prefix}",                   "key.show",            Some(Admin),   Everyone, Read),
        ("DELETE", "/keys/{prefix}",                   "key.revoke",          Some(Admin),   Everyone, Change),
        ("POST",   "/keys/{prefix}/rotate",            "key.rotate",          Some(Admin),   Everyone, Change),
        ("GET",    "/audit",                           "audit.list",          Some(Admin),   Everyone, Read),
        ("GET",    "/audit/export",                    "audit.export",        Some(Admin),   Everyone, Read),

        ("GET",    "/pipelines",                          "pipeline.list",        SEE,          Everyone, Read),
        ("POST",   "/pipelines",                          "pipeline.create",      Some(Admin),  Everyone, Change),
        ("GET",    "/pipelines/{name}",                   "pipeline.show",        SEE,          Everyone, Read),
        ("PUT",    "/pipelines/{name}",                   "pipeline.update",      Some(Admin),  Everyone, Change),
        ("DELETE", "/pipelines/{name}",                   "pipeline.delete",      Some(Admin),  Everyone, Change),
        ("GET",    "/pipelines/{name}/history",           "pipeline.history",     SEE,          Everyone, Read),
        ("POST",   "/pipelines/{name}/pause",             "pipeline.pause",       Some(Admin),  Everyone, Change),
        ("POST",   "/pipelines/{name}/resume",            "pipeline.resume",      Some(Admin),  Everyone, Change),
        ("GET",    "/subscriptions",                      "subscription.list",    SEE,          Everyone, Read),
        ("POST",   "/subscriptions",                      "subscription.create",  Some(Admin),  Everyone, Change),
        ("GET",    "/subscriptions/{name}",               "subscription.show",    SEE,          Everyone, Read),
        ("PUT",    "/subscriptions/{name}",               "subscription.update",  Some(Admin),  Everyone, Change),
        ("DELETE", "/subscriptions/{name}",               "subscription.delete",  Some(Admin),  Everyone, Change),
        ("GET",    "/subscriptions/{name}/history",       "subscription.history", SEE,          Everyone, Read),
        ("POST",   "/subscriptions/{name}/pause",         "subscription.pause",   Some(Admin),  Everyone, Change),
        ("POST",   "/subscriptions/{name}/resume",        "subscription.resume",  Some(Admin),  Everyone, Change),
        ("GET",    "/routes",                             "route.list",           SEE,          Everyone, Read),
        ("POST",   "/routes",                             "route.create",         Some(Admin),  Everyone, Change),
        ("GET",    "/routes/{name}",                      "route.show",           SEE,          Everyone, Read),
        ("PUT",    "/routes/{name}",                      "route.update",         Some(Admin),  Everyone, Change),
        ("DELETE", "/routes/{name}",                      "route.delete",         Some(Admin),  Everyone, Change),
        ("GET",    "/routes/{name}/history",              "route.history",        SEE,          Everyone, Read),
        ("POST",   "/routes/{name}/pause",                "route.pause",          Some(Admin),  Everyone, Change),
        ("POST",   "/routes/{name}/resume",               "route.resume",         Some(Admin),  Everyone, Change),
        ("GET",    "/schemas",                            "schema.list",          SEE,          Everyone, Read),
        ("POST",   "/schemas",                            "schema.create",        Some(Admin),  Everyone, Change),
        ("GET",    "/schemas/{name}",                     "schema.show",          SEE,          Everyone, Read),
        ("PUT",    "/schemas/{name}",                     "schema.update",        Some(Admin),  Everyone, Change),
        ("DELETE", "/schemas/{name}",                     "schema.delete",        Some(Admin),  Everyone, Change),
        ("GET",    "/schemas/{name}/history",             "schema.history",       SEE,          Everyone, Read),
        ("POST",   "/pipelines/validate",                 "pipeline.validate",    SEE,          Everyone, Ask),
        ("POST",   "/pipelines/{name}/dry-run",           "pipeline.try",         SEE,          Everyone, Ask),
        ("POST",   "/schemas/{name}/compatibility",       "schema.compare",       SEE,          Everyone, Ask),

        ("GET",    "/messages",                        "message.list",        SEE,           Operator, Read),
        ("GET",    "/messages/{id}",                   "message.show",        SEE,           Operator, Read),
        ("GET",    "/message-statistics",              "message.count",       SEE,           Operator, Read),
        ("GET",    "/dead-letters",                    "dead_letter.list",    SEE,           Operator, Read),
        ("GET",    "/dead-letters/groups",             "dead_letter.groups",  SEE,           Operator, Read),
        ("GET",    "/dead-letters/export",             "dead_letter.export",  SEE,           Operator, Read),
        ("POST",   "/dead-letters/purge",              "dead_letter.purge",   Some(Redrive), Operator, Change),
        ("POST",   "/dead-letters/redrive",            "redrive.create",      Some(Redrive), Operator, Change),
        ("GET",    "/dead-letters/{id}",               "dead_letter.show",    SEE,           Operator, Read),
        ("PATCH",  "/dead-letters/{id}",               "dead_letter.edit",    Some(Redrive), Operator, Change),
        ("DELETE", "/dead-letters/{id}",               "dead_letter.delete",  Some(Redrive), Operator, Change),
        ("GET",    "/redrives",                        "redrive.list",        SEE,           Operator, Read),
        ("GET",    "/redrives/{id}",                   "redrive.show",        SEE,           Operator, Read),
        ("GET",    "/redrives/{id}/items",             "redrive.items",       SEE,           Operator, Read),
        ("POST",   "/redrives/{id}/pause",             "redrive.pause",       Some(Redrive), Operator, Change),
        ("POST",   "/redrives/{id}/resume",            "redrive.resume",      Some(Redrive), Operator, Change),
        ("POST",   "/redrives/{id}/cancel",            "redrive.cancel",      Some(Redrive), Operator, Change),

        ("GET",    "/mq/metrics",                      "queue.metrics",       SEE,           Operator, Read),
        ("GET",    "/mq/metrics/topics",               "queue.metrics",       SEE,           Operator, Read),
        ("GET",    "/mq/metrics/consumers",            "queue.metrics",       SEE,           Operator, Read),
        ("GET",    "/mq/health",                       "queue.health",        SEE,           Operator, Read),
        ("GET",    "/mq/status",                       "queue.status",        SEE,           Operator, Read),
        ("POST",   "/mq/publish",                      "queue.publish",       Some(Ingest),  Operator, Send),
        ("POST",   "/mq/publish/batch",                "queue.publish",       Some(Ingest),  Operator, Send),
        ("POST",   "/mq/publish/delayed",              "queue.publish",       Some(Ingest),  Operator, Send),
        ("POST",   "/mq/publish/scheduled",            "queue.publish",       Some(Ingest),  Operator, Send),
        ("POST",   "/mq/topics/{name}/publish",        "queue.publish",       Some(Ingest),  Operator, Send),
        ("POST",   "/mq/queues/{name}/tasks",          "queue.publish",       Some(Ingest),  Operator, Send),
        ("GET",    "/mq/queues/{name}/tasks/{id}",     "queue.task",          SEE,           Operator, Read),
        ("GET",    "/mq/queues",                       "queue.list",          SEE,           Operator, Read),
        ("POST",   "/mq/queues",                       "queue.create",        Some(Admin),   Operator, Change),
        ("GET",    "/mq/queues/{name}",                "queue.show",          SEE,           Operator, Read),
        ("PUT",    "/mq/queues/{name}",                "queue.update",        Some(Admin),   Operator, Change),
        ("DELETE", "/mq/queues/{name}",                "queue.delete",        Some(Admin),   Operator, Change),
        ("POST",   "/mq/queues/{name}/purge",          "queue.purge",         Some(Admin),   Operator, Change),
        ("GET",    "/mq/queues/{name}/messages",       "queue.messages",      SEE,           Operator, Read),
        ("GET",    "/mq/queues/{name}/messages/{id}",  "queue.message",       SEE,           Operator, Read),
        ("DELETE", "/mq/queues/{name}/messages/{id}",  "queue.cancel",        Some(Admin),   Operator, Change),
        ("GET",    "/mq/topics",                       "queue.list",          SEE,           Operator, Read),
        ("POST",   "/mq/topics",                       "queue.create",        Some(Admin),   Operator, Change),
        ("GET",    "/mq/topics/{name}",                "queue.show",          SEE,           Operator, Read),
        ("PUT",    "/mq/topics/{name}",                "queue.update",        Some(Admin),   Operator, Change),
        ("DELETE", "/mq/topics/{name}",                "queue.delete",        Some(Admin),   Operator, Change),
        ("GET",    "/queue/status",                    "queue.status",        SEE,           Operator, Read),
        ("GET",    "/queue/health",                    "queue.health",        SEE,           Operator, Read),
        ("GET",    "/queue/metrics",                   "queue.metrics",       SEE,           Operator, Read),
        ("GET",    "/queue/consumer/lag",              "queue.metrics",       SEE,           Operator, Read),
        ("GET",    "/mq/subscriptions",                "subscription.list",   SEE,           Operator, Read),
        ("POST",   "/mq/subscriptions",                "subscription.create", Some(Admin),   Operator, Change),
        ("GET",    "/mq/subscriptions/{id}",           "subscription.show",   SEE,           Operator, Read),
        ("PUT",    "/mq/subscriptions/{id}",           "subscription.update", Some(Admin),   Operator, Change),
        ("DELETE", "/mq/subscriptions/{id}",           "subscription.delete", Some(Admin),   Operator, Change),
        ("POST",   "/mq/subscriptions/{id}/pause",     "subscription.pause",  Some(Admin),   Operator, Change),
        ("POST",   "/mq/subscriptions/{id}/resume",    "subscription.resume", Some(Admin),   Operator, Change),
        ("POST",   "/mq/subscriptions/{id}/reset",     "subscription.reset",  Some(Admin),   Operator, Change),
    ]
};

static BY_PATH: LazyLock<HashMap<&'static str, Vec<(&'static str, Rule)>>> = LazyLock::new(|| {
    let mut by_path: HashMap<&str, Vec<(&str, Rule)>> = HashMap::new();
    for (method, path, action, scope, whom, does) in TABLE.iter().copied() {
        by_path.entry(path).or_default().push((method, Rule { action, scope, whom, does }));
    }
    by_path
});

/// What `method` at `path`, with its variables named as in the router, needs.
pub(super) fn rule(method: &Method, path: &str) -> Rule {
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    let rules = BY_PATH.get(path).map(Vec::as_slice).unwrap_or_default();
    rules.iter().find(|(known, _)| *known == method).map_or(UNLISTED, |(_, rule)| *rule)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_path_is_listed_twice_and_what_is_not_listed_is_shut() {
        let mut seen = HashSet::new();
        for (method, path, ..) in TABLE {
            assert!(seen.insert((method, path)), "{method} {path}");
            assert_ne!(rule(&method.parse().expect("a method"), path).action, "unlisted");
        }
        assert_eq!(rule(&Method::DELETE, "/whoami"), UNLISTED);
        assert_eq!(rule(&Method::GET, "/new"), UNLISTED);
        assert_eq!(rule(&Method::HEAD, "/tenants").action, "tenant.list");
    }

    #[test]
    fn whatever_is_no_get_is_a_change_or_sends() {
        for (method, path, _, scope, _, does) in TABLE {
            assert_eq!(*method == "GET", *does == Does::Read, "{method} {path}");
            assert!(*method == "GET" || scope.is_some(), "{method} {path}");
        }
    }
}
