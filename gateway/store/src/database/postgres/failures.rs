//! Errors of PostgreSQL, sorted by what to do about them.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

use super::ANSWER_TIMEOUT;
use crate::error::StoreError;
use crate::place::Place;

pub(super) fn unanswered(place: &Place, doing: &'static str) -> StoreError {
    StoreError::Unreachable {
        place: place.clone(),
        doing,
        cause: format!("the server has not answered for {ANSWER_TIMEOUT:?}"),
    }
}

/// Sorts an error by what to do about it.
pub(super) fn failed(place: &Place, doing: &'static str, error: &tokio_postgres::Error) -> StoreError {
    let place = place.clone();
    let Some(database) = error.as_db_error() else {
        let cause = error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        return if is_of_tls(error) {
            StoreError::Untrusted { place, cause }
        } else if is_of_the_connection(error) {
            StoreError::Unreachable { place, doing, cause }
        } else {
            StoreError::Database { place, doing, cause }
        };
    };
    // Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
    let (code, cause) = (database.code(), database.message().to_owned());
    match code {
        &SqlState::DISK_FULL => StoreError::Full { place, doing },
        &SqlState::TOO_MANY_CONNECTIONS => StoreError::Connections { place, doing },
        &SqlState::READ_ONLY_SQL_TRANSACTION => StoreError::ReadOnly { place, doing },
        &SqlState::INSUFFICIENT_PRIVILEGE => StoreError::NotPermitted { place, doing, cause },
        &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED => {
            StoreError::Conflict { place, doing }
        }
        &SqlState::LOCK_NOT_AVAILABLE => StoreError::Locked { place, doing, waited: ANSWER_TIMEOUT },
        &SqlState::INVALID_CATALOG_NAME => StoreError::Credentials { place, cause },
        &SqlState::DATA_CORRUPTED | &SqlState::INDEX_CORRUPTED => StoreError::Damaged { place, doing, cause },
        &SqlState::ADMIN_SHUTDOWN | &SqlState::CRASH_SHUTDOWN | &SqlState::CANNOT_CONNECT_NOW => {
            StoreError::Unreachable { place, doing, cause }
        }
        other if other.code().starts_with("08") => StoreError::Unreachable { place, doing, cause },
        other if other.code().starts_with("28") && cause.contains("no encryption") => {
            let cause = format!("{cause} (it may want TLS: add sslmode=verify-full to the URL)");
            StoreError::Credentials { place, cause }
        }
        other if other.code().starts_with("28") => StoreError::Credentials { place, cause },
        other => StoreError::Database { place, doing, cause: format!("{cause} (SQLSTATE {})", other.code()) },
    }
}

/// The certificate is not the one that is wanted, or there is none; not a connection that broke meanwhile.
fn is_of_tls(error: &tokio_postgres::Error) -> bool {
    if !error.to_string().starts_with("error performing TLS") {
        return false;
    }
    let mut source = error.source();
    while let Some(cause) = source {
        let io = cause.downcast_ref::<std::io::Error>();
        // What TLS itself finds wrong comes wrapped as trouble of the connection.
        if io.is_some_and(|io| !io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())) {
            return false;
        }
        source = cause.source();
    }
    true
}

/// Reset, refused, timed out, closed, or TLS that did not come about.
fn is_of_the_connection(error: &tokio_postgres::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.is::<std::io::Error>() {
            return true;
        }
        source = cause.source();
    }
    error.is_closed()
        || error.source().is_none()
        || ["error connecting", "error performing TLS"].iter().any(|words| error.to_string().starts_with(words))
}
