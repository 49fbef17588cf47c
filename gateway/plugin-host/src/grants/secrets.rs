//! The capability `secrets`.

use super::Capability;
use super::bindings::sluicegate::secrets::named::{Error, Host};
use super::call::Refusal;
use crate::state::State;

impl Host for State {
    async fn get(&mut self, name: String) -> wasmtime::Result<Result<String, Error>> {
        let answer = self.secret(&name);
        let outcome = match &answer {
            Ok(_) => "ok",
            Err(Error::TooEarly) => "too_early",
            Err(Error::Unknown) => "unknown",
            Err(Error::Limit) => "limit",
        };
        self.count_call(Capability::Secrets, outcome);
        Ok(answer)
    }
}

impl State {
    fn secret(&mut self, name: &str) -> Result<String, Error> {
        let grants = self.admit(Capability::Secrets, name.len())?;
        let secrets = grants.secrets.as_ref().ok_or(Error::TooEarly)?;
        let secret = secrets.get(name).ok_or(Error::Unknown)?;
        self.take_bytes(secret.len())?;
        Ok(secret)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooEarly => Self::TooEarly,
            Refusal::Limit(_) => Self::Limit,
        }
    }
}
