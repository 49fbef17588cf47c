//! TLS to a PostgreSQL that speaks nothing else.

use std::path::PathBuf;
use std::sync::Arc;

use sluicegate_engine::dead_letter::DeadLetters;
use sluicegate_store::{Location, Reader, Store, StoreError, testing};
use sluicegate_tests::servers::{Certificate, Postgres};

use crate::dead_letters::sample;

/// Those that the tests of the brokers use.
fn certificate(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/connectors/rabbitmq/certificates").join(name)
}

async fn server() -> Postgres {
    let (file, key_file) = (certificate("server.pem"), certificate("server.key.pem"));
    Postgres::start_with_tls(&Certificate { file: &file, key_file: &key_file }).await.unwrap()
}

async fn refused(url: String) -> StoreError {
    Store::open(&Location::shared(url)).await.expect_err("it is refused")
}

#[tokio::test]
async fn a_store_is_used_with_tls_and_a_server_that_is_not_the_right_one_is_refused() {
    let server = server().await;
    let ca = certificate("ca.pem");
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = format!("{}?sslmode={mode}&sslrootcert={}", server.url(), ca.display());
        let (store, other) =
            (Store::open(&Location::shared(&url)).await.unwrap(), Store::open(&Location::shared(&url)).await.unwrap());
        let letter = Arc::new(sample::letter());
        store.record(&letter).await.unwrap();
        assert_eq!(other.reader().show(&letter.id).await.as_ref(), Ok(&*letter));
        // Every connection there is: those that write, read and listen.
        let clear = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE NOT ssl AND client_addr IS NOT NULL";
        assert_eq!(testing::select(&store, clear).await, Ok(0), "{mode}");
        let ours = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND application_name = 'sluicegate'";
        assert!(testing::select(&store, ours).await.unwrap() >= 4, "{mode}");
        store.close().await;
        other.close().await;
        let reader = Reader::open(&Location::shared(&url)).await.unwrap();
        assert_eq!(reader.show(&letter.id).await.as_ref(), Ok(&*letter));
    }

    // Another authority's, and those that the web trusts.
    let other = certificate("other-ca.pem");
    for roots in [format!("&sslrootcert={}", other.display()), String::new()] {
        let error = refused(format!("{}?sslmode=verify-full{roots}", server.url())).await;
        let text = error.to_string();
        assert!(matches!(error, StoreError::Untrusted { .. }), "{error:?}");
        assert!(text.contains("UnknownIssuer") && text.contains("sslrootcert"), "{text}");
    }
    // The right authority, for another name.
    let named = server.url().replace("127.0.0.1", "store.example");
    let error = refused(format!("{named}?sslmode=verify-full&hostaddr=127.0.0.1&sslrootcert={}", ca.display())).await;
    assert!(matches!(error, StoreError::Untrusted { .. }), "{error:?}");
    assert!(error.to_string().contains("store.example") && error.to_string().contains("for"), "{error}");
    // In the clear.
    let plain = refused(server.url().to_owned()).await;
    assert!(matches!(plain, StoreError::Credentials { .. }), "{plain:?}");
    assert!(plain.to_string().contains("no encryption") && plain.to_string().contains("sslmode"), "{plain}");
}

#[tokio::test]
async fn a_server_without_tls_is_not_used_where_tls_is_asked_for() {
    let server = Postgres::start().await.unwrap();
    let error =
        refused(format!("{}?sslmode=require&sslrootcert={}", server.url(), certificate("ca.pem").display())).await;
    let text = error.to_string();
    assert!(matches!(error, StoreError::Untrusted { .. }), "{error:?}");
    assert!(text.contains("does not support TLS") && text.contains("sslmode=disable"), "{text}");
}
