//! What a request shows: read from its headers, not yet believed.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sluicegate_store::api_key::PresentedKey;

/// Longest credential that is looked at, in bytes.
const MAX_CREDENTIAL_BYTES: usize = 8 << 10;

/// What a request shows.
#[derive(Clone)]
pub(super) enum Presented<'r> {
    Nothing,
    Key(PresentedKey),
    /// Maybe a JSON Web Token.
    Token(&'r str),
    Service(&'r [u8]),
}

/// The credential of a request: `Authorization: Bearer …` with a key or a token, or `X-API-Key`; with `internal` the
/// service's token instead.
///
/// # Errors
/// Several credentials, or one in no form that is known. Shows nothing of it.
pub(super) fn read(headers: &HeaderMap, internal: bool) -> Result<Presented<'_>, &'static str> {
    let only = |name: &str| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (one, None) => Ok(one.map(|value| value.as_bytes())),
            (_, Some(_)) => Err("the request has several credentials; send one"),
        }
    };
    let (bearer, key) = (only(AUTHORIZATION.as_str())?, only("x-api-key")?);
    let service = if internal { only("x-service-token")? } else { None };
    let given = match (bearer, key, service) {
        (None, None, None) => return Ok(Presented::Nothing),
        (None, None, Some(token)) => return Ok(Presented::Service(token)),
        (Some(bearer), None, None) => {
            let text = std::str::from_utf8(bearer).unwrap_or_default();
            let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err("the header `Authorization` is not `Bearer` and a key or token");
            }
            rest.trim()
        }
        (None, Some(key), None) => std::str::from_utf8(key).unwrap_or_default().trim(),
        _ => return Err("the request has several credentials; send one"),
    };
    if given.len() > MAX_CREDENTIAL_BYTES {
        return Err("the credential is longer than any that is known here");
    }
    match PresentedKey::parse(given) {
        Some(key) => Ok(Presented::Key(key)),
        None if key.is_none() && given.bytes().filter(|byte| *byte == b'.').count() == 2 => Ok(Presented::Token(given)),
        None => Err("the credential is neither a key of this gateway (`sgk_…`) nor a token"),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use sluicegate_store::api_key::KeyText;

    use super::*;

    fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    #[test]
    fn a_credential_stands_in_one_of_its_places() {
        let key = KeyText::random().expect("random bytes");
        let bearer = format!("bearer  {}", key.expose());
        for one in [("x-api-key", key.expose()), ("authorization", bearer.as_str())] {
            assert!(matches!(read(&headers(&[one]), false), Ok(Presented::Key(_))), "{}", one.0);
        }
        assert!(matches!(read(&headers(&[("authorization", "Bearer a.b.c")]), false), Ok(Presented::Token("a.b.c"))));
        assert!(matches!(read(&headers(&[]), true), Ok(Presented::Nothing)));
        let service = headers(&[("x-service-token", "s")]);
        assert!(matches!(read(&service, true), Ok(Presented::Service(b"s"))));
        assert!(matches!(read(&service, false), Ok(Presented::Nothing)), "the service's token counts nowhere else");
    }

    #[test]
    fn two_credentials_or_a_strange_one_are_refused_and_not_shown() {
        let key = KeyText::random().expect("random bytes");
        let (text, long) = (key.expose(), format!("Bearer {}", "x".repeat(9_000)));
        let wrong: [&[(&str, &str)]; 6] = [
            &[("x-api-key", text), ("authorization", "Bearer a.b.c")],
            &[("x-api-key", text), ("x-api-key", text)],
            &[("authorization", "Basic aHVudGVyMjpodW50ZXIy")],
            &[("authorization", "Bearer hunter2")],
            &[("x-api-key", "a.b.c")],
            &[("authorization", long.as_str())],
        ];
        for given in wrong {
            let Err(said) = read(&headers(given), true) else { panic!("{given:?}") };
            assert!(!said.contains("hunter2") && !said.contains(text), "{said}");
        }
    }
}
