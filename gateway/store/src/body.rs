//! Bodies as they are stored: a byte that says how, then the body in that form. All bodies of the store pass through
//! [`seal`] and [`open`], so that other forms (compressed, encrypted with a key of some version) are added here alone.

use bytes::Bytes;

/// As it came.
const PLAIN: u8 = 0;
/// Compressed: its length as 4 bytes, the lowest first, then a frame of zstd (RFC 8878).
const ZSTD: u8 = 1;
const ZSTD_HEAD_BYTES: usize = 5;
/// zstd's fastest of the plain levels: JSON of 1 KiB shrinks to about half in 10 µs.
const LEVEL: i32 = 1;
/// A shorter body is not worth the time.
const MIN_COMPRESSED_BYTES: usize = 256;
/// A longer body is kept as it is: so a stored length that claims more is damage, not a reason to make room for it.
const MAX_COMPRESSED_BYTES: usize = 256 << 20;

/// The stored form of a body.
pub(crate) fn seal(body: &[u8]) -> Bytes {
    let mut stored = Vec::with_capacity(1 + body.len());
    stored.push(PLAIN);
    stored.extend_from_slice(body);
    stored.into()
}

/// The same, compressed where that makes it smaller.
pub(crate) fn seal_compressed(body: &[u8]) -> Bytes {
    if !(MIN_COMPRESSED_BYTES..=MAX_COMPRESSED_BYTES).contains(&body.len()) {
        return seal(body);
    }
    let compressed = u32::try_from(body.len()).ok().zip(zstd::bulk::compress(body, LEVEL).ok());
    match compressed {
        Some((length, compressed)) if ZSTD_HEAD_BYTES + compressed.len() < 1 + body.len() => {
            let mut stored = Vec::with_capacity(ZSTD_HEAD_BYTES + compressed.len());
            stored.push(ZSTD);
            stored.extend_from_slice(&length.to_le_bytes());
            stored.extend_from_slice(&compressed);
            stored.into()
        }
        // Too large to compress in one piece, or noise already.
        Some(_) | None => seal(body),
    }
}

/// The body of a stored form, shared with it where the form allows.
///
/// # Errors
/// Not a stored body, or of a form this version does not know: what is wrong with it.
pub(crate) fn open(stored: Bytes) -> Result<Bytes, String> {
    match stored.first() {
        Some(&PLAIN) => Ok(stored.slice(1..)),
        Some(&ZSTD) => decompress(&stored[1..]).map_err(|cause| format!("a compressed body: {cause}")),
        Some(form) => Err(format!("a body is kept in form {form}, which this version does not know")),
        None => Err("a body has lost the byte that says how it is kept".to_owned()),
    }
}

fn decompress(stored: &[u8]) -> Result<Bytes, String> {
    let (length, frame) = stored.split_first_chunk::<4>().ok_or("it ends before its length")?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_COMPRESSED_BYTES {
        return Err(format!("it would have {length} bytes, more than {MAX_COMPRESSED_BYTES}"));
    }
    let body = zstd::bulk::decompress(frame, length).map_err(|error| error.to_string())?;
    if body.len() == length { Ok(body.into()) } else { Err("it has another length".to_owned()) }
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
    fn a_compressed_body_comes_back_and_is_never_larger() {
        let noise: Vec<u8> = (0..5_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for body in [&b""[..], b"short", &[7; 70_000], &noise] {
            let stored = seal_compressed(body);
            assert!(stored.len() <= body.len() + 1, "{} of {}", stored.len(), body.len());
            assert_eq!(open(stored), Ok(Bytes::copy_from_slice(body)));
        }
        assert!(seal_compressed(&[7; 70_000]).len() < 1_000);
    }

    #[test]
    fn a_damaged_compressed_body_is_refused() {
        let stored = seal_compressed(&[7; 70_000]);
        for length in [1, 4, 5, stored.len() - 1] {
            assert!(open(stored.slice(..length)).is_err(), "{length} bytes");
        }
        let mut longer = stored.to_vec();
        longer[1] ^= 1;
        assert!(open(longer.into()).is_err());
        let mut bomb = stored.to_vec();
        bomb[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(open(bomb.into()).expect_err("too long").contains("more than"));
        // What is said to be short is not unpacked any further.
        let mut bomb = seal_compressed(&vec![0; 100 << 20]).to_vec();
        bomb[1..5].copy_from_slice(&300_u32.to_le_bytes());
        assert!(open(bomb.into()).is_err());
    }

    #[test]
    fn what_is_no_stored_body_is_refused() {
        assert!(open(Bytes::new()).is_err());
        assert!(open(Bytes::from_static(b"\x7fbody")).expect_err("unknown").contains("form 127"));
    }
}
