//! Tokens of every kind, good and forged, signed here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use ring::{hmac, signature};
use serde_json::json;
use sluicegate_connectors::quantity::Secret;

use super::*;

const SECRET: &str = "correct-horse-battery-staple-0123";
/// Of these tests alone.
const RSA_KEY: &[u8] = include_bytes!("test-rsa-key.der");

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now_secs() -> u64 {
    sluicegate_engine::message::now_ms() / 1_000
}

fn claims() -> Value {
    json!({ "iss": "https://issuer", "aud": ["sluicegate", "other"], "sub": "ann", "exp": now_secs() + 300, "tenant": "acme",
        "scope": "read ingest unknown", "roles": ["redriver"] })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn signed(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
    let signature = encoded(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn by_secret(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    move |message| hmac::sign(&key, message).as_ref().to_vec()
}

fn hs256(claims: &Value) -> String {
    signed(&json!({ "alg": "HS256", "typ": "JWT" }), claims, by_secret(SECRET.as_bytes()))
}

fn config(keys: JwtKeys, algorithms: &[JwtAlgorithm]) -> JwtConfig {
    JwtConfig {
        issuer: "https://issuer".to_owned(),
        audience: vec!["sluicegate".to_owned()],
        algorithms: algorithms.to_vec(),
        keys,
        refresh: std::time::Duration::from_secs(300),
        clock_skew: std::time::Duration::from_secs(60),
        tenant_claim: "tenant".to_owned(),
        scopes_claim: "scope".to_owned(),
        roles_claim: "roles".to_owned(),
        roles: vec![("redriver".to_owned(), vec![Scope::Redrive])],
        operator_role: Some("operator".to_owned()),
    }
}

async fn by_shared_secret() -> Tokens {
    let config = config(JwtKeys::Secret(Secret::new(SECRET)), &[JwtAlgorithm::HS256]);
    Tokens::new(&config).await.expect("tokens")
}

async fn refused(tokens: &Tokens, token: &str) -> &'static str {
    match tokens.check(token).await {
        Err(TokenRefused::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_says_whose_it_is_and_what_it_allows() {
    let tokens = by_shared_secret().await;
    let bearer = tokens.check(&hs256(&claims())).await.expect("good");
    assert_eq!(bearer.realm.to_string(), "acme");
    assert_eq!(bearer.scopes, [Scope::Read, Scope::Ingest, Scope::Redrive].into_iter().collect());
    assert_eq!(&*bearer.subject, "ann");
    let late = [with("exp", (now_secs() - 30).into()), with("nbf", (now_secs() + 30).into())];
    for claims in late {
        assert!(tokens.check(&hs256(&claims)).await.is_ok(), "within the skew: {claims}");
    }
}

#[tokio::test]
async fn a_tenant_is_never_more_than_a_tenant() {
    let tokens = by_shared_secret().await;
    let both = with("roles", json!(["operator"]));
    assert_eq!(tokens.check(&hs256(&both)).await.expect("good").realm.to_string(), "acme");
    let mut operator = both;
    operator["tenant"] = Value::Null;
    assert_eq!(tokens.check(&hs256(&operator)).await.expect("good").realm, Realm::Operator);
    for tenant in [json!("a/b"), json!(""), json!(7), json!(["acme"]), Value::Null] {
        let answer = tokens.check(&hs256(&with("tenant", tenant.clone()))).await;
        assert!(matches!(answer, Err(TokenRefused::Meaningless(_))), "{tenant}: {answer:?}");
    }
}

#[tokio::test]
async fn what_is_late_early_or_for_somebody_else_is_refused() {
    let tokens = by_shared_secret().await;
    let now = now_secs();
    let cases = [
        (with("exp", (now - 120).into()), "it has expired"),
        (with("nbf", (now + 120).into()), "it is not valid yet"),
        (with("iss", "https://other".into()), "it comes from another issuer"),
        (with("aud", "other".into()), "it is meant for somebody else"),
        (with("exp", "tomorrow".into()), "missing or of the wrong type"),
        (with("nbf", "tomorrow".into()), "missing or of the wrong type"),
    ];
    for (claims, expected) in cases {
        let why = refused(&tokens, &hs256(&claims)).await;
        assert!(why.contains(expected), "{claims}: {why}");
    }
    for missing in ["exp", "iss", "aud"] {
        let mut claims = claims();
        claims.as_object_mut().expect("an object").shift_remove(missing);
        refused(&tokens, &hs256(&claims)).await;
    }
}

#[tokio::test]
async fn a_forged_token_is_refused() {
    let tokens = by_shared_secret().await;
    let good = hs256(&claims());
    let (message, signature) = good.rsplit_once('.').expect("a signature");
    let other_claims = encoded(with("tenant", "other".into()).to_string());
    let header = good.split('.').next().expect("a header");
    for forged in [
        format!("{message}."),
        format!("{message}.{}", encoded([0; 32])),
        format!("{header}.{other_claims}.{signature}"),
        format!("{}.{}.", encoded(json!({ "alg": "none" }).to_string()), encoded(claims().to_string())),
        format!("{}.{}.", encoded(json!({ "alg": "None" }).to_string()), encoded(claims().to_string())),
        signed(&json!({ "alg": "HS384" }), &claims(), by_secret(SECRET.as_bytes())),
        signed(&json!({ "alg": "HS256", "crit": ["b64"], "b64": false }), &claims(), by_secret(SECRET.as_bytes())),
        signed(&json!({ "alg": "HS256" }), &claims(), by_secret(b"")),
        "a.b.c".to_owned(),
        "..".to_owned(),
    ] {
        refused(&tokens, &forged).await;
    }
}

fn rsa() -> RsaKeyPair {
    RsaKeyPair::from_der(RSA_KEY).expect("a key")
}

fn by_rsa(message: &[u8]) -> Vec<u8> {
    let key = rsa();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).expect("signed");
    signature
}

fn rsa_jwk(id: &str) -> Value {
    let components = signature::RsaPublicKeyComponents::<Vec<u8>>::from(rsa().public());
    json!({ "kty": "RSA", "kid": id, "use": "sig", "alg": "RS256", "n": encoded(components.n), "e": encoded(components.e) })
}

fn ecdsa() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).expect("a key")
}

fn ecdsa_jwk(id: &str, key: &EcdsaKeyPair) -> Value {
    let (x, y) = key.public_key().as_ref()[1..].split_at(32);
    json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": encoded(x), "y": encoded(y) })
}

fn es256(id: Option<&str>, key: &EcdsaKeyPair) -> String {
    let header = id.map_or_else(|| json!({ "alg": "ES256" }), |id| json!({ "alg": "ES256", "kid": id }));
    signed(&header, &claims(), |message| key.sign(&SystemRandom::new(), message).expect("signed").as_ref().to_vec())
}

async fn by_file(folder: &tempfile::TempDir, keys: &Value) -> Tokens {
    let file = folder.path().join("jwks.json");
    std::fs::write(&file, json!({ "keys": keys }).to_string()).expect("written");
    let config = config(JwtKeys::Jwks(JwksPlace::File(file)), &[JwtAlgorithm::RS256, JwtAlgorithm::ES256]);
    Tokens::new(&config).await.expect("tokens")
}

#[tokio::test]
async fn public_keys_are_found_by_their_id_and_kind() {
    let (folder, key) = (tempfile::tempdir().expect("a folder"), ecdsa());
    let keys = json!([rsa_jwk("r"), ecdsa_jwk("e", &key), { "kty": "surprise" }, { "kty": "oct", "kid": "o", "k": encoded(SECRET) }]);
    let tokens = by_file(&folder, &keys).await;
    let rs256 = |id: &str| signed(&json!({ "alg": "RS256", "kid": id }), &claims(), by_rsa);
    assert!(tokens.check(&rs256("r")).await.is_ok());
    assert!(tokens.check(&es256(Some("e"), &key)).await.is_ok());
    assert!(tokens.check(&es256(None, &key)).await.is_ok(), "the only key that fits needs no id");
    refused(&tokens, &rs256("e")).await;
    refused(&tokens, &rs256("nobody's")).await;
    assert_eq!(refused(&tokens, &es256(Some("e"), &ecdsa())).await, "its signature is wrong");
}

#[tokio::test]
async fn a_public_key_is_no_shared_secret() {
    let (folder, key) = (tempfile::tempdir().expect("a folder"), ecdsa());
    let keys =
        json!([rsa_jwk("r"), ecdsa_jwk("e", &key), { "kty": "oct", "kid": "o", "alg": "HS256", "k": encoded(SECRET) }]);
    let tokens = by_file(&folder, &keys).await;
    let modulus = signature::RsaPublicKeyComponents::<Vec<u8>>::from(rsa().public()).n;
    for (id, secret) in [("r", modulus), ("e", key.public_key().as_ref().to_vec()), ("o", SECRET.as_bytes().to_vec())] {
        let forged = signed(&json!({ "alg": "HS256", "kid": id }), &claims(), by_secret(&secret));
        assert_eq!(refused(&tokens, &forged).await, "it is signed by an algorithm that is not accepted");
    }
    // A gateway of shared secrets takes no token that is signed by a public key, either.
    let tokens = by_shared_secret().await;
    let header = json!({ "alg": "ES256", "jwk": ecdsa_jwk("e", &key) });
    refused(
        &tokens,
        &signed(&header, &claims(), |m| key.sign(&SystemRandom::new(), m).expect("signed").as_ref().to_vec()),
    )
    .await;
}

#[tokio::test]
async fn a_new_key_is_read_when_a_token_names_it_and_not_too_often() {
    let (folder, old, new) = (tempfile::tempdir().expect("a folder"), ecdsa(), ecdsa());
    let tokens = by_file(&folder, &json!([ecdsa_jwk("old", &old)])).await;
    tokio::time::pause();
    let file = folder.path().join("jwks.json");
    std::fs::write(&file, json!({ "keys": [ecdsa_jwk("new", &new)] }).to_string()).expect("written");
    refused(&tokens, &es256(Some("new"), &new)).await;
    tokio::time::advance(std::time::Duration::from_secs(11)).await;
    tokio::time::resume();
    assert!(tokens.check(&es256(Some("new"), &new)).await.is_ok(), "read again");
    assert_eq!(refused(&tokens, &es256(Some("old"), &old)).await, "it is signed by a key that is not known");
}

#[tokio::test]
async fn a_document_that_cannot_be_read_keeps_the_gateway_from_starting() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("jwks.json");
    for document in [
        None,
        Some("not JSON".to_owned()),
        Some("{}".to_owned()),
        Some(format!("{{\"keys\": []}}{}", " ".repeat(300 << 10))),
    ] {
        if let Some(document) = &document {
            std::fs::write(&file, document).expect("written");
        }
        let config = config(JwtKeys::Jwks(JwksPlace::File(file.clone())), &[JwtAlgorithm::RS256]);
        assert!(Tokens::new(&config).await.is_err(), "{:?}", document.map(|document| document.len()));
    }
}
