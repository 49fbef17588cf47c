//! Source.
use crate::registry::BuildContext;
use sluicegate_engine::{
    failure::Failure,
    source::{Connection, Source},
};
/// Source.
pub struct GenerateSource;
impl GenerateSource {
    /// Not yet connected.
    pub fn new(_: &super::SourceConfig, _: &BuildContext) -> Self {
        Self
    }
}
#[async_trait::async_trait]
impl Source for GenerateSource {
    async fn connect(&mut self) -> Result<Connection, Failure> {
        Err(Failure::permanent("not built yet"))
    }
}
