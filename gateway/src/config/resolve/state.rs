//! What the gateway keeps: where, for how long, and how encrypted.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sluicegate_connectors::quantity::Secret;

use super::Resolver;
use crate::config::resolved::{DeadLettersConfig, EncryptionConfig, MasterKey, ReceiptsConfig};

impl Resolver<'_> {
    pub(super) fn state(&mut self) -> (Option<Secret>, ReceiptsConfig, Option<EncryptionConfig>) {
        let written = self.written;
        if let Some(url) = &written.store
            && !["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme))
        {
            self.wrong("/store", "this is not the URL of a PostgreSQL database").hint = Some(
                "postgres://USER:PASSWORD@HOST:5432/DATABASE; leave `store` out to keep state in `data_dir`".to_owned(),
            );
        }
        let keep = self.span("/receipts/keep", written.receipts.keep, ("1m", "365d"));
        let receipts = ReceiptsConfig { sample: written.receipts.sample, keep };
        let encryption = written.encryption.as_ref().and_then(|section| {
            let previous = section.previous_master_keys.iter().enumerate();
            let previous: Vec<Option<MasterKey>> = previous
                .map(|(index, key)| self.master_key(&format!("/encryption/previous_master_keys/{index}"), key))
                .collect();
            let master_key = self.master_key("/encryption/master_key", &section.master_key)?;
            Some(EncryptionConfig { master_key, previous: previous.into_iter().collect::<Option<_>>()? })
        });
        (written.store.clone(), receipts, encryption)
    }

    pub(super) fn dead_letters(&mut self) -> DeadLettersConfig {
        let section = self.written.dead_letters;
        let keep = section.keep.map(|keep| self.span("/dead_letters/keep", keep, ("1m", "3650d")));
        DeadLettersConfig { keep, max: section.max.map(std::num::NonZeroU64::get) }
    }

    fn master_key(&mut self, pointer: &str, key: &Secret) -> Option<MasterKey> {
        let bytes = STANDARD.decode(key.expose().trim()).ok();
        let key = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).map(MasterKey);
        if key.is_none() {
            self.wrong(pointer, "this is not a key of 32 bytes as base64").hint =
                Some("make one with `openssl rand -base64 32` and keep it apart from the data".to_owned());
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use crate::config::in_memory::load_text;

    const PIPELINE: &str = "pipelines:\n  p:\n    source: { stdio: {} }\n    targets: { out: { stdio: {} } }\n";

    #[test]
    fn what_cannot_be_kept_like_that_is_said_at_its_place() {
        let text = format!(
            "store: mysql://localhost/x\nreceipts: {{ keep: 1s }}\ndead_letters: {{ keep: 1s }}\nencryption: {{ master_key: c2hvcnQ= }}\n{PIPELINE}"
        );
        let Err(wrong) = load_text(&text) else { panic!("it is wrong in four places") };
        let said = wrong.to_string();
        for expected in ["PostgreSQL database", "outside its limits", "32 bytes as base64"] {
            assert!(said.contains(expected), "{said}");
        }
        assert!(said.matches("outside its limits").count() == 2, "{said}");
        assert!(!said.contains("c2hvcnQ="), "keys are never shown: {said}");
    }

    #[test]
    fn a_store_a_key_and_a_window_are_taken() {
        let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        let text = format!(
            "store: postgres://u:secret@db/x\nencryption: {{ master_key: {key} }}\n{PIPELINE}    deduplicate: 24h\n"
        );
        let loaded = load_text(&text).unwrap_or_else(|wrong| panic!("{wrong}"));
        let config = loaded.config;
        assert_eq!(config.encryption.as_ref().map(|e| e.master_key.0), Some(*b"0123456789abcdef0123456789abcdef"));
        assert_eq!(config.pipelines[0].deduplicate, Some(std::time::Duration::from_secs(86_400)));
        let shown = format!("{config:?}");
        assert!(!shown.contains("secret@") && !shown.contains(key) && !shown.contains("0123456789abcdef"), "{shown}");
    }
}
