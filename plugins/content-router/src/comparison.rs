//! What a value is held against.

use std::cmp::Ordering;

use serde_json::{Number, Value};

/// A comparison with something from the configuration.
#[derive(Debug)]
pub enum Comparison {
    Equals(Value),
    NotEquals(Value),
    OneOf(Vec<Value>),
    Exists(bool),
    StartsWith(String),
    EndsWith(String),
    Contains(Value),
    Greater(Value),
    GreaterOrEqual(Value),
    Less(Value),
    LessOrEqual(Value),
}

impl Comparison {
    /// Whether it holds for a value that may not be there. `is_text`: it comes from where there are only texts, so that
    /// one is read as a number or a boolean where it is held against one.
    pub fn holds(&self, value: Option<&Value>, is_text: bool) -> bool {
        let equal = |other: &Value| value.is_some_and(|value| equal(value, other, is_text));
        let ordered = |other: &Value| value.and_then(|value| order(value, other, is_text));
        let text = value.and_then(Value::as_str);
        match self {
            Self::Equals(other) => equal(other),
            Self::NotEquals(other) => !equal(other),
            Self::OneOf(others) => others.iter().any(equal),
            Self::Exists(expected) => value.is_some() == *expected,
            Self::StartsWith(start) => text.is_some_and(|text| text.starts_with(start)),
            Self::EndsWith(end) => text.is_some_and(|text| text.ends_with(end)),
            Self::Contains(part) => match (value, part) {
                (Some(Value::Array(elements)), _) => elements.iter().any(|element| self::equal(element, part, false)),
                (Some(Value::String(text)), Value::String(part)) => text.contains(part),
                _ => false,
            },
            Self::Greater(other) => ordered(other) == Some(Ordering::Greater),
            Self::GreaterOrEqual(other) => matches!(ordered(other), Some(Ordering::Greater | Ordering::Equal)),
            Self::Less(other) => ordered(other) == Some(Ordering::Less),
            Self::LessOrEqual(other) => matches!(ordered(other), Some(Ordering::Less | Ordering::Equal)),
        }
    }
}

fn equal(value: &Value, other: &Value, is_text: bool) -> bool {
    match (value, other) {
        (Value::Number(_), Value::Number(_)) => order(value, other, false) == Some(Ordering::Equal),
        (Value::String(text), Value::Number(_)) if is_text => {
            read(text).is_some_and(|number| order(&number, other, false) == Some(Ordering::Equal))
        }
        (Value::String(text), Value::Bool(expected)) if is_text => text.parse() == Ok(*expected),
        (Value::Array(values), Value::Array(others)) => {
            values.len() == others.len() && values.iter().zip(others).all(|(value, other)| equal(value, other, false))
        }
        (Value::Object(values), Value::Object(others)) => {
            values.len() == others.len()
                && values.iter().all(|(name, value)| others.get(name).is_some_and(|other| equal(value, other, false)))
        }
        _ => value == other,
    }
}

/// Numbers by value, texts alphabetically by code point (so ISO 8601 times by time); nothing else has an order.
fn order(value: &Value, other: &Value, is_text: bool) -> Option<Ordering> {
    match (value, other) {
        (Value::Number(value), Value::Number(other)) => order_numbers(value, other),
        (Value::String(text), Value::Number(_)) if is_text => order(&read(text)?, other, false),
        (Value::String(value), Value::String(other)) => Some(value.cmp(other)),
        _ => None,
    }
}

fn order_numbers(value: &Number, other: &Number) -> Option<Ordering> {
    // Whole numbers exactly: above 2^53 a float cannot tell neighbours apart.
    match (whole(value), whole(other)) {
        (Some(value), Some(other)) => Some(value.cmp(&other)),
        _ => value.as_f64()?.partial_cmp(&other.as_f64()?),
    }
}

fn whole(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

fn read(text: &str) -> Option<Value> {
    serde_json::from_str(text.trim()).ok().filter(Value::is_number)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Comparison::{
        self, Contains, EndsWith, Equals, Exists, Greater, GreaterOrEqual, Less, LessOrEqual, NotEquals, OneOf,
        StartsWith,
    };

    fn holds(value: Value, comparison: &Comparison) -> bool {
        comparison.holds(Some(&value), false)
    }

    #[test]
    fn equality_is_by_value() {
        assert!(holds(json!(1), &Equals(json!(1.0))));
        assert!(holds(json!({ "a": [1, 2.0] }), &Equals(json!({ "a": [1.0, 2] }))));
        assert!(holds(json!(null), &Equals(json!(null))));
        assert!(!holds(json!("1"), &Equals(json!(1))));
        assert!(!holds(json!([1]), &Equals(json!([1, 1]))));
        assert!(!holds(json!(9_007_199_254_740_993_u64), &Equals(json!(9_007_199_254_740_992_u64))));
        assert!(holds(json!("b"), &OneOf(vec![json!("a"), json!("b")])));
    }

    #[test]
    fn order_is_of_numbers_or_of_texts() {
        assert!(holds(json!(10), &Greater(json!(9.5))));
        assert!(holds(json!(-1), &Less(json!(u64::MAX))));
        assert!(holds(json!(5), &GreaterOrEqual(json!(5))) && holds(json!(5), &LessOrEqual(json!(5))));
        assert!(holds(json!("2026-11-20"), &Greater(json!("2026-02-01"))));
        for comparison in [Greater(json!(1)), Less(json!(1)), GreaterOrEqual(json!(1)), LessOrEqual(json!(1))] {
            assert!(
                !holds(json!("x"), &comparison) && !holds(json!(null), &comparison) && !holds(json!([1]), &comparison)
            );
        }
    }

    #[test]
    fn texts_have_parts_and_arrays_elements() {
        assert!(holds(json!("order.eu"), &StartsWith("order.".to_owned())));
        assert!(holds(json!("order.eu"), &EndsWith(".eu".to_owned())));
        assert!(holds(json!("order.eu"), &Contains(json!("er.e"))));
        assert!(holds(json!(["a", 1]), &Contains(json!(1.0))));
        assert!(!holds(json!(["ab"]), &Contains(json!("a"))));
        assert!(!holds(json!(1), &StartsWith(String::new())));
    }

    #[test]
    fn what_is_not_there_equals_nothing() {
        assert!(NotEquals(json!(null)).holds(None, false));
        assert!(Exists(false).holds(None, false) && !Exists(true).holds(None, false));
        for comparison in [
            Equals(json!(null)),
            Less(json!(1)),
            StartsWith(String::new()),
            Contains(json!("")),
            OneOf(vec![json!(null)]),
        ] {
            assert!(!comparison.holds(None, false), "{comparison:?}");
        }
    }

    #[test]
    fn texts_of_headers_are_read_as_what_they_are_held_against() {
        let header = json!("10");
        assert!(Equals(json!(10)).holds(Some(&header), true) && Equals(json!("10")).holds(Some(&header), true));
        assert!(Greater(json!(9)).holds(Some(&header), true));
        assert!(!Greater(json!("9")).holds(Some(&header), true), "as texts, 1 comes before 9");
        assert!(Equals(json!(true)).holds(Some(&json!("true")), true));
        assert!(!Equals(json!(10)).holds(Some(&header), false));
    }
}
