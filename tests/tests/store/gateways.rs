//! Several gateways on one store: opening it together, dying, being paused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate_engine::dead_letter::DeadLetters;
use sluicegate_store::{Location, Reader, Store, StoreError, testing};
use sluicegate_tests::{eventually, servers};

use crate::both::{Fresh, both, both_places, database_url, spoil};
use crate::dead_letters::sample;

#[tokio::test]
async fn several_gateways_may_open_an_empty_database_at_once() {
    let fresh = Fresh::postgres().await;
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let location = fresh.location.clone();
        opening.spawn(async move { Store::open(&location).await });
    }
    let stores: Vec<Store> = opening.join_all().await.into_iter().collect::<Result<_, _>>().unwrap();
    for store in &stores {
        store.record(&Arc::new(sample::letter())).await.unwrap();
    }
    assert_eq!(stores[0].reader().count(&Default::default()).await, Ok(6));
    assert_eq!(testing::gateways(&stores[0]).await.unwrap().len(), 6);
    for store in stores {
        store.close().await;
    }
}

#[tokio::test]
async fn who_leaves_is_gone_at_once() {
    both_places(async |fresh| {
        let store = fresh.open().await;
        assert_eq!(testing::gateways(&store).await, Ok(vec![testing::owner(&store)]));
        assert_eq!(testing::claim(&store).await, Ok(testing::owner(&store)));
        store.close().await;
        let next = fresh.open().await;
        assert_eq!(testing::gateways(&next).await, Ok(vec![testing::owner(&next)]));
        next.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_gateway_not_seen_for_the_term_is_swept_and_one_that_is_seen_stays() {
    let fresh = Fresh::postgres().await;
    let (one, other) = (fresh.open().await, fresh.open().await);
    let mut released = testing::subscribe(&one, testing::RELEASED);
    // As a gateway that died now would leave it.
    let now = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";
    let died = Instant::now();
    testing::execute(&one, &format!("INSERT INTO gateways (id, seen_at_ms) VALUES ('dead', {now})")).await.unwrap();
    eventually("the dead one is swept", testing::TERM + Duration::from_secs(8), async || {
        let gateways = testing::gateways(&other).await?;
        anyhow::ensure!(!gateways.contains(&"dead".to_owned()), "{gateways:?}");
        Ok(())
    })
    .await;
    assert!(died.elapsed() >= testing::TERM, "swept after {:?}", died.elapsed());
    tokio::time::timeout(Duration::from_secs(1), released.changed()).await.unwrap().unwrap();
    let mut alive = vec![testing::owner(&one), testing::owner(&other)];
    alive.sort();
    assert_eq!(testing::gateways(&one).await, Ok(alive), "both have lived for longer than the term");
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_gateway_that_was_swept_claims_under_a_new_name() {
    both(async |store| {
        let first = testing::claim(store).await.unwrap();
        testing::execute(store, &format!("DELETE FROM gateways WHERE id = '{first}'")).await.unwrap();
        let second = testing::claim(store).await.unwrap();
        assert_ne!(second, first);
        assert_eq!(testing::owner(store), second);
        assert_eq!(testing::gateways(store).await, Ok(vec![second]));
    })
    .await;
}

#[tokio::test]
async fn commands_write_beside_a_gateway_and_only_what_they_understand() {
    both_places(async |fresh| {
        let missing = Store::open_beside(&fresh.location).await.err();
        assert!(matches!(missing, Some(StoreError::Missing { .. })), "{missing:?}");
        let missing = Reader::open(&fresh.location).await.err();
        assert!(matches!(missing, Some(StoreError::Missing { .. })), "{missing:?}");
        let store = fresh.open().await;
        let command = Store::open_beside(&fresh.location).await.unwrap();
        let letter = Arc::new(sample::letter());
        command.record(&letter).await.unwrap();
        assert_eq!(store.reader().show(&letter.id).await.as_ref(), Ok(&*letter));
        assert_eq!(testing::gateways(&store).await, Ok(vec![testing::owner(&store)]), "a command is no gateway");
        command.close().await;
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_not_ours_is_refused_and_left_alone() {
    let fresh = Fresh::postgres().await;
    let Location::Shared { .. } = &fresh.location else { unreachable!("PostgreSQL") };
    let server = servers::postgres().await.unwrap().url();
    let foreign = sluicegate_tests::unique("foreign");
    spoil(server, &format!("CREATE DATABASE \"{foreign}\"")).await;
    let url = database_url(server, &foreign);
    spoil(&url, "CREATE TABLE customers (name TEXT)").await;
    let refused = Store::open(&Location::shared(&url)).await.err().unwrap();
    assert!(matches!(refused, StoreError::Foreign { .. }), "{refused:?}");
    assert!(refused.to_string().contains("another program's database"), "{refused}");
    spoil(&url, "DROP TABLE customers").await;
    Store::open(&Location::shared(&url)).await.unwrap().close().await;
    spoil(&url, "UPDATE sluicegate_schema SET version = 99").await;
    let refused = Store::open(&Location::shared(&url)).await.err().unwrap();
    assert!(matches!(refused, StoreError::Newer { found: 99, .. }), "{refused:?}");
    spoil(&url, "UPDATE sluicegate_schema SET version = 1").await;
    let refused = Reader::open(&Location::shared(&url)).await.err().unwrap();
    assert!(matches!(refused, StoreError::Older { found: 1, .. }), "{refused:?}");
    let latin = sluicegate_tests::unique("latin");
    spoil(server, &format!("CREATE DATABASE \"{latin}\" TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")).await;
    let refused = Store::open(&Location::shared(database_url(server, &latin))).await.err().unwrap();
    assert!(refused.to_string().contains("ENCODING 'UTF8'"), "{refused}");
}

#[tokio::test]
async fn a_server_that_cannot_be_used_is_an_error_with_a_remedy_and_without_the_password() {
    let server = servers::postgres().await.unwrap().url().replace("postgres@", "postgres:hush@");
    let nobody = server.replace("postgres:hush@", "nobody:hush@");
    for (url, remedy) in [
        ("postgres://postgres:hush@127.0.0.1:1/postgres".to_owned(), "see that PostgreSQL runs"),
        (database_url(&server, "no-such-database"), "check user, password and database"),
        (nobody, "check user, password and database"),
        (format!("{server}?sslmode=verify-full"), "set sslmode=disable"),
    ] {
        let refused = Store::open(&Location::shared(&url)).await.err().unwrap().to_string();
        assert!(refused.contains(remedy) && !refused.contains("hush"), "{url}: {refused}");
    }
}
