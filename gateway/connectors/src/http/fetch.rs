//! Reading a small document over HTTP, for the gateway itself.

use std::time::Duration;

use super::client::{self, Settings, causes};
use super::reach::Reach;
use reqwest::Url;

/// Reads the document at `url`, which must be answered 200 within `timeout` and have at most `limit_bytes`. Redirects are not
/// followed. Cancel safe.
///
/// # Errors
/// What went wrong, without anything of the URL but its host.
pub async fn fetch(url: &str, reach: Reach, limit_bytes: usize, timeout: Duration) -> Result<Vec<u8>, String> {
    let url = Url::parse(url).map_err(|error| format!("the URL cannot be read: {error}"))?;
    let host = url.host_str().unwrap_or_default().to_owned();
    reach.check(&url).map_err(|error| error.to_string())?;
    let client =
        client::build(Settings { reach, ..Settings::new(timeout, 0) }).await.map_err(|failure| failure.text)?;
    let failed = |error: reqwest::Error| format!("asking {host}: {}", causes(&error.without_url()));
    let mut response = client.get(url).timeout(timeout).send().await.map_err(failed)?;
    if response.status() != 200 {
        return Err(format!("asking {host}: it answers {}", response.status()));
    }
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if document.len() + chunk.len() > limit_bytes {
            return Err(format!("asking {host}: the answer has more than {limit_bytes} bytes"));
        }
        document.extend_from_slice(&chunk);
    }
    Ok(document)
}
