//! A filter in the database's words.

use super::Filter;
use crate::database::Value;

/// What follows WHERE, and its values.
pub(crate) struct Conditions {
    pub sql: String,
    pub values: Vec<Value>,
}

impl Conditions {
    pub fn of(filter: &Filter) -> Self {
        let mut conditions = Self { sql: "1 = 1".to_owned(), values: Vec::new() };
        let Filter { pipeline, class, step, target, plugin_digest, message_id, cause, since_ms, until_ms, text } =
            filter;
        conditions.compare("pipeline =", pipeline.as_deref());
        conditions.compare("class =", class.map(|class| class.name()));
        conditions.compare("step =", step.as_deref());
        conditions.compare("target =", target.as_deref());
        conditions.compare("plugin_digest =", plugin_digest.as_deref());
        if let Some(id) = message_id {
            let id = conditions.value(id.as_str());
            // PostgreSQL's index has its beginning alone, SQLite's all of it: either finds it by its own.
            conditions.and(&format!("message_id = {id} AND substr(message_id, 1, 200) = substr({id}, 1, 200)"));
        }
        conditions.compare("cause =", cause.as_deref());
        conditions.compare("failed_at_ms >=", *since_ms);
        conditions.compare("failed_at_ms <", *until_ms);
        if let Some(text) = text {
            let pattern = conditions.value(like_pattern(text));
            let columns = ["error", "message_id", "message_kind", "step", "plugin"];
            let anywhere = columns.map(|column| format!(r"lower({column}) LIKE {pattern} ESCAPE '\'"));
            conditions.and(&format!("({})", anywhere.join(" OR ")));
        }
        conditions
    }

    fn compare(&mut self, comparison: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            let value = self.value(value);
            self.and(&format!("{comparison} {value}"));
        }
    }

    pub fn and(&mut self, condition: &str) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
    }

    /// Binds a value and returns its `$n`.
    pub fn value(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }
}

/// A pattern that finds `text` literally, anywhere, in what `lower` makes of a column: both databases' `lower` changes
/// ASCII letters alone (PostgreSQL's because the columns are COLLATE "C").
fn like_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character.to_ascii_lowercase());
    }
    pattern.push('%');
    pattern
}
