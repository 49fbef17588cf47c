//! The plugins that come with the gateway: real components inside the binary, rebuilt and compared by `tests/run`.

use bytes::Bytes;

/// The component of the built-in plugin `name`; `None` if there is none of that name.
pub fn component(name: &str) -> Option<Bytes> {
    let component: &'static [u8] = match name {
        "content-router" => include_bytes!("../../plugins/components/content-router.wasm"),
        "jq" => include_bytes!("../../plugins/components/jq.wasm"),
        "redact" => include_bytes!("../../plugins/components/redact.wasm"),
        "split" => include_bytes!("../../plugins/components/split.wasm"),
        "topic-router" => include_bytes!("../../plugins/components/topic-router.wasm"),
        _ => return None,
    };
    Some(Bytes::from_static(component))
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::config::BUILTIN_PLUGINS;

    #[test]
    fn every_built_in_plugin_is_here_with_its_committed_digest() {
        let sums = include_str!("../../plugins/components/SHA256SUMS");
        for name in BUILTIN_PLUGINS {
            let digest = format!("{:x}", Sha256::digest(component(name).expect("a component")));
            let line = format!("{digest}  plugins/components/{name}.wasm");
            assert!(sums.lines().any(|l| l == line), "{name}: its digest is {digest}, but SHA256SUMS says otherwise");
        }
    }
}
