//! Uploaded plugins in either database: versions, components, rollouts, news.

use bytes::Bytes;
use serde_json::json;
use sluicegate_store::Store;
use sluicegate_store::plugin::{
    Mode, NewVersion, Retired, RolloutChange, RolloutChanged, Uploaded, Version, VersionState,
};

use crate::both::{both, both_places};

fn new(plugin: &str, digest: &str) -> NewVersion {
    NewVersion {
        plugin: plugin.to_owned(),
        digest: format!("sha256:{digest}"),
        component: Bytes::from(format!("component {digest}")),
        roles: vec!["route".to_owned()],
        imports: vec!["sluicegate:plugin/log@0.1.0".to_owned()],
        config_schema: json!({ "type": "object" }),
        by: "local".to_owned(),
    }
}

async fn add(store: &Store, plugin: &str, digest: &str) -> Version {
    match store.add_plugin_version(new(plugin, digest)).await.unwrap() {
        Uploaded::New(version) => version,
        other => panic!("{other:?}"),
    }
}

async fn start(store: &Store, version: u32, mode: Mode) -> RolloutChanged {
    store.change_rollout("acme/p", RolloutChange::Start { version, mode }, "key:k").await.unwrap()
}

async fn back(store: &Store, from: Option<u32>) -> RolloutChanged {
    store.change_rollout("acme/p", RolloutChange::Back { from, reason: "why".to_owned() }, "gateway").await.unwrap()
}

fn done(changed: RolloutChanged) -> (Option<u32>, Option<u32>, Mode) {
    match changed {
        RolloutChanged::Done(rollout) => (rollout.current, rollout.candidate, rollout.mode),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn versions_are_numbered_immutable_and_their_components_are_kept_once() {
    both(async |store| {
        let first = add(store, "acme/p", "a").await;
        assert_eq!((first.version, first.state, first.size_bytes), (1, VersionState::Uploaded, 11));
        let again = store.add_plugin_version(new("acme/p", "a")).await.unwrap();
        assert_eq!(again, Uploaded::Known(first.clone()));
        assert_eq!(add(store, "acme/p", "b").await.version, 2, "no number is lost by what was known");
        assert_eq!(add(store, "other/p", "a").await.version, 1);
        let reader = store.reader();
        let versions = reader.plugin_versions("acme/p").await.unwrap();
        assert_eq!(versions.iter().map(|one| one.version).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(reader.plugin_version("acme/p", 1).await.unwrap(), Some(first));
        assert_eq!(reader.plugin_version("acme/p", 3).await.unwrap(), None);
        let names = async |prefix| {
            let plugins = reader.plugins(prefix, None).await.unwrap();
            plugins.into_iter().map(|one| one.plugin).collect::<Vec<_>>()
        };
        assert_eq!(names(Some("acme/")).await, ["acme/p"]);
        assert_eq!(names(None).await, ["acme/p", "other/p"]);

        // The component goes with the last version that has it.
        assert_eq!(store.retire_plugin_version("acme/p", 1, "local").await.unwrap(), Retired::Done);
        assert!(reader.plugin_component("sha256:a").await.unwrap().is_some(), "the other's");
        assert_eq!(store.retire_plugin_version("other/p", 1, "local").await.unwrap(), Retired::Done);
        assert_eq!(reader.plugin_component("sha256:a").await.unwrap(), None);
        assert_eq!(store.retire_plugin_version("acme/p", 9, "local").await.unwrap(), Retired::NotFound);
        assert_eq!(store.retire_plugin_version("nobody/p", 1, "local").await.unwrap(), Retired::NotFound);
        assert_eq!(add(store, "acme/p", "a").await.version, 3, "a retired version does not come back");
    })
    .await;
}

#[tokio::test]
async fn a_rollout_goes_on_and_back_and_says_why() {
    both(async |store| {
        for digest in ["a", "b", "c"] {
            add(store, "acme/p", digest).await;
        }
        assert_eq!(start(store, 1, Mode::Shadow).await, RolloutChanged::NoCurrent);
        assert_eq!(start(store, 9, Mode::All).await, RolloutChanged::NotFound);
        assert_eq!(back(store, None).await, RolloutChanged::NothingBefore);
        assert_eq!(done(start(store, 1, Mode::All).await), (Some(1), None, Mode::All));
        assert_eq!(done(start(store, 2, Mode::Percent(10)).await), (Some(1), Some(2), Mode::Percent(10)));
        assert_eq!(store.retire_plugin_version("acme/p", 2, "local").await.unwrap(), Retired::InUse);
        // Whoever means another version than the one that runs changes nothing.
        assert!(matches!(back(store, Some(1)).await, RolloutChanged::Unchanged(_)));
        assert_eq!(done(back(store, Some(2)).await), (Some(1), None, Mode::All));
        assert_eq!(done(start(store, 2, Mode::All).await), (Some(2), None, Mode::All));
        assert_eq!(done(start(store, 3, Mode::All).await), (Some(3), None, Mode::All));
        assert_eq!(done(back(store, None).await), (Some(2), None, Mode::All));
        assert_eq!(done(back(store, None).await), (Some(1), None, Mode::All));
        assert_eq!(back(store, None).await, RolloutChanged::NothingBefore);
        let events = store.reader().rollout_events("acme/p").await.unwrap();
        assert_eq!((events.len(), events[0].by.as_str()), (7, "gateway"));
        assert_eq!(events[0].what, "rolled back from version 2: why");
        let rollout = store.reader().rollout("acme/p").await.unwrap().unwrap();
        assert_eq!((rollout.revision, rollout.current), (events[0].revision, Some(1)));
    })
    .await;
}

#[tokio::test]
async fn quarantine_goes_back_to_the_last_good_version_or_leaves_none_to_run() {
    both(async |store| {
        for digest in ["a", "b", "c"] {
            add(store, "acme/p", digest).await;
        }
        let quarantine = async |version| {
            let change = RolloutChange::Quarantine { version, reason: "trapped 20 times".to_owned() };
            store.change_rollout("acme/p", change, "gateway").await.unwrap()
        };
        for version in 1..=3 {
            start(store, version, Mode::All).await;
        }
        assert_eq!(done(quarantine(2).await), (Some(3), None, Mode::All), "one that does not run");
        assert_eq!(done(quarantine(3).await), (Some(1), None, Mode::All), "past the quarantined one");
        assert_eq!(start(store, 3, Mode::All).await, RolloutChanged::Unusable(VersionState::Quarantined));
        assert_eq!(done(quarantine(1).await), (Some(1), None, Mode::All));
        let version = store.reader().plugin_version("acme/p", 1).await.unwrap().unwrap();
        assert_eq!((version.state, version.reason.as_deref()), (VersionState::Quarantined, Some("trapped 20 times")));
        assert!(matches!(quarantine(1).await, RolloutChanged::Unchanged(_)));
    })
    .await;
}

#[tokio::test]
async fn a_certification_is_kept_and_a_refusal_forbids_the_rollout() {
    both(async |store| {
        add(store, "acme/p", "a").await;
        let report = json!({ "messages": [] });
        assert!(store.certify_plugin_version("acme/p", 1, report.clone(), None).await.unwrap());
        let version = store.reader().plugin_version("acme/p", 1).await.unwrap().unwrap();
        assert_eq!((version.state, version.report), (VersionState::Certified, Some(report.clone())));
        let refused = Some("traps on message 1".to_owned());
        assert!(store.certify_plugin_version("acme/p", 1, report.clone(), refused).await.unwrap());
        assert_eq!(start(store, 1, Mode::All).await, RolloutChanged::Unusable(VersionState::Refused));
        assert!(!store.certify_plugin_version("acme/p", 2, report, None).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn another_gateway_hears_of_a_rollout_within_a_second() {
    both_places(async |fresh| {
        // SQLite has one gateway: its own news is what counts.
        let here = fresh.open().await;
        let there = if fresh.name == "PostgreSQL" { Some(fresh.open().await) } else { None };
        let listening = there.as_ref().unwrap_or(&here);
        add(&here, "acme/p", "a").await;
        let mut news = listening.plugin_news();
        let heard = async {
            loop {
                let rollout = listening.reader().rollout("acme/p").await.unwrap().unwrap();
                if rollout.current == Some(1) {
                    return;
                }
                news.changed().await.unwrap();
            }
        };
        let (_, heard) =
            tokio::join!(start(&here, 1, Mode::All), tokio::time::timeout(std::time::Duration::from_secs(1), heard));
        heard.expect("within a second");
        for store in [Some(here), there].into_iter().flatten() {
            store.close().await;
        }
    })
    .await;
}
