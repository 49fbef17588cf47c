//! Tenants, keys and the audit.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sluicegate_engine::message::now_ms;
use sluicegate_store::api_key::{ApiKey, Bootstrap, KeyError, KeyText, NewKey, PresentedKey, Refused};
use sluicegate_store::audit::{AuditEntry, AuditFilter, AuditOutcome, MAX_DOCUMENT_BYTES};
use sluicegate_store::queue::{Queues, Settings};
use sluicegate_store::tenant::{Grants, Quotas, Realm, TenantError, TenantName, TenantUpdate};
use sluicegate_store::{Store, StoreError, testing};

use crate::both::{Fresh, both, both_places};

const HOUR: Duration = Duration::from_secs(3_600);

fn tenant(name: &str) -> TenantName {
    TenantName::parse(name).unwrap()
}

fn realm(name: &str) -> Realm {
    Realm::Tenant(tenant(name))
}

async fn make(store: &Store, name: &str) {
    store.create_tenant(&tenant(name), "", Quotas::default(), Grants::default()).await.unwrap();
}

fn new_key(realm: Realm) -> NewKey {
    NewKey { realm, name: "a key".to_owned(), scopes: vec!["read".to_owned(), "admin".to_owned()], expires_at_ms: None }
}

async fn check(store: &Store, text: &KeyText) -> Result<ApiKey, Refused> {
    let presented = PresentedKey::parse(text.expose()).unwrap();
    let stored = store.reader().stored_keys(vec![presented.prefix.clone()]).await.unwrap().remove(0);
    stored.check(&presented, now_ms()).map(|()| stored.key)
}

#[tokio::test]
async fn a_tenant_is_made_changed_and_deleted() {
    both(async |store| {
        let name = tenant("acme");
        let grants = Grants { targets: ["eu".to_owned()].into(), ..Grants::default() };
        let made = store.create_tenant(&name, "Acme & Söhne", Quotas::default(), grants).await.unwrap();
        assert_eq!(store.reader().tenant(&name).await, Ok(Some(made.clone())));
        let again = store.create_tenant(&name, "", Quotas::default(), Grants::default()).await;
        assert_eq!(again, Err(TenantError::Exists { tenant: "acme".to_owned() }));
        let quotas = Quotas { plugins: 3, ..Quotas::default() };
        let update = TenantUpdate { quotas: Some(quotas.clone()), ..TenantUpdate::default() };
        let changed = store.update_tenant(&name, Some(1), update.clone()).await.unwrap();
        assert_eq!((changed.revision, &changed.quotas, &changed.grants), (2, &quotas, &made.grants));
        let late = store.update_tenant(&name, Some(1), update).await;
        assert_eq!(late, Err(TenantError::Conflict { tenant: "acme".to_owned(), revision: 2 }));
        assert!(matches!(store.delete_tenant(&name).await, Err(TenantError::InUse { .. })), "it is not suspended");
        let suspend = TenantUpdate { suspended: Some(true), ..TenantUpdate::default() };
        assert!(store.update_tenant(&name, None, suspend.clone()).await.unwrap().suspended);
        store.create_api_key(new_key(realm("acme"))).await.unwrap();
        store.delete_tenant(&name).await.unwrap();
        assert_eq!(store.reader().tenant(&name).await, Ok(None));
        assert_eq!(store.reader().api_keys(&realm("acme"), 10, None).await.unwrap().items, []);
        let gone = store.update_tenant(&name, None, suspend).await;
        assert_eq!(gone, Err(TenantError::NotFound { tenant: "acme".to_owned() }));
        for reserved in ["operator", "default", "system"] {
            let made = store.create_tenant(&tenant(reserved), "", Quotas::default(), Grants::default()).await;
            assert!(matches!(made, Err(TenantError::Invalid { what: "name", .. })), "{reserved}: {made:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_tenant_that_owns_something_stays_and_its_neighbours_do_not_count() {
    both(async |store| {
        for name in ["acme", "acme2"] {
            make(store, name).await;
            let suspend = TenantUpdate { suspended: Some(true), ..TenantUpdate::default() };
            store.update_tenant(&tenant(name), None, suspend).await.unwrap();
        }
        // A queue under the tenant's name, as later versions of the API make it.
        Queues::new(Arc::clone(store)).create("orders", &Settings::default()).await.unwrap();
        testing::execute(store, "UPDATE queues SET name = 'acme2/orders' WHERE name = 'orders'").await.unwrap();
        let refused = store.delete_tenant(&tenant("acme2")).await.unwrap_err();
        assert!(refused.to_string().contains("still has queues"), "{refused}");
        store.delete_tenant(&tenant("acme")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn tenants_are_listed_in_pages() {
    both(async |store| {
        for name in ["c", "a", "b-1", "b"] {
            make(store, name).await;
        }
        let first = store.reader().tenants(3, None).await.unwrap();
        let names: Vec<&str> = first.items.iter().map(|tenant| tenant.name.as_str()).collect();
        assert_eq!((names, first.next.as_deref()), (vec!["a", "b", "b-1"], Some("b-1")));
        let rest = store.reader().tenants(3, first.next.as_deref()).await.unwrap();
        assert_eq!((rest.items.len(), rest.next), (1, None));
    })
    .await;
}

#[tokio::test]
async fn a_key_is_good_until_it_is_rotated_revoked_or_expired() {
    both(async |store| {
        make(store, "acme").await;
        let (key, text) = store.create_api_key(new_key(realm("acme"))).await.unwrap();
        assert_eq!(check(store, &text).await, Ok(key.clone()));
        let others = KeyText::random().unwrap();
        let forged = KeyText::parse(&text.expose().replace(&text.expose()[17..], &others.expose()[17..])).unwrap();
        assert_eq!(check(store, &forged).await, Err(Refused::Wrong));

        let (_, second) = store.rotate_api_key(&realm("acme"), &key.prefix, HOUR).await.unwrap();
        assert!(check(store, &text).await.is_ok() && check(store, &second).await.is_ok(), "both, in the time of grace");
        let (_, third) = store.rotate_api_key(&realm("acme"), &key.prefix, Duration::ZERO).await.unwrap();
        assert_eq!(check(store, &text).await, Err(Refused::Wrong));
        assert_eq!(check(store, &second).await, Err(Refused::Wrong));
        assert!(check(store, &third).await.is_ok());

        for other in [Realm::Operator, realm("other")] {
            let not_found = KeyError::NotFound { prefix: key.prefix.clone() };
            assert_eq!(store.revoke_api_key(&other, &key.prefix).await, Err(not_found.clone()));
            assert_eq!(store.rotate_api_key(&other, &key.prefix, HOUR).await.unwrap_err(), not_found);
        }
        assert!(check(store, &third).await.is_ok());
        store.revoke_api_key(&realm("acme"), &key.prefix).await.unwrap();
        assert_eq!(check(store, &third).await, Err(Refused::Revoked));
        let revoked = store.rotate_api_key(&realm("acme"), &key.prefix, HOUR).await.unwrap_err();
        assert_eq!(revoked, KeyError::Revoked { prefix: key.prefix });

        let soon = NewKey { expires_at_ms: Some(now_ms() + 60_000), ..new_key(Realm::Operator) };
        let (key, text) = store.create_api_key(soon).await.unwrap();
        let presented = PresentedKey::parse(text.expose()).unwrap();
        let stored = store.reader().stored_keys(vec![key.prefix]).await.unwrap().remove(0);
        assert_eq!(stored.check(&presented, now_ms()), Ok(()));
        assert_eq!(stored.check(&presented, now_ms() + 60_000), Err(Refused::Expired));
    })
    .await;
}

#[tokio::test]
async fn what_is_stored_of_a_key_is_not_the_key() {
    both(async |store| {
        let (key, text) = store.create_api_key(new_key(Realm::Operator)).await.unwrap();
        let secret = text.expose().rsplit('_').next().unwrap();
        let like = format!("SELECT count(*) FROM api_keys WHERE name LIKE '%{secret}%' OR scopes LIKE '%{secret}%'");
        assert_eq!(testing::select(store, &like).await, Ok(0));
        assert_eq!(testing::select(store, "SELECT length(hash) FROM api_keys").await, Ok(32));
        let stored = store.reader().stored_keys(vec![key.prefix]).await.unwrap();
        assert!(!format!("{stored:?} {text:?}").contains(secret));
        for wrong in [
            NewKey { scopes: Vec::new(), ..new_key(Realm::Operator) },
            NewKey { scopes: vec!["a b".to_owned()], ..new_key(Realm::Operator) },
            NewKey { name: "two\nlines".to_owned(), ..new_key(Realm::Operator) },
            NewKey { expires_at_ms: Some(1), ..new_key(Realm::Operator) },
        ] {
            assert!(matches!(store.create_api_key(wrong).await, Err(KeyError::Invalid { .. })));
        }
        let nobody = store.create_api_key(new_key(realm("nobody"))).await.unwrap_err();
        assert_eq!(nobody, KeyError::TenantNotFound { tenant: "nobody".to_owned() });
    })
    .await;
}

#[tokio::test]
async fn keys_are_listed_for_their_realm_and_looked_up_by_the_hundred() {
    both(async |store| {
        make(store, "acme").await;
        let mut prefixes = Vec::new();
        for _ in 0..70 {
            prefixes.push(store.create_api_key(new_key(realm("acme"))).await.unwrap().0.prefix);
        }
        let (operators, _) = store.create_api_key(new_key(Realm::Operator)).await.unwrap();
        let found = store.reader().stored_keys(prefixes.clone()).await.unwrap();
        assert_eq!(found.len(), 70);
        let page = store.reader().api_keys(&realm("acme"), 50, None).await.unwrap();
        let rest = store.reader().api_keys(&realm("acme"), 50, page.next.as_deref()).await.unwrap();
        assert_eq!((page.items.len(), rest.items.len(), rest.next), (50, 20, None));
        assert_eq!(
            store.reader().api_keys(&Realm::Operator, 50, None).await.unwrap().items,
            std::slice::from_ref(&operators)
        );
        store.note_api_key_use(vec![(operators.prefix.clone(), 5), (operators.prefix.clone(), 7)]).await.unwrap();
        store.note_api_key_use(vec![(operators.prefix.clone(), 6)]).await.unwrap();
        let used = store.reader().stored_keys(vec![operators.prefix]).await.unwrap();
        assert_eq!(used[0].key.last_used_ms, Some(7), "the latest use counts");
    })
    .await;
}

#[tokio::test]
async fn every_change_changes_the_version_and_use_does_not() {
    both(async |store| {
        let version = async || store.reader().identity_version().await.unwrap();
        let mut before = version().await;
        let mut expect_other = async |what: &str| {
            let now = version().await;
            assert_ne!(before, now, "{what}");
            before = now;
        };
        make(store, "acme").await;
        expect_other("a tenant").await;
        let (key, _) = store.create_api_key(new_key(realm("acme"))).await.unwrap();
        expect_other("a key").await;
        store.rotate_api_key(&realm("acme"), &key.prefix, HOUR).await.unwrap();
        expect_other("a rotation").await;
        store.note_api_key_use(vec![(key.prefix.clone(), now_ms())]).await.unwrap();
        let used = version().await;
        store.revoke_api_key(&realm("acme"), &key.prefix).await.unwrap();
        expect_other("a revocation").await;
        assert_ne!(used, version().await);
        store.update_tenant(&tenant("acme"), None, TenantUpdate::default()).await.unwrap();
        expect_other("an update").await;
    })
    .await;
}

#[tokio::test]
async fn the_first_key_is_made_once() {
    both_places(async |fresh| {
        let stores = match fresh.name {
            "PostgreSQL" => vec![fresh.open().await, fresh.open().await, fresh.open().await],
            _ => vec![fresh.open().await],
        };
        let stores: Vec<Arc<Store>> = stores.into_iter().map(Arc::new).collect();
        let mut making = tokio::task::JoinSet::new();
        for number in 0..9 {
            let store = Arc::clone(&stores[number % stores.len()]);
            making.spawn(async move {
                let text = KeyText::random().unwrap();
                store.bootstrap_api_key(&text, false, &["admin"]).await.unwrap()
            });
        }
        let made: Vec<Bootstrap> = making.join_all().await;
        let keys: Vec<&ApiKey> = made
            .iter()
            .filter_map(|made| match made {
                Bootstrap::Made(key) => Some(key),
                Bootstrap::NotNeeded => None,
            })
            .collect();
        assert_eq!(keys.len(), 1, "{made:?}");
        let store = &stores[0];
        // A given one is made beside it, once, and stays revoked.
        let given = KeyText::random().unwrap();
        let Bootstrap::Made(key) = store.bootstrap_api_key(&given, true, &["admin"]).await.unwrap() else {
            panic!("made")
        };
        assert_eq!(store.bootstrap_api_key(&given, true, &["admin"]).await, Ok(Bootstrap::NotNeeded));
        store.revoke_api_key(&Realm::Operator, &key.prefix).await.unwrap();
        assert_eq!(store.bootstrap_api_key(&given, true, &["admin"]).await, Ok(Bootstrap::NotNeeded));
        assert_eq!(check(store, &given).await, Err(Refused::Revoked));
        // Once nobody can manage keys, there is a first one again.
        store.revoke_api_key(&Realm::Operator, &keys[0].prefix).await.unwrap();
        let again = store.bootstrap_api_key(&KeyText::random().unwrap(), false, &["admin"]).await.unwrap();
        assert!(matches!(again, Bootstrap::Made(_)));
        for store in stores {
            store.close().await;
        }
    })
    .await;
}

#[tokio::test]
async fn other_gateways_hear_of_a_revocation_within_a_second() {
    let fresh = Fresh::postgres().await;
    let (one, other) = (fresh.open().await, fresh.open().await);
    let mut news = other.api_key_news();
    let heard = async |news: &mut tokio::sync::watch::Receiver<u64>| {
        tokio::time::timeout(Duration::from_secs(1), news.changed()).await.is_ok()
    };
    // Its ear connects in the background; from then on it hears everything.
    sluicegate_tests::eventually("the other one listens", Duration::from_secs(10), async || {
        one.create_api_key(new_key(Realm::Operator)).await?;
        anyhow::ensure!(heard(&mut news).await, "nothing heard");
        Ok(())
    })
    .await;
    let (key, text) = one.create_api_key(new_key(Realm::Operator)).await.unwrap();
    assert!(check(&other, &text).await.is_ok());
    news.mark_unchanged();
    one.revoke_api_key(&Realm::Operator, &key.prefix).await.unwrap();
    assert!(heard(&mut news).await);
    assert_eq!(check(&other, &text).await, Err(Refused::Revoked));
    one.close().await;
    other.close().await;
}

fn entry(at_ms: u64, realm: Realm, action: &str, outcome: AuditOutcome) -> AuditEntry {
    AuditEntry {
        at_ms,
        actor: "key:abc".to_owned(),
        realm,
        action: action.to_owned(),
        resource: "/keys/abc".to_owned(),
        before: Some(json!({ "a": 1 })),
        after: None,
        outcome,
        address: Some("2001:db8::1".parse().unwrap()),
        repeats: 0,
    }
}

#[tokio::test]
async fn the_audit_is_read_by_what_it_says_in_pages_newest_first() {
    both(async |store| {
        let first = entry(1_000, Realm::Operator, "key.create", AuditOutcome::Done);
        let entries = vec![
            first.clone(),
            entry(2_000, realm("acme"), "key.revoke", AuditOutcome::Done),
            entry(3_000, realm("acme"), "queue.create", AuditOutcome::Denied),
            entry(4_000, realm("other"), "key.create", AuditOutcome::Failed),
        ];
        store.append_audit(entries.clone()).await.unwrap();
        let read = async |filter: AuditFilter| -> Vec<u64> {
            let page = store.reader().audit(&filter, 100, None).await.unwrap();
            page.items.iter().map(|record| record.entry.at_ms).collect()
        };
        let all = AuditFilter::default();
        assert_eq!(read(all.clone()).await, [4_000, 3_000, 2_000, 1_000]);
        let oldest = store.reader().audit(&all, 100, None).await.unwrap().items.pop().unwrap();
        assert_eq!(oldest.entry, first);
        assert_eq!(read(AuditFilter { realm: Some(realm("acme")), ..all.clone() }).await, [3_000, 2_000]);
        assert_eq!(read(AuditFilter { realm: Some(Realm::Operator), ..all.clone() }).await, [1_000]);
        assert_eq!(read(AuditFilter { action: Some("key.".to_owned()), ..all.clone() }).await, [4_000, 2_000, 1_000]);
        assert_eq!(read(AuditFilter { action: Some("key.create".to_owned()), ..all.clone() }).await, [4_000, 1_000]);
        assert_eq!(read(AuditFilter { outcome: Some(AuditOutcome::Denied), ..all.clone() }).await, [3_000]);
        assert_eq!(
            read(AuditFilter { since_ms: Some(2_000), until_ms: Some(4_000), ..all.clone() }).await,
            [3_000, 2_000]
        );
        assert_eq!(read(AuditFilter { actor: Some("nobody".to_owned()), ..all.clone() }).await, Vec::<u64>::new());
        let page = store.reader().audit(&all, 3, None).await.unwrap();
        let rest = store.reader().audit(&all, 3, page.next.as_deref()).await.unwrap();
        assert_eq!((page.items.len(), rest.items.len(), rest.next), (3, 1, None));
        let wrong = store.reader().audit(&all, 3, Some("x")).await;
        assert!(matches!(wrong, Err(StoreError::PageToken { .. })), "{wrong:?}");
    })
    .await;
}

#[tokio::test]
async fn the_audit_is_only_added_to_and_age_alone_removes() {
    both(async |store| {
        let done = |at_ms| entry(at_ms, Realm::Operator, "key.create", AuditOutcome::Done);
        store.append_audit((1..=1_200).map(done).collect()).await.unwrap();
        let changed = testing::execute(store, "UPDATE audit SET actor = 'somebody else'").await;
        assert!(matches!(changed, Err(StoreError::Database { .. })), "{changed:?}");
        let mut steps = 1;
        while store.trim_audit(1_101).await.unwrap() {
            steps += 1;
        }
        assert_eq!(steps, 3, "500 at a time");
        assert_eq!(testing::select(store, "SELECT count(*) FROM audit").await, Ok(100));
        let large = AuditEntry {
            after: Some("x".repeat(MAX_DOCUMENT_BYTES).into()),
            actor: "a\nb\0c".to_owned(),
            ..done(5_000)
        };
        store.append_audit(vec![large]).await.unwrap();
        let newest = store.reader().audit(&AuditFilter::default(), 1, None).await.unwrap().items.remove(0).entry;
        assert_eq!((newest.actor.as_str(), newest.after.unwrap()["leftOut"].clone()), ("a b c", json!(true)));
    })
    .await;
}
