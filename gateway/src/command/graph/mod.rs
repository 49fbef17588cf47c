//! `sluicegate graph`: the pipelines as a picture, as Mermaid text or as a self-contained SVG.

mod mermaid;
mod picture;
mod svg;

use std::io::{self, Write};

use super::Exit;
use crate::config::Loaded;

/// How the picture is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Text that Markdown viewers draw.
    #[default]
    Mermaid,
    /// An image.
    Svg,
}

/// Draws all pipelines.
///
/// # Errors
/// Writing fails.
pub fn graph(loaded: &Loaded, format: Format, out: &mut dyn Write) -> io::Result<Exit> {
    let pictures: Vec<picture::Picture> =
        loaded.config.pipelines.iter().map(|pipeline| picture::Picture::of(loaded, pipeline)).collect();
    let text = match format {
        Format::Mermaid => mermaid::draw(&pictures),
        Format::Svg => svg::draw(&pictures),
    };
    out.write_all(text.as_bytes())?;
    Ok(Exit::Clean)
}
