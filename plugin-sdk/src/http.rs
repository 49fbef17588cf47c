//! Outgoing HTTP to hosts that the operator lists: `grants: { http: { hosts: [api.example.org], rate: 50/s } }`.
//!
//! No redirects are followed; private addresses are refused unless allowed. A message has 64 calls and 10 s of waiting,
//! which costs it no CPU time. None of it can be used in `configure`.
//!
//! Natively nothing is sent: a test writes the answers, see [`double`].
//!
//! ```
//! use sluicegate_plugin::http::{self, Request};
//!
//! # #[cfg(not(target_family = "wasm"))] {
//! http::double::answer("https://api.example.org/customers/7", http::response(200, br#"{"tier":"gold"}"#));
//! let response = Request::get("https://api.example.org/customers/7").header("accept", "application/json").send()?;
//! assert!(response.is_success());
//! let customer: serde_json::Value = response.json()?;
//! assert_eq!(customer["tier"], "gold");
//! assert_eq!(http::double::requests()[0].url, "https://api.example.org/customers/7");
//! # }
//! # Ok::<(), sluicegate_plugin::Failure>(())
//! ```

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::Failure;
pub use crate::contract::http::{Error, Method, Request, Response};

impl Request {
    /// A request without headers or body.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: Vec::new(), body: Vec::new(), timeout_ms: None }
    }

    /// A GET.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::Get, url)
    }

    /// A POST of a body.
    pub fn post(url: impl Into<String>, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::new(Method::Post, url) }.header("content-type", content_type)
    }

    /// With one header more.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// With less time than is granted, in whole milliseconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout_ms = Some(u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX));
        self
    }

    /// Sends it and waits for the response, whatever its status.
    ///
    /// # Errors
    /// As the gateway says.
    pub fn send(&self) -> Result<Response, Error> {
        #[cfg(target_family = "wasm")]
        return crate::contract::http::send(self);
        #[cfg(not(target_family = "wasm"))]
        return double::send(self);
    }
}

impl Response {
    /// Whether its status is 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// First value of a header, if it is UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// Its body as JSON.
    ///
    /// # Errors
    /// The message is rejected: the body is no such JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::reject("http_bad_answer", format!("the body of a {} answer cannot be read: {error}", self.status))
        })
    }
}

/// A response, for a test.
#[must_use]
pub fn response(status: u16, body: &[u8]) -> Response {
    Response { status, headers: Vec::new(), body: body.to_vec() }
}

/// What may be better later is retried; all else is the plugin's or the grant's mistake.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(text) => Self::retry("http_unavailable", text),
            Error::Timeout => Self::retry("http_timeout", "no response in time"),
            Error::Rate(after_ms) => Self::retry_after(
                Duration::from_millis(after_ms.into()),
                "http_rate",
                "over the rate that the plugin is granted",
            ),
            Error::Limit(text) => Self::reject("http_limit", text),
            Error::Invalid(text) => Self::reject("http_invalid", text),
            Error::Refused(text) => Self::reject("http_refused", text),
            Error::TooLarge => Self::reject("http_too_large", "the response is larger than the plugin is granted"),
            Error::TooEarly => Self::reject("http_too_early", "there is no HTTP in `configure`"),
        }
    }
}

/// Answers that a test writes: each thread has its own.
#[cfg(not(target_family = "wasm"))]
pub mod double {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use super::{Error, Request, Response};

    #[derive(Default)]
    struct Script {
        answers: VecDeque<(String, Result<Response, Error>)>,
        requests: Vec<Request>,
    }

    thread_local! {
        static SCRIPT: RefCell<Script> = RefCell::default();
    }

    /// Answers the next request of this URL so, once.
    pub fn answer(url: impl Into<String>, response: Response) {
        SCRIPT.with_borrow_mut(|script| script.answers.push_back((url.into(), Ok(response))));
    }

    /// Fails the next request of this URL so, once.
    pub fn fail(url: impl Into<String>, error: Error) {
        SCRIPT.with_borrow_mut(|script| script.answers.push_back((url.into(), Err(error))));
    }

    /// Takes the requests made since the last call.
    #[must_use]
    pub fn requests() -> Vec<Request> {
        SCRIPT.with_borrow_mut(|script| std::mem::take(&mut script.requests))
    }

    pub(super) fn send(request: &Request) -> Result<Response, Error> {
        SCRIPT.with_borrow_mut(|script| {
            script.requests.push(request.clone());
            let found = script.answers.iter().position(|(url, _)| *url == request.url);
            match found.and_then(|at| script.answers.remove(at)) {
                Some((_, answer)) => answer,
                None => Err(Error::Refused(format!("the test has no answer for {}", request.url))),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Request, double, response};
    use crate::Failure;

    #[test]
    fn answers_come_once_and_in_order() {
        double::answer("https://a.test/", response(500, b""));
        double::fail("https://a.test/", Error::Timeout);
        let request = Request::post("https://a.test/", "text/plain", "hello");
        assert_eq!(request.send().map(|answer| answer.is_success()), Ok(false));
        assert_eq!(request.send(), Err(Error::Timeout));
        assert!(matches!(request.send(), Err(Error::Refused(_))));
        let asked = double::requests();
        assert_eq!(asked.len(), 3);
        assert_eq!(asked[0].headers, [("content-type".to_owned(), b"text/plain".to_vec())]);
    }

    #[test]
    fn a_rate_is_waited_for() {
        let Failure::Retry(postponement) = Failure::from(Error::Rate(40)) else { panic!("a retry") };
        assert_eq!(postponement.after_ms, Some(40));
    }
}
