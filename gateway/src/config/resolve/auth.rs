//! Who may call.

use std::net::SocketAddr;

use super::{Resolver, absolute};
use crate::config::resolved::{AuditConfig, AuthConfig, JwtConfig, JwtKeys, RequiredAuth};
use crate::config::written::{AuthSection, JwtAlgorithm, JwtSection};
use crate::identity::JwksPlace;

/// Shortest shared secret: as long as the digests that are made with it.
const MIN_SECRET_CHARS: usize = 32;

impl Resolver<'_> {
    pub(super) fn auth(&mut self, listen: SocketAddr) -> AuthConfig {
        let is_local = listen.ip().to_canonical().is_loopback();
        let Some(section) = &self.written.auth else {
            if !is_local {
                let text = format!("{listen} can be reached from elsewhere, and no credential is asked for");
                self.wrong("/server/listen", text).hint = Some(
                    "add `auth: {}` to ask for API keys, listen on 127.0.0.1, or say `auth: { required: false }` where the \
                     network is yours alone"
                        .to_owned(),
                );
            }
            return AuthConfig::Local;
        };
        if !section.required {
            self.open(section);
            return AuthConfig::Open;
        }
        if let Some(token) = &section.service_token
            && token.expose().chars().count() < MIN_SECRET_CHARS
        {
            self.short_secret("/auth/service_token");
        }
        if !section.keys && section.jwt.is_none() {
            self.wrong("/auth/keys", "nobody could show a credential").hint =
                Some("leave `keys: false` out, or add `jwt`".to_owned());
        }
        let jwt = section.jwt.as_ref().and_then(|jwt| self.jwt(jwt));
        AuthConfig::Required(Box::new(RequiredAuth {
            keys: section.keys,
            jwt,
            service_token: section.service_token.clone(),
            protect_metrics: section.protect_metrics,
        }))
    }

    pub(super) fn audit(&mut self) -> AuditConfig {
        AuditConfig { keep: self.span("/audit/keep", self.written.audit.keep, ("1d", "3650d")) }
    }

    /// Nothing that asks for a credential stands beside `required: false`.
    fn open(&mut self, section: &AuthSection) {
        let beside = [
            ("/auth/jwt", section.jwt.is_some()),
            ("/auth/service_token", section.service_token.is_some()),
            ("/auth/protect_metrics", section.protect_metrics),
        ];
        for (pointer, _) in beside.into_iter().filter(|(_, given)| *given) {
            self.wrong(pointer, "no credential is asked for, so this would do nothing").hint =
                Some("leave it out, or leave `required: false` out".to_owned());
        }
    }

    fn short_secret(&mut self, pointer: &str) {
        self.wrong(pointer, format!("this secret is shorter than {MIN_SECRET_CHARS} characters")).hint =
            Some("make one with `openssl rand -base64 32`, and keep it in a file: `${file:/run/secrets/…}`".to_owned());
    }

    fn jwt(&mut self, section: &JwtSection) -> Option<JwtConfig> {
        for (pointer, text) in
            [("/auth/jwt/issuer", &section.issuer), ("/auth/jwt/tenant_claim", &section.tenant_claim)]
        {
            if text.is_empty() {
                self.wrong(pointer, "this is empty, so it would mean nothing").hint =
                    Some("see what the issuer writes".to_owned());
            }
        }
        let refresh = self.span("/auth/jwt/refresh", section.refresh, ("10s", "1d"));
        let clock_skew = self.span("/auth/jwt/clock_skew", section.clock_skew, ("0s", "10m"));
        let keys = self.jwt_keys(section)?;
        let fitting: &[JwtAlgorithm] = match keys {
            JwtKeys::Secret(_) => &[JwtAlgorithm::HS256],
            JwtKeys::Jwks(_) => &[JwtAlgorithm::RS256, JwtAlgorithm::ES256],
        };
        for (index, algorithm) in section.algorithms.iter().enumerate() {
            if !fitting.contains(algorithm) {
                let with = if *algorithm == JwtAlgorithm::HS256 { "`secret`" } else { "`jwks_file` or `jwks_url`" };
                self.wrong(&format!("/auth/jwt/algorithms/{index}"), format!("{algorithm:?} needs {with}")).hint =
                    Some("a public key must never be taken for a shared secret, so the two are not mixed".to_owned());
            }
        }
        let algorithms = if section.algorithms.is_empty() { fitting.to_vec() } else { section.algorithms.clone() };
        Some(JwtConfig {
            issuer: section.issuer.clone(),
            audience: section.audience.clone(),
            algorithms,
            keys,
            refresh,
            clock_skew,
            tenant_claim: section.tenant_claim.clone(),
            scopes_claim: section.scopes_claim.clone(),
            roles_claim: section.roles_claim.clone(),
            roles: section.roles.iter().map(|(role, scopes)| (role.to_owned(), scopes.clone())).collect(),
            operator_role: section.operator_role.clone(),
        })
    }

    /// Exactly one of three.
    fn jwt_keys(&mut self, section: &JwtSection) -> Option<JwtKeys> {
        match (&section.secret, &section.jwks_file, &section.jwks_url) {
            (Some(secret), None, None) => {
                if secret.expose().chars().count() < MIN_SECRET_CHARS {
                    self.short_secret("/auth/jwt/secret");
                }
                Some(JwtKeys::Secret(secret.clone()))
            }
            (None, Some(file), None) => {
                let base = (self.base_of)(self.root.place("/auth/jwt/jwks_file"));
                Some(JwtKeys::Jwks(JwksPlace::File(absolute(&base, file))))
            }
            (None, None, Some(url)) => {
                if !is_safe_url(url) {
                    self.wrong("/auth/jwt/jwks_url", "this is not an `https://` URL").hint = Some(
                        "whoever could change the answer on its way could sign tokens; `http://` is for loopback addresses"
                            .to_owned(),
                    );
                }
                Some(JwtKeys::Jwks(JwksPlace::Url(url.clone())))
            }
            _ => {
                self.wrong(
                    "/auth/jwt",
                    "exactly one of `secret`, `jwks_file` and `jwks_url` says what tokens are checked with",
                )
                .hint = Some("most issuers publish their keys at `https://ISSUER/.well-known/jwks.json`".to_owned());
                None
            }
        }
    }
}

fn is_safe_url(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let is_local = match uri.host() {
        Some(host) => {
            host == "localhost"
                || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        None => return false,
    };
    match uri.scheme_str() {
        Some("https") => true,
        Some("http") => is_local,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::in_memory::load_text;

    const PIPELINE: &str = "pipelines:\n  p:\n    source: { stdio: {} }\n    targets: { out: { stdio: {} } }\n";
    const SECRET: &str = "correct-horse-battery-staple-0123";

    fn auth(text: &str) -> AuthConfig {
        load_text(&format!("{text}\n{PIPELINE}")).unwrap_or_else(|wrong| panic!("{wrong}")).config.auth
    }

    fn mistakes(text: &str) -> String {
        match load_text(&format!("{text}\n{PIPELINE}")) {
            Ok(_) => panic!("there are no mistakes in {text}"),
            Err(wrong) => wrong.to_string(),
        }
    }

    #[test]
    fn who_listens_elsewhere_asks_for_credentials_or_says_that_he_does_not() {
        assert_eq!(auth(""), AuthConfig::Local);
        assert_eq!(auth("server: { listen: '[::1]:1' }"), AuthConfig::Local);
        for listen in ["0.0.0.0:80", "'[::]:80'", "192.168.1.5:80", "'[::ffff:10.0.0.1]:80'"] {
            let server = format!("server: {{ listen: {listen} }}");
            let said = mistakes(&server);
            assert!(
                said.contains("no credential is asked for") && said.contains("auth: { required: false }"),
                "{said}"
            );
            assert_eq!(auth(&format!("{server}\nauth: {{ required: false }}")), AuthConfig::Open);
            assert!(matches!(auth(&format!("{server}\nauth: {{}}")), AuthConfig::Required(_)));
        }
    }

    #[test]
    fn all_mistakes_are_said_at_once_and_no_secret_with_them() {
        let said = mistakes(
            "auth: { keys: false, service_token: hunter2hunter2, jwt: { issuer: '', audience: [a], algorithms: [HS256, RS256], \
             jwks_url: 'http://issuer.example.org/', clock_skew: 1h, refresh: 1s } }\naudit: { keep: 1s }",
        );
        for part in [
            "shorter than 32",
            "is empty",
            "HS256 needs `secret`",
            "not an `https://` URL",
            "clock_skew",
            "refresh",
            "audit",
        ] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
        assert!(!said.contains("hunter2"), "{said}");
        let said = mistakes("auth: { jwt: { issuer: i, audience: [a] }, required: false, protect_metrics: true }");
        assert!(said.matches("would do nothing").count() == 2, "{said}");
        let said =
            mistakes(&format!("auth: {{ jwt: {{ issuer: i, audience: [a], secret: {SECRET}, jwks_file: k }} }}"));
        assert!(said.contains("exactly one of"), "{said}");
        assert!(mistakes("auth: { keys: false }").contains("nobody could show"));
    }

    #[test]
    fn algorithms_follow_the_keys() {
        let text = format!(
            "auth: {{ jwt: {{ issuer: i, audience: [a], secret: {SECRET}, roles: {{ boss: [read, admin] }} }} }}"
        );
        let config = auth(&text);
        assert!(!format!("{config:?}").contains(SECRET));
        let AuthConfig::Required(required) = config else { panic!("it asks") };
        let jwt = required.jwt.expect("tokens");
        assert_eq!(jwt.algorithms, [JwtAlgorithm::HS256]);
        assert_eq!(jwt.roles[0].1.len(), 2);
        let AuthConfig::Required(required) = auth("auth: { jwt: { issuer: i, audience: [a], jwks_file: k.json } }")
        else {
            panic!("it asks")
        };
        let jwt = required.jwt.expect("tokens");
        assert_eq!(jwt.keys, JwtKeys::Jwks(JwksPlace::File("/folder/k.json".into())));
        assert_eq!(jwt.algorithms, [JwtAlgorithm::RS256, JwtAlgorithm::ES256]);
    }
}
