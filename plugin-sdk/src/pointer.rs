//! RFC 6901 JSON pointers in configurations: `/items/0/price`; `~1` stands for `/` and `~0` for `~` within a name.

/// The names of a pointer, unescaped; none for the empty pointer, which is the whole document.
///
/// # Errors
/// What is wrong with it, for the reasons of `configure`.
pub fn parse(pointer: &str) -> Result<Vec<String>, String> {
    let Some(names) = pointer.strip_prefix('/') else {
        return match pointer {
            "" => Ok(Vec::new()),
            _ => Err(format!("`{pointer}` is not a JSON pointer: it must be empty or start with `/`")),
        };
    };
    names.split('/').map(|name| unescape(name).ok_or_else(|| bad_escape(pointer))).collect()
}

/// The pointer of names; the inverse of [`parse`].
#[must_use]
pub fn join<Name: AsRef<str>>(names: &[Name]) -> String {
    names.iter().map(|name| format!("/{}", name.as_ref().replace('~', "~0").replace('/', "~1"))).collect()
}

fn bad_escape(pointer: &str) -> String {
    format!("`{pointer}` is not a JSON pointer: `~` must be written `~0`, and a `/` within a name `~1`")
}

fn unescape(name: &str) -> Option<String> {
    let mut plain = String::with_capacity(name.len());
    let mut characters = name.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '~' => match characters.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            other => other,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::{join, parse};

    #[test]
    fn names_are_unescaped_and_escaped() {
        for (pointer, names) in
            [("", vec![]), ("/", vec![""]), ("/a/0", vec!["a", "0"]), ("/a~1b/~01", vec!["a/b", "~1"])]
        {
            assert_eq!(parse(pointer).expect(pointer), names);
            assert_eq!(join(&names), pointer);
        }
    }

    #[test]
    fn what_is_no_pointer_is_named() {
        for pointer in ["a", "#/a", "/~", "/~2"] {
            assert!(parse(pointer).expect_err(pointer).contains(pointer));
        }
    }
}
