//! Bodies as they are stored: a byte that says how, then the body in that form. All bodies of the store pass through
//! [`seal`] and [`open`], so that other forms (compressed, encrypted with a key of some version) are added here alone.

use bytes::Bytes;

/// As it came.
const PLAIN: u8 = 0;

/// The stored form of a body.
pub(crate) fn seal(body: &[u8]) -> Bytes {
    let mut stored = Vec::with_capacity(1 + body.len());
    stored.push(PLAIN);
    stored.extend_from_slice(body);
    stored.into()
}

/// The body of a stored form, shared with it where the form allows.
///
/// # Errors
/// Not a stored body, or of a form this version does not know: what is wrong with it.
pub(crate) fn open(stored: Bytes) -> Result<Bytes, String> {
    match stored.first() {
        Some(&PLAIN) => Ok(stored.slice(1..)),
        Some(form) => Err(format!("a body is kept in form {form}, which this version does not know")),
        None => Err("a body has lost the byte that says how it is kept".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_comes_back_byte_for_byte() {
        for body in [&b""[..], b"\0", b"\x01\xff text", &[7; 70_000]] {
            assert_eq!(open(seal(body)), Ok(Bytes::copy_from_slice(body)));
        }
    }

    #[test]
    fn what_is_no_stored_body_is_refused() {
        assert!(open(Bytes::new()).is_err());
        assert!(open(Bytes::from_static(b"\x7fbody")).expect_err("unknown").contains("form 127"));
    }
}
