//! Key-value state of plugins.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluicegate_store::state::{Changed, ENTRY_BYTES, Edit, StateSpace, StateUsage};
use sluicegate_store::tenant::{Realm, TenantName};
use sluicegate_store::{Store, testing};
use sluicegate_tests::eventually;

use crate::both::{Fresh, both, both_places};

const MAX: u64 = 1 << 20;

fn operators(plugin: &str) -> StateSpace {
    StateSpace::new(Realm::Operator, plugin)
}

fn tenants(tenant: &str, plugin: &str) -> StateSpace {
    StateSpace::new(Realm::Tenant(TenantName::parse(tenant).unwrap()), plugin)
}

fn set(value: &str) -> Edit {
    Edit::Set(Bytes::copy_from_slice(value.as_bytes()), None)
}

fn swap(expected: Option<&str>, value: Option<&str>) -> Edit {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Edit::CompareAndSet { expected: expected.map(bytes), value: value.map(bytes), ttl: None }
}

async fn change(store: &Store, space: &StateSpace, key: &str, edit: Edit) -> Changed {
    store.change_state(space, key, edit, MAX).await.unwrap()
}

async fn value(store: &Store, space: &StateSpace, key: &str) -> Option<String> {
    let value = store.state_value(space, key).await.unwrap();
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// What the space counts is what its rows come to.
async fn counted(store: &Store, space: &StateSpace) -> StateUsage {
    let usage = store.state_usage(space).await.unwrap();
    let sum =
        testing::select(store, "SELECT CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) FROM plugin_state").await.unwrap();
    let spaces = testing::select(store, "SELECT CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) FROM plugin_state_spaces")
        .await
        .unwrap();
    assert_eq!(sum, spaces);
    usage
}

#[tokio::test]
async fn values_are_set_replaced_and_deleted() {
    both(async |store| {
        let space = operators("p");
        assert_eq!(value(store, &space, "k").await, None);
        assert_eq!(change(store, &space, "k", Edit::Delete).await, Changed::Not);
        assert_eq!(change(store, &space, "k", set("one")).await, Changed::Done);
        assert_eq!(change(store, &space, "k", set("three")).await, Changed::Done);
        assert_eq!(value(store, &space, "k").await.as_deref(), Some("three"));
        assert_eq!(counted(store, &space).await, StateUsage { keys: 1, size_bytes: 6 + ENTRY_BYTES });
        assert_eq!(change(store, &space, "k", Edit::Delete).await, Changed::Done);
        assert_eq!(value(store, &space, "k").await, None);
        assert_eq!(counted(store, &space).await, StateUsage::default());
    })
    .await;
}

#[tokio::test]
async fn spaces_see_nothing_of_each_other() {
    both(async |store| {
        let spaces = [operators("p"), operators("q"), tenants("acme", "p"), tenants("bravo", "p")];
        for (number, space) in spaces.iter().enumerate() {
            assert_eq!(value(store, space, "k").await, None);
            change(store, space, "k", set(&number.to_string())).await;
        }
        for (number, space) in spaces.iter().enumerate() {
            assert_eq!(value(store, space, "k").await, Some(number.to_string()));
            assert_eq!(counted(store, space).await.keys, 1);
        }
        change(store, &spaces[2], "k", Edit::Delete).await;
        assert_eq!(value(store, &spaces[3], "k").await.as_deref(), Some("3"));
    })
    .await;
}

#[tokio::test]
async fn a_value_is_changed_only_from_what_is_expected() {
    both(async |store| {
        let space = operators("p");
        assert_eq!(change(store, &space, "k", swap(Some("a"), Some("b"))).await, Changed::Not);
        assert_eq!(change(store, &space, "k", swap(None, None)).await, Changed::Done);
        assert_eq!(change(store, &space, "k", swap(None, Some("a"))).await, Changed::Done);
        assert_eq!(change(store, &space, "k", swap(None, Some("b"))).await, Changed::Not);
        assert_eq!(change(store, &space, "k", swap(Some("a"), Some("b"))).await, Changed::Done);
        assert_eq!(value(store, &space, "k").await.as_deref(), Some("b"));
        assert_eq!(change(store, &space, "k", swap(Some("b"), None)).await, Changed::Done);
        assert_eq!(counted(store, &space).await, StateUsage::default());
    })
    .await;
}

#[tokio::test]
async fn of_many_that_want_a_key_one_gets_it_and_no_addition_is_lost() {
    both(async |store| {
        let all = (0..100).map(|number| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                let space = operators("p");
                let won = change(&store, &space, "lock", swap(None, Some(&number.to_string()))).await;
                change(&store, &space, "sum", Edit::Increment(number, None)).await;
                won == Changed::Done
            })
        });
        let mut winners = 0;
        for one in all.collect::<Vec<_>>() {
            winners += usize::from(one.await.unwrap());
        }
        assert_eq!(winners, 1);
        assert_eq!(value(store, &operators("p"), "sum").await.as_deref(), Some("4950"));
    })
    .await;
}

#[tokio::test]
async fn several_gateways_change_the_same_keys_in_any_order() {
    let fresh = Fresh::postgres().await;
    let gateways = [Arc::new(fresh.open().await), Arc::new(fresh.open().await)];
    let spaces: Vec<StateSpace> = (0..4).map(|number| operators(&format!("p{number}"))).collect();
    let mut tasks = Vec::new();
    for (turn, store) in gateways.iter().cycle().take(80).enumerate() {
        let (store, mut spaces) = (Arc::clone(store), spaces.clone());
        spaces.rotate_left(turn % 4);
        tasks.push(tokio::spawn(async move {
            for space in &spaces {
                change(&store, space, "n", Edit::Increment(1, None)).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for space in &spaces {
        assert_eq!(value(&gateways[0], space, "n").await.as_deref(), Some("80"));
    }
    for store in gateways {
        store.close().await;
    }
}

#[tokio::test]
async fn numbers_are_numbers() {
    both(async |store| {
        let space = operators("p");
        assert_eq!(change(store, &space, "n", Edit::Increment(-7, None)).await, Changed::Number(-7));
        assert_eq!(change(store, &space, "n", Edit::Increment(10, None)).await, Changed::Number(3));
        assert_eq!(value(store, &space, "n").await.as_deref(), Some("3"));
        assert_eq!(change(store, &space, "n", Edit::Increment(i64::MAX, None)).await, Changed::NotANumber);
        assert_eq!(value(store, &space, "n").await.as_deref(), Some("3"), "nothing has changed");
        change(store, &space, "t", set("three")).await;
        assert_eq!(change(store, &space, "t", Edit::Increment(1, None)).await, Changed::NotANumber);
    })
    .await;
}

#[tokio::test]
async fn a_space_has_an_end_and_less_is_always_allowed() {
    both(async |store| {
        let space = operators("p");
        let max = 2 * (2 + ENTRY_BYTES);
        let put = async |key: &str, value: &str| store.change_state(&space, key, set(value), max).await.unwrap();
        assert_eq!(put("a", "1").await, Changed::Done);
        assert_eq!(put("b", "1").await, Changed::Done);
        assert_eq!(put("c", "").await, Changed::Full);
        assert_eq!(put("a", "12").await, Changed::Full);
        let number = store.change_state(&space, "n", Edit::Increment(1, None), max).await.unwrap();
        assert_eq!(number, Changed::Full);
        assert_eq!(value(store, &space, "a").await.as_deref(), Some("1"), "nothing has changed");
        assert_eq!(put("a", "").await, Changed::Done);
        assert_eq!(store.change_state(&space, "a", set(""), 1).await.unwrap(), Changed::Done, "no more than before");
        assert_eq!(change(store, &operators("q"), "c", set("elsewhere")).await, Changed::Done);
        counted(store, &space).await;
    })
    .await;
}

/// Makes all times to live end, without waiting for them.
async fn end_all(store: &Store) {
    testing::execute(store, "UPDATE plugin_state SET expires_at_ms = 1 WHERE expires_at_ms IS NOT NULL").await.unwrap();
}

#[tokio::test]
async fn what_has_had_its_time_is_gone_makes_room_and_is_swept() {
    both(async |store| {
        let space = operators("p");
        let hour = Some(Duration::from_secs(3_600));
        change(store, &space, "k", Edit::Set("old".into(), hour)).await;
        change(store, &space, "n", Edit::Increment(5, hour)).await;
        change(store, &space, "n", Edit::Increment(1, None)).await;
        change(store, &space, "stays", set("x")).await;
        assert_eq!(value(store, &space, "k").await.as_deref(), Some("old"));
        end_all(store).await;
        assert_eq!(value(store, &space, "k").await, None);
        assert_eq!(value(store, &space, "n").await, None, "a later increment has not made it last longer");
        assert_eq!(change(store, &space, "k", swap(Some("old"), None)).await, Changed::Not);
        assert_eq!(change(store, &space, "n", Edit::Increment(1, hour)).await, Changed::Number(1));
        change(store, &space, "k", Edit::Set("again".into(), hour)).await;
        end_all(store).await;
        // Room for two: it fits only where the old ones go.
        let max = 2 * (6 + ENTRY_BYTES);
        assert_eq!(store.change_state(&space, "new", set("123"), max).await.unwrap(), Changed::Done);
        let usage = counted(store, &space).await;
        assert_eq!(usage.keys, 2, "{usage:?}");
        change(store, &tenants("acme", "p"), "k", Edit::Set("old".into(), hour)).await;
        end_all(store).await;
        eventually("the sweep has come by", Duration::from_secs(30), async || {
            let usage = store.state_usage(&tenants("acme", "p")).await?;
            anyhow::ensure!(usage == StateUsage::default(), "{usage:?} is left");
            Ok(())
        })
        .await;
        assert_eq!(counted(store, &space).await.keys, 2);
    })
    .await;
}

#[tokio::test]
async fn a_change_that_was_answered_outlives_the_gateway() {
    both_places(async |fresh| {
        let store = fresh.open().await;
        change(&store, &operators("p"), "k", set("kept")).await;
        drop(store);
        let store = fresh.open().await;
        assert_eq!(value(&store, &operators("p"), "k").await.as_deref(), Some("kept"));
        store.close().await;
    })
    .await;
}
