//! Pages of long lists.

/// Most items of a page.
pub const MAX_PAGE_ITEMS: usize = 1_000;

/// Some items, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// At most as many as were asked for.
    pub items: Vec<T>,
    /// Gets the next page, when there is more.
    pub next: Option<String>,
}
