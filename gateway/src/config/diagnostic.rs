//! Diagnostics: what is wrong with a configuration, where, and what to do about it. All are collected; none is fatal to
//! finding the others.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use super::location::{Location, Sources};

/// Most diagnostics shown at once; the rest is counted.
pub const MAX_SHOWN: usize = 100;

/// Longest source line shown, in characters.
const MAX_LINE_CHARS: usize = 160;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but something about it is unsafe.
    Warning,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One mistake or warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is, if it is anywhere in a file.
    pub location: Option<Location>,
    /// The way to the value: `pipelines.orders.targets.eu.rabbitmq`; empty for a whole file.
    pub path: String,
    /// What is wrong. Never a secret.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Another place that has to do with it, and what it is.
    pub related: Option<Box<(Location, String)>>,
}

impl Diagnostic {
    /// A mistake at a place.
    pub fn new(location: impl Into<Option<Location>>, path: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            location: location.into(),
            path: path.into(),
            text: text.into(),
            hint: None,
            related: None,
        }
    }

    /// The same as a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With another place, such as the first of two definitions.
    #[must_use]
    pub fn related(mut self, location: Location, what: impl Into<String>) -> Self {
        self.related = Some(Box::new((location, what.into())));
        self
    }
}

/// All mistakes of a configuration, in the order of the files. Displayed without colour.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    sources: Sources,
}

impl Diagnostics {
    /// Sorts by place and drops what was said twice.
    pub fn new(mut list: Vec<Diagnostic>, sources: Sources) -> Self {
        list.sort_by(|a, b| (a.location, &a.path, &a.text).cmp(&(b.location, &b.path, &b.text)));
        list.dedup();
        Self { list, sources }
    }

    /// Every one, also those past [`MAX_SHOWN`].
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// Whether one of them stands in the file of that path.
    pub fn concern(&self, path: &str) -> bool {
        let is_there = |place: &Location| self.sources.path(place.file) == std::path::Path::new(path);
        self.list.iter().any(|diagnostic| diagnostic.location.as_ref().is_some_and(is_there))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// For people: place, text, the line with a caret, path and hint of each, and how many there are. `colour` is for
    /// terminals.
    pub fn render(&self, colour: bool) -> String {
        let paint = Paint { colour };
        let mut out = String::new();
        for diagnostic in self.list.iter().take(MAX_SHOWN) {
            self.render_one(&mut out, diagnostic, &paint);
            out.push('\n');
        }
        let more = self.list.len().saturating_sub(MAX_SHOWN);
        if more > 0 {
            put(&mut out, format_args!("and {more} more\n"));
        }
        put(&mut out, format_args!("{}\n", paint.bold(&self.count())));
        out
    }

    /// For programs: `{"diagnostics": [{severity, file, line, column, path, text, hint, related}], "total": n}`, at most
    /// [`MAX_SHOWN`] of them.
    pub fn to_json(&self) -> Value {
        let shown: Vec<Value> = self.list.iter().take(MAX_SHOWN).map(|d| self.one_to_json(d)).collect();
        json!({ "diagnostics": shown, "total": self.list.len() })
    }

    /// `2 mistakes, 1 warning`.
    fn count(&self) -> String {
        let errors = self.list.iter().filter(|d| d.severity == Severity::Error).count();
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        match (errors, self.list.len() - errors) {
            (errors, 0) => plural(errors, "mistake"),
            (0, warnings) => plural(warnings, "warning"),
            (errors, warnings) => format!("{}, {}", plural(errors, "mistake"), plural(warnings, "warning")),
        }
    }

    fn one_to_json(&self, diagnostic: &Diagnostic) -> Value {
        let place = |location: &Location| {
            json!({
                "file": self.sources.path(location.file).display().to_string(),
                "line": location.line,
                "column": location.column,
            })
        };
        let mut object = match &diagnostic.location {
            Some(location) => place(location),
            None => json!({ "file": null, "line": null, "column": null }),
        };
        object["severity"] = json!(diagnostic.severity.name());
        object["path"] = json!(diagnostic.path);
        object["text"] = json!(diagnostic.text);
        object["hint"] = json!(diagnostic.hint);
        if let Some((location, what)) = diagnostic.related.as_deref() {
            let mut related = place(location);
            related["text"] = json!(what);
            object["related"] = related;
        }
        object
    }

    fn render_one(&self, out: &mut String, diagnostic: &Diagnostic, paint: &Paint) {
        if let Some(location) = &diagnostic.location {
            put(out, format_args!("{}: ", paint.bold(&self.place(location))));
        }
        let severity = paint.severity(diagnostic.severity, diagnostic.severity.name());
        put(out, format_args!("{severity}: {}\n", paint.bold(&diagnostic.text)));
        if let Some(location) = &diagnostic.location {
            self.render_line(out, location, diagnostic.severity, paint);
        }
        if !diagnostic.path.is_empty() {
            put(out, format_args!("  {} {}\n", paint.blue("at:"), diagnostic.path));
        }
        if let Some((location, what)) = diagnostic.related.as_deref() {
            put(out, format_args!("  {} {what}: {}\n", paint.blue("see:"), self.place(location)));
        }
        if let Some(hint) = &diagnostic.hint {
            put(out, format_args!("  {} {hint}\n", paint.blue("hint:")));
        }
    }

    fn place(&self, location: &Location) -> String {
        format!("{}:{}:{}", self.sources.path(location.file).display(), location.line, location.column)
    }

    fn render_line(&self, out: &mut String, location: &Location, severity: Severity, paint: &Paint) {
        let Some(line) = self.sources.shown_line(location.file, location.line) else { return };
        let chars: Vec<char> = line.chars().collect();
        let column = (location.column as usize).saturating_sub(1).min(chars.len());
        // A long line is shown from a little before the place.
        let from = if column > MAX_LINE_CHARS - 40 { column.saturating_sub(40) } else { 0 };
        let shown: String = chars.iter().skip(from).take(MAX_LINE_CHARS).collect();
        let last = if location.end_line == location.line { location.end_column as usize - 1 } else { chars.len() };
        let carets = last.clamp(column + 1, from + MAX_LINE_CHARS) - column;
        let number = location.line.to_string();
        let gutter = " ".repeat(number.len());
        put(out, format_args!("  {} {}\n", paint.blue(&format!("{number} |")), shown.trim_end()));
        let caret = format!("{}{}", " ".repeat(column - from), paint.severity(severity, &"^".repeat(carets)));
        put(out, format_args!("  {} {caret}\n", paint.blue(&format!("{gutter} |"))));
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// Writing to a `String` cannot fail.
fn put(out: &mut String, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes all text");
}

struct Paint {
    colour: bool,
}

impl Paint {
    fn with(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    fn severity(&self, severity: Severity, text: &str) -> String {
        match severity {
            Severity::Error => self.with("31", text),
            Severity::Warning => self.with("33", text),
        }
    }

    fn blue(&self, text: &str) -> String {
        self.with("34", text)
    }
}

/// The candidate that `word` was most likely meant to be, if one is near enough to say so.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let close = candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    let most = (word.chars().count().max(close.1.chars().count()) / 3).max(1);
    (close.0 <= most).then_some(close.1)
}

/// `a, b or c`, for hints.
pub(crate) fn listing<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    match words.as_slice() {
        [] => "none".to_owned(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Diagnostics {
        let mut sources = Sources::default();
        let file = sources.add("a.yaml", "pipelines:\n  orders:\n    sorce: {}\n");
        let at = Location { file, line: 3, column: 5, end_line: 3, end_column: 10 };
        let late = Diagnostic::new(at, "pipelines.orders.sorce", "unknown key `sorce`").hint("did you mean `source`?");
        let early = Diagnostic::new(Location::point(file, 1, 1), "pipelines", "first")
            .related(Location::point(file, 2, 3), "the other one");
        Diagnostics::new(vec![late.clone(), early, late], sources)
    }

    #[test]
    fn diagnostics_come_in_file_order_once_each_with_line_caret_path_and_hint() {
        let expected = "\
a.yaml:1:1: error: first
  1 | pipelines:
    | ^
  at: pipelines
  see: the other one: a.yaml:2:3

a.yaml:3:5: error: unknown key `sorce`
  3 |     sorce: {}
    |     ^^^^^
  at: pipelines.orders.sorce
  hint: did you mean `source`?

2 mistakes
";
        assert_eq!(sample().render(false), expected);
        assert!(sample().render(true).contains("\x1b[31merror\x1b[0m"));
    }

    #[test]
    fn programs_get_the_same_as_json() {
        let json = sample().to_json();
        assert_eq!(json["total"], 2);
        assert_eq!(json["diagnostics"][0]["related"]["line"], 2);
        assert_eq!(json["diagnostics"][1]["file"], "a.yaml");
        assert_eq!(json["diagnostics"][1]["hint"], "did you mean `source`?");
    }

    #[test]
    fn past_the_limit_they_are_counted() {
        let list = (0..MAX_SHOWN + 7).map(|n| Diagnostic::new(None, "", format!("mistake {n:04}"))).collect();
        let rendered = Diagnostics::new(list, Sources::default()).render(false);
        assert!(rendered.contains("and 7 more\n107 mistakes\n"), "{rendered}");
    }

    #[test]
    fn a_near_word_is_suggested_and_a_far_one_is_not() {
        assert_eq!(did_you_mean("sorce", ["source", "steps"]), Some("source"));
        assert_eq!(did_you_mean("Targets", ["source", "targets"]), Some("targets"));
        assert_eq!(did_you_mean("kafka", ["http", "redis"]), None);
        assert_eq!(did_you_mean("x", []), None);
        assert_eq!(listing(["a", "b", "c"]), "a, b or c");
    }
}
