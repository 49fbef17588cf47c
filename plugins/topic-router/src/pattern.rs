//! AMQP topic patterns.

/// AMQP's limit for routing keys, in bytes.
const LENGTH_LIMIT_BYTES: usize = 255;

/// A pattern, in words.
#[derive(Debug)]
pub struct Pattern(Vec<Word>);

#[derive(Debug, PartialEq, Eq)]
enum Word {
    This(String),
    /// `*`: any one word.
    One,
    /// `#`: any number of words, also none.
    Any,
}

/// Words of a topic. An empty topic has none, as in RabbitMQ; `a..b` has an empty word in the middle.
pub fn words(topic: &str) -> Vec<&str> {
    if topic.is_empty() { Vec::new() } else { topic.split('.').collect() }
}

impl Pattern {
    /// # Errors
    /// Too long for AMQP.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LENGTH_LIMIT_BYTES {
            return Err(format!("{} bytes are too long, AMQP allows {LENGTH_LIMIT_BYTES}", text.len()));
        }
        let mut pattern: Vec<Word> = Vec::new();
        for word in words(text) {
            let word = match word {
                "*" => Word::One,
                "#" => Word::Any,
                this => Word::This(this.to_owned()),
            };
            // `#.#` is `#`; one fewer to come back to.
            if word != Word::Any || pattern.last() != Some(&Word::Any) {
                pattern.push(word);
            }
        }
        Ok(Self(pattern))
    }

    /// Takes time of at most pattern × topic words: only the last `#` is ever come back to, since what an earlier one
    /// could match more, the last can too.
    pub fn matches(&self, topic: &[&str]) -> bool {
        let pattern = &self.0;
        let (mut at, mut word) = (0, 0);
        let mut last_any = None;
        while word < topic.len() {
            match pattern.get(at) {
                Some(Word::Any) => {
                    last_any = Some((at, word));
                    at += 1;
                }
                Some(Word::One) => (at, word) = (at + 1, word + 1),
                Some(Word::This(this)) if this == topic[word] => (at, word) = (at + 1, word + 1),
                _ => match last_any {
                    Some((any, taken)) => {
                        last_any = Some((any, taken + 1));
                        (at, word) = (any + 1, taken + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern[at..].iter().all(|rest| *rest == Word::Any)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Pattern, words};

    fn matches(pattern: &str, topic: &str) -> bool {
        Pattern::parse(pattern).expect("short").matches(&words(topic))
    }

    /// AMQP's definition, word for word.
    fn by_definition(pattern: &[&str], topic: &[&str]) -> bool {
        match pattern.split_first() {
            None => topic.is_empty(),
            Some((&"#", rest)) => (0..=topic.len()).any(|taken| by_definition(rest, &topic[taken..])),
            Some((word, rest)) => match topic.split_first() {
                Some((first, others)) => (*word == "*" || word == first) && by_definition(rest, others),
                None => false,
            },
        }
    }

    #[test]
    fn the_specification_s_examples() {
        assert!(matches("*.stock.#", "usd.stock"));
        assert!(matches("*.stock.#", "eur.stock.db"));
        assert!(!matches("*.stock.#", "stock.nasdaq"));
        assert!(matches("#", ""));
        assert!(matches("#", "a.b.c"));
        assert!(!matches("*", ""));
        assert!(!matches("*", "a.b"));
        assert!(matches("market.#", "market"));
        assert!(!matches("market.*", "market"));
        assert!(matches("a.*.c", "a..c"));
        assert!(!matches("Order", "order"));
    }

    #[test]
    fn a_pattern_of_many_any_ends_soon() {
        let pattern = ["#.a"; 60].join(".");
        assert!(!matches(&pattern, &["a"; 59].join(".")));
        assert!(!matches(&pattern, &["b"; 10_000].join(".")));
        assert!(matches(&pattern, &["a"; 10_000].join(".")));
    }

    #[test]
    fn a_pattern_has_amqp_s_length() {
        assert!(Pattern::parse(&"a".repeat(255)).is_ok());
        assert!(Pattern::parse(&"a".repeat(256)).is_err());
    }

    proptest! {
        #[test]
        fn matches_as_defined(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "", "*", "#"]), 0..8),
            topic in prop::collection::vec(prop::sample::select(vec!["a", "b", "c", ""]), 0..8),
        ) {
            // One empty word alone cannot be written: the empty text has no words.
            prop_assume!(pattern != [""] && topic != [""]);
            let (pattern, topic) = (pattern.join("."), topic.join("."));
            prop_assert_eq!(
                matches(&pattern, &topic),
                by_definition(&words(&pattern), &words(&topic)),
                "{:?} on {:?}", pattern, topic
            );
        }

        #[test]
        fn a_topic_matches_itself_and_any(topic in "[a-z.]{0,40}") {
            prop_assert!(matches(&topic, &topic));
            prop_assert!(matches("#", &topic));
        }
    }
}
