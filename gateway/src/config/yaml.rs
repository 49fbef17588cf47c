//! Reads YAML 1.2 into a [`Node`] tree, within limits: hostile files cost no more than their size.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use serde_json::Number;

use super::diagnostic::Diagnostic;
use super::location::{FileId, Location};
use super::tree::{Entry, Node, NodeValue};

/// Deepest nesting of a file.
pub const MAX_DEPTH: usize = 64;

/// Most values in a file, those that aliases repeat counted each time.
pub const MAX_NODES: usize = 100_000;

/// Reads the only document of a file.
///
/// # Errors
/// What is wrong with it: the first mistake of syntax, or every mistake that leaves the structure clear (a key given
/// twice, a key that is no text).
pub fn parse(file: FileId, text: &str) -> Result<Node, Vec<Diagnostic>> {
    let mut reader =
        Reader { file, open: Vec::new(), root: None, anchors: HashMap::new(), nodes: 0, wrong: Vec::new() };
    for event in Parser::new_from_str(text) {
        let step =
            event.map_err(|error| explain(file, text, &error)).and_then(|(event, span)| reader.take(event, span));
        if let Err(fatal) = step {
            reader.wrong.push(fatal);
            return Err(reader.wrong);
        }
    }
    match reader.root {
        _ if !reader.wrong.is_empty() => Err(reader.wrong),
        Some(root) => Ok(root),
        None => Err(vec![
            Diagnostic::new(Location::point(file, 1, 1), "", "the file is empty")
                .hint("a configuration has at least `pipelines:`; see `sluicegate schema`"),
        ]),
    }
}

/// What an unquoted text means in YAML's core schema. Infinity and not-a-number are texts: JSON has neither.
pub(crate) fn plain(text: &str) -> NodeValue {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return NodeValue::Null,
        "true" | "True" | "TRUE" => return NodeValue::Bool(true),
        "false" | "False" | "FALSE" => return NodeValue::Bool(false),
        _ => {}
    }
    integer(text).or_else(|| float(text)).map_or_else(|| NodeValue::Text(text.to_owned()), NodeValue::Number)
}

fn integer(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Number::from);
    }
    text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from)).ok()
}

fn float(text: &str) -> Option<Number> {
    // Rust also reads `inf` and `nan`, which are plain words here.
    let digits = text.bytes().any(|b| b.is_ascii_digit());
    let number = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    if digits && number { text.parse().ok().and_then(Number::from_f64) } else { None }
}

/// A collection that is still being read.
struct Open {
    anchor: usize,
    at: Location,
    holds: Holds,
}

enum Holds {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, Location)> },
}

struct Reader {
    file: FileId,
    open: Vec<Open>,
    root: Option<Node>,
    /// Finished values by anchor, with how many values each is and how deep.
    anchors: HashMap<usize, (Node, usize, usize)>,
    nodes: usize,
    wrong: Vec<Diagnostic>,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
        let at = location(self.file, span);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(Diagnostic::new(at, "", "a second document (`---`) begins here; a file holds one")
                    .hint("put it into a file of its own: a folder of files is read as one configuration"))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(text, style, tag.as_deref(), at)?;
                self.finish(anchor, Node::new(at, value))
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(Open { anchor, at, holds: Holds::List(Vec::new()) }, tag.as_deref())
            }
            Event::MappingStart(anchor, tag) => {
                self.begin(Open { anchor, at, holds: Holds::Map { entries: Vec::new(), key: None } }, tag.as_deref())
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, at),
        }
    }

    fn scalar(
        &self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        at: Location,
    ) -> Result<NodeValue, Diagnostic> {
        refuse_tag(tag, &["str", "int", "float", "bool", "null"], at)?;
        let quoted = style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix == "str");
        Ok(if quoted { NodeValue::Text(text.into_owned()) } else { plain(&text) })
    }

    fn begin(&mut self, open: Open, tag: Option<&Tag>) -> Result<(), Diagnostic> {
        refuse_tag(tag, &["seq", "map"], open.at)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(open.at));
        }
        self.count(1, open.at)?;
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Diagnostic> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.holds {
            Holds::List(items) => NodeValue::List(items),
            Holds::Map { entries, .. } => NodeValue::Map(entries),
        };
        // Counted when it began.
        self.nodes -= 1;
        self.finish(open.anchor, Node::new(open.at, value))
    }

    fn alias(&mut self, anchor: usize, at: Location) -> Result<(), Diagnostic> {
        let Some((node, nodes, depth)) = self.anchors.get(&anchor) else {
            return Err(Diagnostic::new(at, "", "this alias stands inside the value it refers to")
                .hint("an alias (`*name`) can only repeat a value that is complete"));
        };
        if self.open.len() + depth > MAX_DEPTH {
            return Err(too_deep(at));
        }
        // Counted before it is copied: a bomb of aliases must not cost its memory first.
        if self.nodes + nodes > MAX_NODES {
            return Err(too_many(at));
        }
        let mut copy = node.clone();
        if *nodes == 1 {
            copy.at = at;
        }
        self.nodes += nodes - 1;
        self.finish(0, copy)
    }

    /// Puts a finished value where it belongs.
    fn finish(&mut self, anchor: usize, node: Node) -> Result<(), Diagnostic> {
        self.count(1, node.at)?;
        if anchor != 0 {
            let (nodes, depth) = extent(&node);
            self.anchors.insert(anchor, (node.clone(), nodes, depth));
            // The copy costs memory as well.
            self.count(nodes, node.at)?;
        }
        match self.open.last_mut().map(|open| &mut open.holds) {
            None => self.root = Some(node),
            Some(Holds::List(items)) => items.push(node),
            Some(Holds::Map { entries, key }) => match key.take() {
                None => *key = Some(read_key(node, entries, &mut self.wrong)),
                Some((key, key_at)) => entries.push(Entry { key, key_at, value: node }),
            },
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, at: Location) -> Result<(), Diagnostic> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES { Err(too_many(at)) } else { Ok(()) }
    }
}

fn read_key(node: Node, entries: &[Entry], wrong: &mut Vec<Diagnostic>) -> (String, Location) {
    let at = node.at;
    let key = match node.value {
        NodeValue::Text(key) => key,
        // `8080: …` and `true: …` are keys that look like something else; JSON would have them as text, too.
        NodeValue::Bool(value) => value.to_string(),
        NodeValue::Number(number) => number.to_string(),
        NodeValue::Null | NodeValue::List(_) | NodeValue::Map(_) => {
            let hint = "if a value was meant to begin with `{`, `[`, `*` or `?`, put it in quotes";
            wrong.push(Diagnostic::new(at, "", "this key is no text").hint(hint));
            return (String::new(), at);
        }
    };
    if key == "<<" {
        wrong.push(
            Diagnostic::new(at, "", "`<<` does not merge mappings: it is no part of YAML 1.2")
                .hint("write the keys out, or repeat a whole value with an alias (`*name`)"),
        );
    }
    if let Some(first) = entries.iter().find(|entry| entry.key == key) {
        wrong.push(
            Diagnostic::new(at, "", format!("the key `{key}` stands here twice"))
                .related(first.key_at, "the first one")
                .hint("remove or rename one of them"),
        );
    }
    (key, at)
}

fn extent(node: &Node) -> (usize, usize) {
    let (mut nodes, mut deepest) = (1, 0);
    let children = node.items().iter().chain(node.entries().iter().map(|entry| &entry.value));
    for child in children {
        let (below, depth) = extent(child);
        nodes += below;
        deepest = deepest.max(depth);
    }
    let own = usize::from(matches!(node.value, NodeValue::List(_) | NodeValue::Map(_)));
    (nodes, deepest + own)
}

fn refuse_tag(tag: Option<&Tag>, known: &[&str], at: Location) -> Result<(), Diagnostic> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && known.contains(&tag.suffix.as_str())) => {
            Err(Diagnostic::new(at, "", format!("the tag `{tag}` means nothing here"))
                .hint("remove it; put a text that begins with `!` in quotes"))
        }
        _ => Ok(()),
    }
}

fn too_deep(at: Location) -> Diagnostic {
    Diagnostic::new(at, "", format!("nested deeper than {MAX_DEPTH} levels"))
}

fn too_many(at: Location) -> Diagnostic {
    Diagnostic::new(at, "", format!("more than {MAX_NODES} values, those repeated by aliases counted each time"))
        .hint("split the file, or use fewer aliases")
}

fn location(file: FileId, span: Span) -> Location {
    // A value may end in the line break and white space after it; the caret should not.
    Location {
        file,
        line: span.start.line() as u32,
        column: span.start.col() as u32 + 1,
        end_line: span.end.line().max(span.start.line()) as u32,
        end_column: span.end.col() as u32 + 1,
    }
}

/// The parser's words and, for the mistakes people make most, what to do.
fn explain(file: FileId, text: &str, error: &ScanError) -> Diagnostic {
    let at = Location::point(file, (error.marker().line() as u32).max(1), error.marker().col() as u32 + 1);
    let indented_by_tab = |line: &str| {
        let indent = &line[..line.len() - line.trim_start().len()];
        indent.find('\t').map(|byte| indent[..byte].chars().count() as u32 + 1)
    };
    let tab =
        text.lines().take(at.line as usize).enumerate().filter_map(|(n, l)| Some((n, indented_by_tab(l)?))).last();
    if let Some((line, column)) = tab {
        let place = Location::point(file, line as u32 + 1, column);
        return Diagnostic::new(place, "", "indented with a tab").hint("YAML is indented with spaces only");
    }
    let hint = match error.info() {
        info if info.contains("mapping values are not allowed") => {
            "a text with `: ` in it must be in quotes; or the indentation of this line is off"
        }
        info if info.contains("did not find expected key") || info.contains("simple key") => {
            "keys of one mapping begin in the same column and are followed by `: `"
        }
        info if info.contains("unknown anchor") => "an alias (`*name`) needs an anchor (`&name`) before it",
        info if info.contains("quoted scalar") => "look for a quote that is opened and not closed",
        info if info.contains("flow") => "look for a `{` or `[` that is not closed",
        _ => "check indentation, quotes and brackets just before this place",
    };
    Diagnostic::new(at, "", format!("this is not YAML: {}", error.info())).hint(hint)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::location::Sources;

    fn read(text: &str) -> Result<Node, Vec<String>> {
        let file = Sources::default().add("a.yaml", text);
        parse(file, text).map_err(|wrong| {
            wrong
                .into_iter()
                .map(|d| d.location.map_or(d.text.clone(), |at| format!("{}:{}: {}", at.line, at.column, d.text)))
                .collect()
        })
    }

    #[test]
    fn values_are_what_the_core_schema_says() {
        let node =
            read("{a: 1, b: -2, c: 0x10, d: 1.5, e: 1e3, f: true, g: ~, h: 'true', i: .inf, j: 1.2.3, k: !!str 7}")
                .expect("YAML");
        assert_eq!(
            node.to_json(),
            json!({"a": 1, "b": -2, "c": 16, "d": 1.5, "e": 1e3, "f": true, "g": null, "h": "true", "i": ".inf",
                   "j": "1.2.3", "k": "7"})
        );
    }

    #[test]
    fn places_are_those_of_keys_and_values() {
        let node = read("pipelines:\n  orders:\n    steps:\n      - filter: {plugin: jq}\n").expect("YAML");
        let at = |l: Location| (l.line, l.column, l.end_column);
        assert_eq!(at(node.place("/pipelines/orders")), (2, 3, 9));
        assert_eq!(at(node.place("/pipelines/orders/steps/0/filter/plugin")), (4, 26, 28));
        assert_eq!(at(node.place("/pipelines/orders/nothing/here")), (2, 3, 9));
        assert_eq!(at(node.key_place("/pipelines/orders/steps/0/filter/plugin")), (4, 18, 24));
        assert_eq!(node.path("/pipelines/orders/steps/0/filter/plugin"), "pipelines.orders.steps[0].filter.plugin");
        assert_eq!(node.path("/pipelines/a.b~1c/x"), "pipelines.\"a.b/c\".x");
    }

    #[test]
    fn structural_mistakes_are_all_found() {
        assert_eq!(
            read("a: 1\nb: 2\na: 3\nb: 4\n"),
            Err(vec!["3:1: the key `a` stands here twice".into(), "4:1: the key `b` stands here twice".into(),])
        );
        assert_eq!(read("? [1, 2]\n: x\n"), Err(vec!["1:3: this key is no text".into()]));
        assert_eq!(read("a: &x {b: 1}\nc: {<<: *x}\n").map_err(|e| e[0].contains("does not merge")), Err(true));
    }

    #[test]
    fn what_is_no_yaml_is_explained() {
        for (text, expected) in [
            ("", "1:1: the file is empty"),
            ("a:\n\t- b\n", "2:1: indented with a tab"),
            ("a: 1\n---\nb: 2\n", "2:1: a second document (`---`) begins here; a file holds one"),
            ("a: !secret x\n", "1:4: the tag `!secret` means nothing here"),
        ] {
            assert_eq!(read(text), Err(vec![expected.to_owned()]), "{text}");
        }
        for text in ["a: b: c", "a: 'x", "a: {b: 1", "*nothing", "- a\nb: c"] {
            let wrong = read(text).expect_err(text);
            assert!(wrong[0].contains("this is not YAML"), "{wrong:?}");
        }
    }

    #[test]
    fn aliases_repeat_values_within_limits() {
        assert_eq!(read("a: &x [1, 2]\nb: *x\n").expect("YAML").to_json(), json!({"a": [1, 2], "b": [1, 2]}));
        assert_eq!(read("a: &x [*x]\n"), Err(vec!["1:8: this alias stands inside the value it refers to".into()]));
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..20 {
            let last = n - 1;
            bomb += &format!(
                "a{n}: &a{n} [*a{last}, *a{last}, *a{last}, *a{last}, *a{last}, *a{last}, *a{last}, *a{last}]\n"
            );
        }
        assert!(read(&bomb).expect_err("too many")[0].contains("more than 100000 values"));
    }

    #[test]
    fn depth_is_limited() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(read(&deep(MAX_DEPTH)).is_ok());
        assert!(read(&deep(MAX_DEPTH + 1)).expect_err("deep")[0].contains("nested deeper than 64"));
        let mut chain = String::from("a0: &a0 [x]\n");
        for n in 1..=MAX_DEPTH {
            chain += &format!("a{n}: &a{n} [*a{}]\n", n - 1);
        }
        assert!(read(&chain).expect_err("deep")[0].contains("nested deeper than 64"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
            drop(read(&text));
        }

        #[test]
        fn arbitrary_yaml_like_text_never_panics(text in "[-a0:\\[\\]{}&*!|>'\"%@,?#~ \n\t\r.<]{0,120}") {
            drop(read(&text));
        }
    }
}
