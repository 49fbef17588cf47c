//! Mermaid: <https://mermaid.js.org/syntax/flowchart.html>.

use super::picture::{Label, Picture};

/// All pipelines as one flowchart.
pub(super) fn draw(pictures: &[Picture]) -> String {
    let mut lines = vec!["flowchart LR".to_owned()];
    for (index, picture) in pictures.iter().enumerate() {
        let id = format!("p{index}");
        lines.push(format!("  subgraph {id}[\"{}\"]", escape(&picture.name)));
        pipeline(&id, picture, &mut lines);
        lines.push("  end".to_owned());
    }
    lines.push(String::new());
    lines.join("\n")
}

fn pipeline(id: &str, picture: &Picture, lines: &mut Vec<String>) {
    let mut line = |text: String| lines.push(format!("    {text}"));
    line(format!("{id}in([\"{}\"])", text(&picture.source)));
    let mut last = format!("{id}in");
    for (index, step) in picture.steps.iter().enumerate() {
        let here = format!("{id}s{index}");
        line(format!("{here}[\"{}\"]", text(&step.label)));
        line(format!("{last} --> {here}"));
        line(format!("{here} -. {} .-> {id}dead", step.dead_letter));
        last = here;
    }
    for (index, target) in picture.targets.iter().enumerate() {
        let here = format!("{id}t{index}");
        line(format!("{here}[/\"{}\"/]", text(target)));
        let arrow = match (picture.routed, picture.unroutable_to == Some(index)) {
            (_, true) => "-- also without a route -->",
            (true, false) => "-->",
            (false, false) => "-- all -->",
        };
        line(format!("{last} {arrow} {here}"));
        if picture.targets_dead_letter {
            line(format!("{here} -. gave up .-> {id}dead"));
        }
    }
    line(format!("{id}dead[(\"{}\")]", text(&picture.dead_letters)));
}

fn text(label: &Label) -> String {
    match label.detail.as_str() {
        "" => escape(&label.title),
        detail => format!("{}<br/>{}", escape(&label.title), escape(detail)),
    }
}

/// Texts stand in double quotes; there Mermaid reads HTML, Markdown and its own `#…;` entities.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '<' | '>' | '&' | '#' | '`' | ';' | '*' | '\\' | '[' | ']' | '{' | '}' => {
                escaped.push_str(&format!("#{};", c as u32));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_leave_its_quotes() {
        let escaped = escape("a\"]; click x \"<script>#quot; `b`");
        for forbidden in ['"', '<', '>', ']', '`'] {
            assert!(!escaped.contains(forbidden), "{escaped}");
        }
        assert_eq!(escape("orders-eu /a_b"), "orders-eu /a_b");
        assert_eq!(escape("#quot;"), "#35;quot#59;");
    }
}
