//! What tenants may be granted: checked as if a pipeline named it, kept as it was written.

use super::Resolver;
use crate::config::resolved::Offers;
use crate::config::tree::{Node, join};

impl Resolver<'_> {
    pub(super) fn offers(&mut self) -> Offers {
        let written = &self.written.tenants;
        let sources =
            written.sources.iter().map(|(name, source)| ("sources", name, source.system(), source.problems()));
        let targets =
            written.targets.iter().map(|(name, target)| ("targets", name, target.system(), target.problems()));
        for (section, name, system, problems) in sources.chain(targets) {
            self.problems(&format!("/tenants/{section}{}/{system}", join("", name)), problems);
        }
        let all = |section: &str| {
            let entries = self.root.find(&format!("/tenants/{section}")).map(Node::entries).unwrap_or_default();
            entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect()
        };
        let base_dir = (self.base_of)(self.root.key_place("/tenants"));
        Offers { sources: all("sources"), targets: all("targets"), base_dir }
    }
}
