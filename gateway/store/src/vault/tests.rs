//! Forms of bodies.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn place() -> Place {
    Place::file("/data/sluicegate.sqlite")
}

fn vault(keys: &[(&str, u32, [u8; 32])]) -> Vault {
    let encryption = Encryption { master_key: MasterKey::new([1; 32]), previous: Vec::new() };
    let vault = Vault::new(place(), Some(encryption));
    let mut ring = Ring { is_encrypted: true, by_tenant: HashMap::new() };
    for (tenant, version, key) in keys {
        let versions = ring.by_tenant.entry((*tenant).into()).or_default();
        versions.newest = versions.newest.max(*version);
        versions.keys.insert(*version, Arc::new(Key::new(*key)));
    }
    *vault.ring.write().expect("not poisoned") = ring;
    vault
}

fn open(vault: &Vault, stored: &[u8], identity: &[u8]) -> Result<Bytes, StoreError> {
    vault.open(Bytes::copy_from_slice(stored), &[identity], "read")
}

/// Text that shrinks and bytes that do not.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..2_000), (0..3_000_usize).prop_map(|length| b"{\"id\":1}".repeat(length / 8))]
}

proptest! {
    #[test]
    fn a_body_comes_back(body in bodies(), compress: bool, identity in vec(any::<u8>(), 0..20), tenant in "[a-z]{1,20}") {
        for vault in [vault(&[(&tenant, 7, [7; 32])]), Vault::new(place(), None)] {
            let stored = vault.seal(&tenant, &body, compress, &[&identity]).expect("sealed");
            prop_assert_eq!(&open(&vault, &stored, &identity)?[..], &body[..]);
        }
    }

    #[test]
    fn any_bit_that_is_flipped_and_any_end_that_is_lost_is_noticed(
        body in bodies(), compress: bool, at: prop::sample::Index, bit in 0..8_u8,
    ) {
        let vault = vault(&[("acme", 1, [7; 32]), ("acme", 2, [8; 32])]);
        let stored = vault.seal("acme", &body, compress, &[b"row 1"]).expect("sealed");
        let mut flipped = stored.to_vec();
        flipped[at.index(stored.len())] ^= 1 << bit;
        prop_assert!(open(&vault, &flipped, b"row 1").is_err());
        prop_assert!(open(&vault, &stored[..at.index(stored.len())], b"row 1").is_err());
        prop_assert!(open(&vault, &[&stored[..], &[0][..]].concat(), b"row 1").is_err());
    }

    #[test]
    fn bytes_from_anywhere_are_no_reason_to_panic(stored in vec(any::<u8>(), 0..100), first in prop_oneof![0..4_u8, Just(ENCRYPTED)]) {
        let vault = vault(&[("", 0, [7; 32])]);
        let stored = [&[first][..], &stored[..]].concat();
        match open(&vault, &stored, b"") {
            Ok(body) => prop_assert!(first == 0 && body[..] == stored[1..] || first == 1),
            Err(StoreError::Damaged { .. } | StoreError::UnknownKey { .. }) => {}
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }
}

#[test]
fn an_encrypted_body_shows_nothing_and_is_never_the_same_twice() {
    let vault = vault(&[("acme", 1, [7; 32])]);
    let body = b"the customer's secret ".repeat(50);
    for compress in [false, true] {
        let stored = vault.seal("acme", &body, compress, &[]).expect("sealed");
        assert!(!stored.windows(8).any(|window| body.windows(8).any(|part| part == window)));
        assert_ne!(vault.seal("acme", &body, compress, &[]).expect("sealed"), stored);
    }
    let small = vault.seal("acme", &body, true, &[]).expect("sealed");
    assert!(small.len() < 150, "compressed, then encrypted: {}", small.len());
}

#[test]
fn a_body_is_read_with_its_own_key_and_in_its_own_place_alone() {
    let ours = vault(&[("acme", 1, [7; 32])]);
    let stored = ours.seal("acme", b"body", false, &[b"row 1"]).expect("sealed");
    assert!(matches!(open(&ours, &stored, b"row 2"), Err(StoreError::Damaged { .. })));
    let other_key = vault(&[("acme", 1, [8; 32])]);
    assert!(matches!(open(&other_key, &stored, b"row 1"), Err(StoreError::Damaged { .. })));
    let other_tenant = vault(&[("bravo", 1, [7; 32])]);
    let unknown = StoreError::UnknownKey { place: place(), tenant: "acme".to_owned(), version: 1 };
    assert_eq!(open(&other_tenant, &stored, b"row 1"), Err(unknown));
    // The same key under another name: what says whose it is cannot be exchanged.
    let renamed = vault(&[("acmf", 1, [7; 32])]);
    let mut moved = stored.to_vec();
    moved[5] = b'f';
    assert!(matches!(open(&renamed, &moved, b"row 1"), Err(StoreError::Damaged { .. })));
    let without_key = Vault::new(place(), None);
    assert_eq!(open(&without_key, &stored, b"row 1"), Err(StoreError::Encrypted { place: place() }));
}

#[test]
fn the_newest_version_seals_and_those_of_before_still_open() {
    let before = vault(&[("acme", 1, [7; 32])]);
    let old = before.seal("acme", b"old", false, &[]).expect("sealed");
    let rotated = vault(&[("acme", 1, [7; 32]), ("acme", 2, [8; 32])]);
    let new = rotated.seal("acme", b"new", false, &[]).expect("sealed");
    assert_eq!(open(&rotated, &old, b"").expect("opened"), "old");
    assert_eq!(open(&rotated, &new, b"").expect("opened"), "new");
    assert!(matches!(open(&before, &new, b""), Err(StoreError::UnknownKey { version: 2, .. })));
}

#[test]
fn nothing_is_written_in_the_clear_for_want_of_a_key() {
    let locked = Vault::new(place(), None);
    locked.ring.write().expect("not poisoned").is_encrypted = true;
    assert_eq!(locked.seal("acme", b"body", false, &[]), Err(StoreError::Encrypted { place: place() }));
    let keyless = vault(&[("acme", 1, [7; 32])]);
    assert!(matches!(keyless.seal("bravo", b"body", false, &[]), Err(StoreError::UnknownKey { .. })));
}

#[test]
fn a_body_sealed_for_nothing_opens_anywhere_and_one_that_is_bound_in_its_place_alone() {
    let vault = vault(&[("acme", 1, [7; 32])]);
    let open = |stored: &Bytes, identity: &[&[u8]]| vault.open_once_unbound(stored.clone(), identity, "read");
    let unbound = vault.seal("acme", b"old", false, &[]).expect("sealed");
    assert_eq!(open(&unbound, &[b"row 1"]).expect("opened"), "old");
    let bound = vault.seal("acme", b"new", false, &[b"row", b" 1"]).expect("sealed");
    assert_eq!(open(&bound, &[b"row 1"]).expect("the parts are one"), "new");
    assert!(matches!(open(&bound, &[b"row 2"]), Err(StoreError::Damaged { .. })));
    let plain = Vault::new(place(), None).seal("acme", b"plain", false, &[b"row 1"]).expect("sealed");
    assert_eq!(open(&plain, &[b"row 2"]).expect("what is not encrypted is bound to nothing"), "plain");
    assert!(matches!(open(&plain.slice(..0), &[b"row 1"]), Err(StoreError::Damaged { .. })));
}
