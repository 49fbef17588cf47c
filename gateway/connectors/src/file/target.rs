//! Target.
use crate::registry::BuildContext;
use sluicegate_engine::{
    failure::Failure,
    target::{Outlet, Target},
};
use std::sync::Arc;
/// Target.
pub struct FileTarget;
impl FileTarget {
    /// Not yet connected.
    pub fn new(_: &super::TargetConfig, _: &BuildContext) -> Self {
        Self
    }
}
#[async_trait::async_trait]
impl Target for FileTarget {
    async fn connect(&mut self) -> Result<Arc<dyn Outlet>, Failure> {
        Err(Failure::permanent("not built yet"))
    }
}
