//! Reading a request's body within limits of size, time and memory, and decompressing it without giving a bomb room.

use std::error::Error;
use std::io::Read;
use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use flate2::bufread::MultiGzDecoder;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{ProblemCode, ProblemDetails};
use super::server::BodyReadTimeout;

/// Body memory is claimed in pieces of this size.
const PIECE_BYTES: usize = 4 << 10;

/// Decompression yields to other requests after this much output.
const GUNZIP_STEP_BYTES: usize = 32 << 10;

/// The memory that all bodies together may take, from their first byte until their messages are settled.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / PIECE_BYTES).clamp(1, u32::MAX as usize))))
    }

    /// A claim on nothing yet.
    pub(super) fn claim(&self) -> Claim {
        Claim { budget: self.clone(), pieces: 0, held: None }
    }
}

/// A part of the [`Budget`], given back when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    budget: Budget,
    pieces: usize,
    held: Option<OwnedSemaphorePermit>,
}

impl Claim {
    /// Claims `bytes` altogether; never waits, since a client that waits would keep what it has.
    fn grow_to(&mut self, bytes: usize) -> Result<(), ProblemDetails> {
        let more = bytes.div_ceil(PIECE_BYTES).saturating_sub(self.pieces);
        if more == 0 {
            return Ok(());
        }
        let wanted = u32::try_from(more).map_err(|_| overloaded())?;
        let permit = Arc::clone(&self.budget.0).try_acquire_many_owned(wanted).map_err(|_| overloaded())?;
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        self.pieces += more;
        Ok(())
    }
}

fn overloaded() -> ProblemDetails {
    ProblemDetails::new(
        ProblemCode::Overloaded,
        "the bodies of other requests take all the memory the gateway gives them; try again in a moment",
    )
    .with_retry_after(1)
}

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As it is.
    Identity,
    /// gzip, any number of members.
    Gzip,
}

/// What `Content-Encoding` says.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Encoding, ProblemDetails> {
    let mut encoding = Encoding::Identity;
    for value in headers.get_all(CONTENT_ENCODING) {
        let name = value.to_str().unwrap_or("(not ASCII)").trim().to_ascii_lowercase();
        encoding = match (name.as_str(), encoding) {
            ("" | "identity", before) => before,
            ("gzip" | "x-gzip", Encoding::Identity) => Encoding::Gzip,
            (other, _) => {
                return Err(ProblemDetails::new(
                    ProblemCode::UnsupportedEncoding,
                    format!(
                        "the body's content encoding `{}` is not understood; send it with gzip or without any",
                        other.chars().take(64).collect::<String>()
                    ),
                ));
            }
        };
    }
    Ok(encoding)
}

/// Refuses by `Content-Length` alone, before anything is read.
pub(super) fn check_declared_length(headers: &HeaderMap, limit_bytes: usize) -> Result<(), ProblemDetails> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match declared {
        Some(length) if length > limit_bytes as u64 => Err(too_large(limit_bytes)),
        Some(_) | None => Ok(()),
    }
}

/// Reads all of `body`.
///
/// # Errors
/// 400 when it ends early, 408 when it is late, 413 when it is larger than `limit_bytes`, 503 when there is no memory.
pub(super) async fn read(body: &mut Body, limit_bytes: usize, claim: &mut Claim) -> Result<Bytes, ProblemDetails> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| unreadable(&error, length))?;
        // Trailers say nothing about the message.
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > limit_bytes {
            return Err(too_large(limit_bytes));
        }
        claim.grow_to(length)?;
        match &first {
            None => first = Some(data),
            Some(start) => {
                if rest.is_empty() {
                    rest.extend_from_slice(start);
                }
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() })
}

/// Decompresses, in small steps between which other requests get their turn.
///
/// # Errors
/// 400 when it is not gzip, 413 when it grows larger than `limit_bytes`, 503 when there is no memory.
pub(super) async fn gunzip(compressed: &[u8], limit_bytes: usize, claim: &mut Claim) -> Result<Bytes, ProblemDetails> {
    let mut decoder = MultiGzDecoder::new(compressed);
    let mut plain = Vec::new();
    let mut step = vec![0; GUNZIP_STEP_BYTES];
    loop {
        let got = decoder.read(&mut step).map_err(|error| {
            ProblemDetails::new(
                ProblemCode::BodyUndecodable,
                format!(
                    "decompressing the body as gzip failed after {} bytes: {error}; check that it is complete",
                    plain.len()
                ),
            )
        })?;
        if got == 0 {
            return Ok(plain.into());
        }
        if plain.len() + got > limit_bytes {
            return Err(too_large(limit_bytes));
        }
        // What is compressed stays claimed beside what comes out of it.
        claim.grow_to(compressed.len() + plain.len() + got)?;
        plain.extend_from_slice(&step[..got]);
        tokio::task::yield_now().await;
    }
}

fn too_large(limit_bytes: usize) -> ProblemDetails {
    ProblemDetails::new(
        ProblemCode::BodyTooLarge,
        format!("the body is larger than the {limit_bytes} bytes allowed here, counted after decompression; send less in one request"),
    )
    .with("limitBytes", limit_bytes)
    .closing()
}

fn unreadable(error: &(dyn Error + 'static), read_bytes: usize) -> ProblemDetails {
    let mut cause = Some(error);
    while let Some(one) = cause {
        if let Some(BodyReadTimeout { limit }) = one.downcast_ref() {
            return ProblemDetails::new(
                ProblemCode::BodyTimeout,
                format!("the body was not there {limit:?} after its request; {read_bytes} bytes of it were read"),
            )
            .closing();
        }
        cause = one.source();
    }
    ProblemDetails::new(
        ProblemCode::BodyIncomplete,
        format!("the body ended or broke after {read_bytes} bytes, before it was complete; nothing was accepted"),
    )
    .closing()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use futures_util::stream;
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn chunked(chunks: &[&'static str]) -> Body {
        Body::from_stream(stream::iter(chunks.iter().map(|chunk| Ok::<_, std::io::Error>(*chunk)).collect::<Vec<_>>()))
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let budget = Budget::new(1 << 20);
        let mut claim = budget.claim();
        assert_eq!(read(&mut chunked(&["ab", "cd", "e"]), 5, &mut claim).await.unwrap(), "abcde");
        assert_eq!(read(&mut Body::empty(), 5, &mut claim).await.unwrap(), "");
        let refused = read(&mut chunked(&["abc", "def"]), 5, &mut claim).await.unwrap_err();
        assert_eq!(refused.code(), ProblemCode::BodyTooLarge);
    }

    #[tokio::test]
    async fn memory_is_claimed_as_bytes_arrive_and_given_back() {
        let budget = Budget::new(2 * PIECE_BYTES);
        let mut first = budget.claim();
        first.grow_to(PIECE_BYTES + 1).unwrap();
        first.grow_to(10).unwrap();
        let mut second = budget.claim();
        let refused = read(&mut chunked(&["x"]), 5, &mut second).await.unwrap_err();
        assert_eq!((refused.code(), refused.status().as_u16()), (ProblemCode::Overloaded, 503));
        drop(first);
        assert_eq!(read(&mut chunked(&["x"]), 5, &mut second).await.unwrap(), "x");
    }

    #[tokio::test]
    async fn a_broken_body_is_incomplete() {
        let parts = stream::iter([Ok("abc"), Err(std::io::Error::other("reset"))]);
        let budget = Budget::new(1 << 20);
        let refused = read(&mut Body::from_stream(parts), 50, &mut budget.claim()).await.unwrap_err();
        assert_eq!(refused.code(), ProblemCode::BodyIncomplete);
        assert!(refused.detail().contains("3 bytes"), "{}", refused.detail());
    }

    #[tokio::test]
    async fn a_bomb_is_stopped_at_the_limit() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100 << 10);
        let budget = Budget::new(8 << 20);
        let refused = gunzip(&bomb, 1 << 20, &mut budget.claim()).await.unwrap_err();
        assert_eq!((refused.code(), refused.status().as_u16()), (ProblemCode::BodyTooLarge, 413));
        let small = Budget::new(256 << 10);
        let refused = gunzip(&bomb, 1 << 20, &mut small.claim()).await.unwrap_err();
        assert_eq!(refused.code(), ProblemCode::Overloaded);
    }

    #[tokio::test]
    async fn what_is_not_gzip_is_refused_and_several_members_are_one_body() {
        let budget = Budget::new(1 << 20);
        let mut truncated = gzip(b"hello");
        truncated.truncate(truncated.len() - 3);
        let trailing = [gzip(b"a"), b"rubbish".to_vec()].concat();
        for bad in [b"plain".to_vec(), truncated, trailing, Vec::new()] {
            let result = gunzip(&bad, 100, &mut budget.claim()).await;
            assert_eq!(result.map_err(|e| e.code()), Err(ProblemCode::BodyUndecodable), "{bad:?}");
        }
        let two = [gzip(b"hello "), gzip(b"world")].concat();
        assert_eq!(gunzip(&two, 100, &mut budget.claim()).await.unwrap(), "hello world");
    }

    #[test]
    fn encodings_other_than_gzip_are_unsupported() {
        let encoding_of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            encoding(&headers).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(encoding_of(&[]), Ok(Encoding::Identity));
        assert_eq!(encoding_of(&["identity"]), Ok(Encoding::Identity));
        assert_eq!(encoding_of(&["GZIP"]), Ok(Encoding::Gzip));
        assert_eq!(encoding_of(&["br"]), Err(415));
        assert_eq!(encoding_of(&["gzip", "gzip"]), Err(415));
        assert_eq!(encoding_of(&["gzip, br"]), Err(415));
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_out_again(plain in prop::collection::vec(any::<u8>(), 1..5_000)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let budget = Budget::new(1 << 20);
            let out = runtime.block_on(gunzip(&gzip(&plain), 5_000, &mut budget.claim())).unwrap();
            prop_assert_eq!(out, plain);
        }

        #[test]
        fn no_bytes_panic_the_decompression(bytes: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let budget = Budget::new(1 << 20);
            let mut input = vec![0x1f, 0x8b, 8, 0];
            input.extend(bytes);
            let result = runtime.block_on(gunzip(&input, 5_000, &mut budget.claim()));
            prop_assert!(result.map_or(true, |plain| plain.len() <= 5_000));
        }
    }
}
