//! Tenants' resources: revisions, history, and who is told of what.

use sluicegate_store::resource::{Edit, Edited, MAX_HISTORY, Resource, ResourceId, ResourceKind};
use sluicegate_store::tenant::TenantName;

use crate::both::{both, both_places};

fn id(tenant: &str, name: &str) -> ResourceId {
    let tenant = TenantName::parse(tenant).unwrap();
    ResourceId { tenant, kind: ResourceKind::Pipeline, name: name.to_owned() }
}

fn create(document: &str) -> Edit {
    Edit::Create { document: document.to_owned(), is_paused: false }
}

fn update(document: &str) -> Edit {
    Edit::Update { document: document.to_owned() }
}

fn done(edited: Edited) -> Resource {
    match edited {
        Edited::Done(resource) => resource,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_change_names_the_revision_it_is_based_on() {
    both(async |store| {
        let orders = id("acme", "orders");
        let made = done(store.edit_resource(&orders, create("one"), None, "key:a").await.unwrap());
        assert_eq!((made.revision, made.document.as_str(), made.is_paused), (1, "one", false));
        assert_eq!(store.edit_resource(&orders, create("two"), None, "key:a").await.unwrap(), Edited::Exists);
        let changed = done(store.edit_resource(&orders, update("two"), Some(1), "key:a").await.unwrap());
        assert_eq!((changed.revision, changed.document.as_str()), (2, "two"));
        let late = store.edit_resource(&orders, update("three"), Some(1), "key:b").await.unwrap();
        assert_eq!(late, Edited::Conflict(2));
        assert!(done(store.edit_resource(&orders, Edit::Pause, None, "key:a").await.unwrap()).is_paused);
        assert_eq!(store.reader().resource(&orders).await.unwrap().map(|r| (r.revision, r.is_paused)), Some((3, true)));
        let nothing = store.edit_resource(&id("acme", "other"), Edit::Pause, None, "key:a").await.unwrap();
        assert_eq!(nothing, Edited::NotFound);
    })
    .await;
}

#[tokio::test]
async fn history_outlives_the_resource_and_revisions_never_repeat() {
    both(async |store| {
        let orders = id("acme", "orders");
        done(store.edit_resource(&orders, create("one"), None, "key:a").await.unwrap());
        done(store.edit_resource(&orders, Edit::Delete, Some(1), "key:b").await.unwrap());
        assert_eq!(store.reader().resource(&orders).await.unwrap(), None);
        let again = done(store.edit_resource(&orders, create("two"), None, "key:a").await.unwrap());
        assert_eq!(again.revision, 3);
        let history = store.reader().resource_history(&orders).await.unwrap();
        let told: Vec<_> =
            history.iter().map(|r| (r.revision, r.change.as_str(), r.document.as_str(), r.by.as_str())).collect();
        let expected = [(3, "created", "two", "key:a"), (2, "deleted", "one", "key:b"), (1, "created", "one", "key:a")];
        assert_eq!(told, expected);
        for number in 0..MAX_HISTORY + 5 {
            done(store.edit_resource(&orders, update(&number.to_string()), None, "key:a").await.unwrap());
        }
        assert_eq!(store.reader().resource_history(&orders).await.unwrap().len(), MAX_HISTORY);
    })
    .await;
}

#[tokio::test]
async fn a_tenant_sees_only_its_own() {
    both(async |store| {
        for (tenant, name) in [("acme", "a"), ("acme", "b"), ("acme-2", "a"), ("zeta", "c")] {
            done(store.edit_resource(&id(tenant, name), create(name), None, "key:a").await.unwrap());
        }
        let acme = TenantName::parse("acme").unwrap();
        let names = async |limit, after| {
            let page = store.reader().resources(&acme, ResourceKind::Pipeline, limit, after).await.unwrap();
            page.into_iter().map(|r| r.id.name).collect::<Vec<_>>()
        };
        assert_eq!(names(10, None).await, ["a", "b"]);
        assert_eq!(names(1, None).await, ["a"]);
        assert_eq!(names(10, Some("a")).await, ["b"]);
        assert_eq!(store.reader().resources(&acme, ResourceKind::Schema, 10, None).await.unwrap(), []);
        assert_eq!(store.reader().all_resources(Some(&acme)).await.unwrap().len(), 2);
        assert_eq!(store.reader().all_resources(None).await.unwrap().len(), 4);
    })
    .await;
}

#[tokio::test]
async fn two_who_make_the_same_thing_at_once_make_one() {
    both_places(async |fresh| {
        let stores = match fresh.name {
            "SQLite" => vec![fresh.open().await],
            _ => vec![fresh.open().await, fresh.open().await],
        };
        let mut news = stores[0].resources_changed();
        let orders = id("acme", "orders");
        let making = (0..20).map(|number| {
            let store = &stores[number % stores.len()];
            let (orders, document) = (&orders, number.to_string());
            async move { store.edit_resource(orders, create(&document), None, "key:a").await.unwrap() }
        });
        let edited = futures_util::future::join_all(making).await;
        let made = edited.iter().filter(|edited| matches!(edited, Edited::Done(_))).count();
        assert_eq!((made, edited.iter().filter(|edited| **edited == Edited::Exists).count()), (1, 19));
        news.changed().await.unwrap();
        for store in stores {
            store.close().await;
        }
    })
    .await;
}
