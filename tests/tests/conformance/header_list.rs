//! The CloudEvents attribute `sluicegateheaders`, written by hand as documented: a JSON array of `[name, text]` and
//! `[name, base64, "base64"]`.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

pub fn write(headers: &[(String, Vec<u8>)]) -> String {
    let list = headers.iter().map(|(name, value)| match std::str::from_utf8(value) {
        Ok(text) => json!([name, text]),
        Err(_) => json!([name, BASE64.encode(value), "base64"]),
    });
    Value::from_iter(list).to_string()
}

pub fn read(list: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let list: Vec<Vec<String>> = serde_json::from_str(list).with_context(|| format!("the header list {list}"))?;
    list.into_iter()
        .map(|entry| match <[String; 3]>::try_from(entry) {
            Ok([name, encoded, _]) => Ok((name, BASE64.decode(encoded)?)),
            Err(entry) => {
                let [name, text] = <[String; 2]>::try_from(entry).ok().context("a header of another shape")?;
                Ok((name, text.into_bytes()))
            }
        })
        .collect()
}
