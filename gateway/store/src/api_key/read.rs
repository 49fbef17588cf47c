//! Reading keys.

use async_trait::async_trait;

use super::API_KEYS;
use super::record::{ApiKey, StoredKey};
use crate::database::{Connection, Row, Value};
use crate::error::StoreError;
use crate::queue::{MAX_PAGE_ITEMS, Page};
use crate::reader::{Question, Reader};
use crate::store::Store;
use crate::tenant::{Realm, TenantName};

const COLUMNS: &str = "prefix, tenant, name, scopes, created_at_ms, rotated_at_ms, previous_until_ms, expires_at_ms, \
                       revoked_at_ms, last_used_ms, hash, previous_hash";

/// So many keys are looked up by one statement, which is the same for fewer.
const LOOKED_UP_KEYS: usize = 64;

impl Reader {
    /// Keys of one realm by prefix, revoked ones included. `limit` is cut to 1 through [`MAX_PAGE_ITEMS`]; `after` is the
    /// [`Page::next`] of the page before.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn api_keys(&self, realm: &Realm, limit: usize, after: Option<&str>) -> Result<Page<ApiKey>, StoreError> {
        let limit = limit.clamp(1, MAX_PAGE_ITEMS);
        self.ask(List { realm: realm.clone(), limit, after: after.unwrap_or_default().to_owned() }).await
    }

    /// The keys with these prefixes, of any realm, as far as there are any.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn stored_keys(&self, prefixes: Vec<String>) -> Result<Vec<StoredKey>, StoreError> {
        self.ask(LookUp(prefixes)).await
    }
}

impl Store {
    /// Changes when keys may have changed, here or at another gateway on the same store.
    pub fn api_key_news(&self) -> tokio::sync::watch::Receiver<u64> {
        self.signals().subscribe(API_KEYS)
    }
}

/// A condition for rows of one realm, with its values, which are all of the statement's.
pub(super) fn of_realm(realm: &Realm) -> (&'static str, Vec<Value>) {
    match realm.tenant() {
        None => ("tenant IS NULL", Vec::new()),
        Some(tenant) => ("tenant = $1", vec![tenant.as_str().into()]),
    }
}

pub(super) async fn find(connection: &mut Connection, prefix: &str) -> Result<Option<StoredKey>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM api_keys WHERE prefix = $1");
    connection.query_first(&sql, &[prefix.into()]).await?.as_ref().map(stored_key).transpose()
}

fn stored_key(row: &Row) -> Result<StoredKey, StoreError> {
    let realm = match row.optional_text(1)? {
        None => Realm::Operator,
        Some(name) => Realm::Tenant(
            TenantName::parse(&name).ok_or_else(|| row.damaged(format!("`{name}` is not the name of a tenant")))?,
        ),
    };
    let digest = |bytes: bytes::Bytes| {
        <[u8; 32]>::try_from(&*bytes).map_err(|_| row.damaged("the digest of a key has not 32 bytes"))
    };
    let key = ApiKey {
        prefix: row.text(0)?,
        realm,
        name: row.text(2)?,
        scopes: row.text(3)?.split(' ').map(str::to_owned).collect(),
        created_at_ms: row.unsigned(4)?,
        rotated_at_ms: row.optional_unsigned(5)?,
        previous_until_ms: row.optional_unsigned(6)?,
        expires_at_ms: row.optional_unsigned(7)?,
        revoked_at_ms: row.optional_unsigned(8)?,
        last_used_ms: row.optional_unsigned(9)?,
    };
    let previous_hash = row.optional_bytes(11)?.map(digest).transpose()?;
    Ok(StoredKey { key, hash: digest(row.bytes(10)?)?, previous_hash })
}

struct List {
    realm: Realm,
    limit: usize,
    after: String,
}

#[async_trait]
impl Question for List {
    type Output = Page<ApiKey>;

    fn doing(&self) -> &'static str {
        "list the keys"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        let (condition, mut values) = of_realm(&self.realm);
        let (after, limit) = (values.len() + 1, values.len() + 2);
        values.extend([self.after.as_str().into(), (self.limit as u64 + 1).into()]);
        let sql = format!(
            "SELECT {COLUMNS} FROM api_keys WHERE {condition} AND prefix > ${after} ORDER BY prefix LIMIT ${limit}"
        );
        let rows = connection.query(&sql, &values).await?;
        let items: Vec<ApiKey> = rows
            .iter()
            .take(self.limit)
            .map(|row| stored_key(row).map(|stored| stored.key))
            .collect::<Result<_, _>>()?;
        let next = items.last().filter(|_| rows.len() > self.limit).map(|last| last.prefix.clone());
        Ok(Page { items, next })
    }
}

struct LookUp(Vec<String>);

#[async_trait]
impl Question for LookUp {
    type Output = Vec<StoredKey>;

    fn doing(&self) -> &'static str {
        "look up keys"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        let mut found = Vec::with_capacity(self.0.len());
        if let [prefix] = self.0.as_slice() {
            found.extend(find(connection, prefix).await?);
            return Ok(found);
        }
        let places: Vec<String> = (1..=LOOKED_UP_KEYS).map(|number| format!("${number}")).collect();
        let sql = format!("SELECT {COLUMNS} FROM api_keys WHERE prefix IN ({})", places.join(", "));
        for prefixes in self.0.chunks(LOOKED_UP_KEYS) {
            // No key has an empty prefix.
            let wanted = prefixes.iter().map(String::as_str).chain(std::iter::repeat("")).take(LOOKED_UP_KEYS);
            let values: Vec<Value> = wanted.map(Value::from).collect();
            for row in connection.query(&sql, &values).await? {
                found.push(stored_key(&row)?);
            }
        }
        Ok(found)
    }
}
