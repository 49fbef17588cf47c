//! SVG that needs nothing from outside: one row a pipeline, left to right from source to targets, dead letters below.

use std::fmt::Write as _;

use super::picture::{Label, Picture};

/// Sizes in pixels.
const BOX_HEIGHT: usize = 46;
const MIN_BOX_WIDTH: usize = 96;
const CHAR_WIDTH: usize = 8;
const GAP: usize = 44;
const MARGIN: usize = 24;
const HEADER: usize = 40;
const TARGET_GAP: usize = 14;
const DEAD_LETTER_DROP: usize = 56;

const STYLE: &str = "\
.frame{fill:#f6f8fa;stroke:#d0d7de}\
.name{font:600 15px sans-serif;fill:#1f2328}\
.title{font:600 13px sans-serif;fill:#1f2328}\
.detail{font:12px ui-monospace,monospace;fill:#57606a}\
.why{font:11px sans-serif;fill:#a40e26}\
.source{fill:#ddf4ff;stroke:#0969da}\
.step{fill:#ffffff;stroke:#6e7781}\
.target{fill:#dafbe1;stroke:#1a7f37}\
.dead{fill:#ffebe9;stroke:#cf222e}\
.flow{fill:none;stroke:#57606a;stroke-width:1.5}\
.fail{fill:none;stroke:#cf222e;stroke-width:1.2;stroke-dasharray:4 3}";

/// All pipelines, one below the other.
pub(super) fn draw(pictures: &[Picture]) -> String {
    let rows: Vec<Row<'_>> = pictures.iter().map(Row::new).collect();
    let width = rows.iter().map(|row| row.width).max().unwrap_or(MIN_BOX_WIDTH) + 2 * MARGIN;
    let height = rows.iter().map(|row| row.height + MARGIN).sum::<usize>() + MARGIN;
    let mut svg = Svg(String::new());
    svg.put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"pipelines\">\n\
         <style>{STYLE}</style>\n\
         <defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0 8 4 0 8z\" fill=\"#57606a\"/></marker>\n\
         <marker id=\"fall\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0 8 4 0 8z\" fill=\"#cf222e\"/></marker></defs>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>"
    ));
    let mut top = MARGIN;
    for row in &rows {
        row.draw(top, width - 2 * MARGIN, &mut svg);
        top += row.height + MARGIN;
    }
    svg.put(format_args!("</svg>"));
    svg.0
}

struct Svg(String);

impl Svg {
    /// Adds a line.
    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{text}").expect("a String takes all text");
    }

    fn box_(&mut self, class: &str, label: &Label, place: Place) {
        let Place { x, y, width } = place;
        let middle = x + width / 2;
        let round = if class == "source" { BOX_HEIGHT / 2 } else { 6 };
        self.put(format_args!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{BOX_HEIGHT}\" rx=\"{round}\"/>"
        ));
        let title = if label.detail.is_empty() { y + 28 } else { y + 20 };
        self.put(format_args!(
            "<text class=\"title\" x=\"{middle}\" y=\"{title}\" text-anchor=\"middle\">{}</text>",
            escape(&label.title)
        ));
        if !label.detail.is_empty() {
            self.put(format_args!(
                "<text class=\"detail\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                y + 37,
                escape(&label.detail)
            ));
        }
    }

    /// An arrow from left to right, as a curve if it also goes up or down.
    fn flow(&mut self, from: (usize, usize), to: (usize, usize)) {
        let middle = usize::midpoint(from.0, to.0);
        self.put(format_args!(
            "<path class=\"flow\" marker-end=\"url(#arrow)\" d=\"M{} {} C{middle} {} {middle} {} {} {}\"/>",
            from.0, from.1, from.1, to.1, to.0, to.1
        ));
    }

    /// A broken arrow downwards, with its reason.
    fn fall(&mut self, x: usize, from: usize, to: usize, why: &str) {
        self.put(format_args!("<path class=\"fail\" marker-end=\"url(#fall)\" d=\"M{x} {from} V{to}\"/>"));
        self.put(format_args!("<text class=\"why\" x=\"{}\" y=\"{}\">{}</text>", x + 6, from + 22, escape(why)));
    }
}

#[derive(Clone, Copy)]
struct Place {
    x: usize,
    y: usize,
    width: usize,
}

struct Row<'p> {
    picture: &'p Picture,
    /// Widths of source, steps, targets.
    widths: Vec<usize>,
    target_width: usize,
    targets_height: usize,
    width: usize,
    height: usize,
}

impl<'p> Row<'p> {
    fn new(picture: &'p Picture) -> Self {
        let mut widths = vec![box_width(&picture.source)];
        widths.extend(picture.steps.iter().map(|step| box_width(&step.label)));
        let target_width = picture.targets.iter().map(box_width).max().unwrap_or(MIN_BOX_WIDTH);
        let count = picture.targets.len().max(1);
        let targets_height = count * BOX_HEIGHT + (count - 1) * TARGET_GAP;
        // An arrow with a text on it needs more room than a gap.
        let last_gap = GAP + 60;
        let inner = widths.iter().sum::<usize>() + (widths.len() - 1) * GAP + last_gap + target_width;
        let name = picture.name.chars().count() * (CHAR_WIDTH + 1);
        Self {
            picture,
            target_width,
            targets_height,
            width: inner.max(name).max(box_width(&picture.dead_letters)) + 2 * MARGIN,
            height: HEADER + targets_height + DEAD_LETTER_DROP + BOX_HEIGHT + MARGIN,
            widths,
        }
    }

    fn draw(&self, top: usize, width: usize, svg: &mut Svg) {
        let picture = self.picture;
        let left = MARGIN;
        svg.put(format_args!(
            "<rect class=\"frame\" x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{}\" rx=\"10\"/>",
            self.height
        ));
        svg.put(format_args!(
            "<text class=\"name\" x=\"{}\" y=\"{}\">{}</text>",
            left + MARGIN,
            top + 26,
            escape(&picture.name)
        ));
        let row_top = top + HEADER;
        let middle = row_top + self.targets_height / 2;
        let dead_top = row_top + self.targets_height + DEAD_LETTER_DROP;
        let boxes_top = middle - BOX_HEIGHT / 2;
        let mut x = left + MARGIN;
        svg.box_("source", &picture.source, Place { x, y: boxes_top, width: self.widths[0] });
        x += self.widths[0];
        let mut falls = Vec::new();
        for (step, width) in picture.steps.iter().zip(&self.widths[1..]) {
            svg.flow((x, middle), (x + GAP, middle));
            x += GAP;
            svg.box_("step", &step.label, Place { x, y: boxes_top, width: *width });
            falls.push((x + width / 2, boxes_top + BOX_HEIGHT, step.dead_letter));
            x += width;
        }
        let target_left = x + GAP + 60;
        for (index, target) in picture.targets.iter().enumerate() {
            let y = row_top + index * (BOX_HEIGHT + TARGET_GAP);
            svg.flow((x, middle), (target_left, y + BOX_HEIGHT / 2));
            svg.box_("target", target, Place { x: target_left, y, width: self.target_width });
            if picture.unroutable_to == Some(index) {
                let (x, y) = (target_left - 6, y + BOX_HEIGHT / 2 - 8);
                svg.put(format_args!("<text class=\"why\" x=\"{x}\" y=\"{y}\" text-anchor=\"end\">no route</text>"));
            }
        }
        if picture.targets_dead_letter {
            falls.push((target_left + self.target_width / 2, row_top + self.targets_height, "gave up"));
        }
        self.dead_letters(left + MARGIN, target_left + self.target_width, dead_top, &falls, svg);
    }

    /// A bar below all that can fail.
    fn dead_letters(&self, left: usize, right: usize, y: usize, falls: &[(usize, usize, &str)], svg: &mut Svg) {
        for (x, from, why) in falls {
            svg.fall(*x, *from, y, why);
        }
        let first = falls.iter().map(|(x, _, _)| *x).min().unwrap_or(left);
        let x = first.saturating_sub(60).max(left);
        let width = (right - x).max(box_width(&self.picture.dead_letters));
        svg.box_("dead", &self.picture.dead_letters, Place { x, y, width });
    }
}

fn box_width(label: &Label) -> usize {
    let chars = label.title.chars().count().max(label.detail.chars().count());
    (chars * CHAR_WIDTH + 24).max(MIN_BOX_WIDTH)
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        assert_eq!(escape("<script>\"&"), "&lt;script&gt;&quot;&amp;");
    }
}
