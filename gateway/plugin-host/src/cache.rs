//! Compiled code on disk, so that a restart need not compile. Each entry is one file, named by what it was compiled from
//! and for, and authenticated with a key that only this data folder has: machine code from anywhere else is never run.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// First bytes of an entry; the digit is the version of this layout.
const MAGIC: &[u8; 8] = b"slgcode1";
const MAC_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
const KEY_FILE: &str = "cache.key";
const ENTRY_SUFFIX: &str = "code";

/// The folder of compiled code. Its operations block; call them off the runtime's workers.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
    engine_hash: [u8; 32],
    limit_bytes: u64,
    next_temporary: AtomicU64,
}

/// What compiled code is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryId([u8; 32]);

impl EntryId {
    /// `parts` are told apart from their concatenation.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

impl Cache {
    /// Opens the folder and makes it, and its key, where there is none.
    pub fn open(folder: &Path, engine: &Engine, limit_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            key: read_or_make_key(folder)?,
            engine_hash: hash_of(&engine.precompile_compatibility_hash()),
            limit_bytes,
            next_temporary: AtomicU64::new(0),
        })
    }

    /// The component, if it is here and authentic. Whatever else is found under its name is deleted with a warning.
    pub fn get(&self, engine: &Engine, id: EntryId) -> Option<Component> {
        let path = self.path(id);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read compiled plugin; compiling it again");
                return None;
            }
        };
        match self.read(&file, engine, id) {
            Ok(component) => {
                // The time of last use, for `make_room`. An entry whose time cannot be set is only removed earlier.
                if let Err(error) = file.set_modified(SystemTime::now()) {
                    tracing::debug!(path = %path.display(), %error, "cannot note the use of a compiled plugin");
                }
                Some(component)
            }
            Err(reason) => {
                tracing::warn!(path = %path.display(), reason, "discarding compiled plugin; compiling it again");
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "cannot delete the discarded file");
                }
                None
            }
        }
    }

    /// Keeps a component. That it cannot be kept costs time at the next start and nothing else, so it is only logged.
    pub fn put(&self, component: &Component, id: EntryId) {
        let path = self.path(id);
        let written = component.serialize().map_err(io::Error::other).and_then(|code| self.write(&path, &code, id));
        match written.and_then(|()| self.make_room()) {
            Ok(()) => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "cannot keep compiled plugin in the cache"),
        }
    }

    fn path(&self, id: EntryId) -> PathBuf {
        let name = EntryId::of(&[&id.0, &self.engine_hash]);
        self.folder.join(format!("{}.{ENTRY_SUFFIX}", hex(&name.0)))
    }

    fn mac(&self, id: EntryId, code: &[u8]) -> Result<Hmac<Sha256>, &'static str> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).map_err(|_| "the key has a wrong length")?;
        // The identity is part of what is authenticated: an authentic file under another name is no authentic entry.
        for part in [MAGIC.as_slice(), &id.0, &self.engine_hash, code] {
            mac.update(part);
        }
        Ok(mac)
    }

    fn read(&self, file: &File, engine: &Engine, id: EntryId) -> Result<Component, &'static str> {
        let mut entry = Vec::new();
        let length = file.metadata().map_err(|_| "it cannot be read")?.len();
        if length > self.limit_bytes {
            return Err("it is larger than the whole cache may be");
        }
        file.take(self.limit_bytes).read_to_end(&mut entry).map_err(|_| "it cannot be read")?;
        let rest = entry.strip_prefix(MAGIC.as_slice()).ok_or("it is no cache entry of this version")?;
        let (mac, code) = rest.split_at_checked(MAC_BYTES).ok_or("it is cut short")?;
        self.mac(id, code)?
            .verify_slice(mac)
            .map_err(|_| "it was not written by this gateway, or was changed since")?;
        deserialize(engine, code).map_err(|_| "wasmtime does not take it")
    }

    fn write(&self, path: &Path, code: &[u8], id: EntryId) -> io::Result<()> {
        let mac = self.mac(id, code).map_err(io::Error::other)?.finalize().into_bytes();
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = self.folder.join(format!("{}-{number}.temporary", std::process::id()));
        let written = create_private(&temporary)
            .and_then(|mut file| {
                file.write_all(MAGIC)?;
                file.write_all(&mac)?;
                file.write_all(code)
            })
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err()
            && let Err(error) = fs::remove_file(&temporary)
        {
            tracing::debug!(path = %temporary.display(), %error, "cannot delete an unfinished file");
        }
        written
    }

    /// Deletes the entries that were not used for the longest time, until the rest is within the limit.
    fn make_room(&self) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            if path.extension().is_some_and(|suffix| suffix == ENTRY_SUFFIX) {
                let metadata = entry.metadata()?;
                entries.push((metadata.modified()?, metadata.len(), path));
            }
        }
        let mut total_bytes: u64 = entries.iter().map(|(_, length, _)| length).sum();
        entries.sort();
        for (_, length, path) in entries {
            if total_bytes <= self.limit_bytes {
                break;
            }
            fs::remove_file(path)?;
            total_bytes -= length;
        }
        Ok(())
    }
}

/// Takes the answer of a [`Compiler`](crate::Compiler) that was just asked.
#[allow(unsafe_code, reason = "wasmtime cannot tell its own compiled code from anything else")]
pub(crate) fn adopt(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` must be what wasmtime's compiler made for an engine like this one. It comes from the gateway's own
    // program, started by the gateway for this one component, over a pipe that nobody else has; it was never in a place
    // where others could write. wasmtime compares its version and the engine's settings. What is left to trust is the
    // compiler itself, as when it runs in this process: see `compiler.rs`.
    unsafe { Component::deserialize(engine, code) }
}

/// Turns authentic bytes into a component.
#[allow(unsafe_code, reason = "wasmtime cannot tell its own compiled code from anything else")]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` must be what `Component::serialize` returned under an engine like this one, since it is run as it
    // is. The caller has verified an HMAC over it, under a key that is random, readable by this user alone and never
    // leaves the data folder; so this gateway wrote it, as the output of `Component::serialize`. The HMAC covers the
    // engine's compatibility hash, so the engine was like this one, and wasmtime checks its version once more. The bytes
    // are in our memory, not a mapped file, so they are still those that were verified.
    unsafe { Component::deserialize(engine, code) }
}

/// The folder's key. One that others can read, or of a wrong length, is replaced, which makes all entries worthless.
fn read_or_make_key(folder: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = folder.join(KEY_FILE);
    match read_key(&path) {
        Ok(key) => return Ok(key),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(path = %path.display(), %error, "making a new key for the cache of compiled plugins");
            fs::remove_file(&path)?;
        }
        Err(error) => return Err(error),
    }
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    let temporary = folder.join(format!("{KEY_FILE}.{}-{}", std::process::id(), hex(&key[..4])));
    create_private(&temporary)?.write_all(&key)?;
    // A link appears whole or not at all and replaces nothing: of two gateways that start at once, one makes the key.
    let linked = fs::hard_link(&temporary, &path);
    fs::remove_file(&temporary)?;
    match linked {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_key(&path),
        Err(error) => Err(error),
    }
}

fn read_key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "other users can read or write the key"));
    }
    let mut key = Vec::new();
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut key)?;
    key.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the key has a wrong length"))
}

fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// SHA-256 of whatever is hashable, stable between runs.
fn hash_of(value: &impl std::hash::Hash) -> [u8; 32] {
    struct Sha(Sha256);
    impl std::hash::Hasher for Sha {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        fn finish(&self) -> u64 {
            0 // Nobody asks: the digest is taken instead.
        }
    }
    let mut hasher = Sha(Sha256::new());
    value.hash(&mut hasher);
    hasher.0.finalize().into()
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Trial {
        folder: tempfile::TempDir,
        engine: Engine,
        component: Component,
        id: EntryId,
    }

    impl Trial {
        fn new() -> Self {
            let engine = Engine::default();
            let component = Component::new(&engine, wat::parse_str("(component)").expect("valid")).expect("compiles");
            Self { folder: tempfile::tempdir().expect("folder"), engine, component, id: EntryId::of(&[b"a"]) }
        }

        fn cache(&self) -> Cache {
            Cache::open(self.folder.path(), &self.engine, 1_000_000).expect("opens")
        }

        fn has(&self, cache: &Cache) -> bool {
            cache.get(&self.engine, self.id).is_some()
        }
    }

    #[test]
    fn an_entry_is_found_again_after_a_restart() {
        let trial = Trial::new();
        assert!(!trial.has(&trial.cache()));
        trial.cache().put(&trial.component, trial.id);
        assert!(trial.has(&trial.cache()));
        assert!(trial.cache().get(&trial.engine, EntryId::of(&[b"b"])).is_none());
    }

    #[test]
    fn files_are_private() {
        let trial = Trial::new();
        trial.cache().put(&trial.component, trial.id);
        let mut count = 0;
        for file in fs::read_dir(trial.folder.path()).expect("folder") {
            let metadata = file.expect("entry").metadata().expect("metadata");
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
            count += 1;
        }
        assert_eq!(count, 2, "the key and the entry, nothing left over");
    }

    #[test]
    fn any_changed_byte_makes_an_entry_worthless() {
        let trial = Trial::new();
        let cache = trial.cache();
        cache.put(&trial.component, trial.id);
        let path = cache.path(trial.id);
        let whole = fs::read(&path).expect("entry");
        for at in [0, MAGIC.len(), MAGIC.len() + MAC_BYTES, whole.len() / 2, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, changed).expect("written");
            assert!(!trial.has(&cache), "changed at {at}");
            assert!(!path.exists(), "deleted");
        }
        for length in [0, 5, MAGIC.len() + 3, whole.len() - 1] {
            fs::write(&path, &whole[..length]).expect("written");
            assert!(!trial.has(&cache), "cut to {length}");
        }
        fs::write(&path, whole).expect("written");
        assert!(trial.has(&cache));
    }

    #[test]
    fn an_authentic_entry_under_another_name_is_refused() {
        let trial = Trial::new();
        let cache = trial.cache();
        cache.put(&trial.component, trial.id);
        let other = EntryId::of(&[b"other"]);
        fs::copy(cache.path(trial.id), cache.path(other)).expect("copied");
        assert!(cache.get(&trial.engine, other).is_none());
    }

    #[test]
    fn an_entry_of_another_data_folder_is_refused() {
        let (here, there) = (Trial::new(), Trial::new());
        there.cache().put(&there.component, there.id);
        let cache = here.cache();
        fs::copy(there.cache().path(there.id), cache.path(here.id)).expect("copied");
        assert!(!here.has(&cache));
    }

    #[test]
    fn a_key_that_others_can_read_is_replaced() {
        let trial = Trial::new();
        trial.cache().put(&trial.component, trial.id);
        let key = trial.folder.path().join(KEY_FILE);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(!trial.has(&trial.cache()));
        assert_eq!(fs::metadata(&key).expect("key").permissions().mode() & 0o777, 0o600);
        fs::write(&key, b"short").expect("written");
        assert!(!trial.has(&trial.cache()));
    }

    #[test]
    fn the_least_recently_used_entries_make_room() {
        let trial = Trial::new();
        let cache = trial.cache();
        let ids: Vec<_> = (0..4_u8).map(|number| EntryId::of(&[&[number]])).collect();
        for (age, id) in ids.iter().enumerate() {
            cache.put(&trial.component, *id);
            let file = File::open(cache.path(*id)).expect("entry");
            let used = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000 + age as u64);
            file.set_modified(used).expect("set");
        }
        assert!(cache.get(&trial.engine, ids[0]).is_some(), "now the one used last");
        let length = fs::metadata(cache.path(ids[0])).expect("entry").len();
        let small = Cache::open(trial.folder.path(), &trial.engine, 2 * length).expect("opens");
        small.make_room().expect("room");
        let left: Vec<_> = ids.iter().map(|id| small.path(*id).exists()).collect();
        assert_eq!(left, [true, false, false, true]);
    }
}
