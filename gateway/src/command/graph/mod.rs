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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::in_memory::load_text;

    const CONFIG: &str = "
schemas: { order: { inline: true } }
pipelines:
  orders:
    source: { http: { path: /ingest/orders } }
    steps:
      - validate: { schema: order }
      - filter: { plugin: jq, config: { program: '\"</style><script>\"' } }
      - route: { plugin: content-router, unroutable: us }
    targets:
      eu: { rabbitmq: { url: 'amqp://me:hunter2@broker', exchange: 'a\"] --> b[\"<b>' } }
      us: { redis: { url: 'redis://:hunter2@localhost', stream: orders-us } }
  echo:
    source: { stdio: {} }
    targets: { out: { stdio: {} } }
";

    fn drawn(format: Format) -> String {
        let loaded = load_text(CONFIG).unwrap_or_else(|wrong| panic!("{wrong}"));
        let mut out = Vec::new();
        assert_eq!(graph(&loaded, format, &mut out).expect("write"), Exit::Clean);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn mermaid_shows_the_way_of_messages() {
        let text = drawn(Format::Mermaid);
        for line in [
            "flowchart LR",
            "  subgraph p0[\"orders\"]",
            "    p0in([\"http<br/>/ingest/orders\"])",
            "    p0in --> p0s0",
            "    p0s0 -. invalid .-> p0dead",
            "    p0s2 --> p0t0",
            "    p0s2 -- also without a route --> p0t1",
            "    p0t0[/\"eu<br/>rabbitmq a#34;#93; --#62; b#91;#34;#60;b#62;\"/]",
            "    p1in -- all --> p1t0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn the_svg_is_well_formed_and_needs_nothing_from_outside() {
        let text = drawn(Format::Svg);
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"), "{text}");
        assert!(text.contains("rabbitmq a&quot;] --&gt; b[&quot;&lt;b&gt;"), "{text}");
        let outside = text.replace("http://www.w3.org/2000/svg", "");
        for forbidden in ["href", "<script", "://", "@import", "hunter2"] {
            assert!(!outside.contains(forbidden), "{forbidden} is in\n{text}");
        }
        // Every element is closed, in order.
        let mut open = Vec::new();
        for tag in text.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').expect("a tag ends");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split(' ').next().expect("a name")),
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }
}
