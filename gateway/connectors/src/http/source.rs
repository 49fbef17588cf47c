//! Source.
use crate::registry::BuildContext;
use sluicegate_engine::{
    failure::Failure,
    source::{Connection, Source},
};
/// Source.
pub struct HttpSource;
impl HttpSource {
    /// Not yet connected.
    pub fn new(_: &super::SourceConfig, _: &BuildContext) -> Self {
        Self
    }
}
#[async_trait::async_trait]
impl Source for HttpSource {
    async fn connect(&mut self) -> Result<Connection, Failure> {
        Err(Failure::permanent("not built yet"))
    }
}
