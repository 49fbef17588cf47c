//! Header values: AMQP's field types as bytes.

use bytes::Bytes;
use lapin::types::AMQPValue;
use serde_json::Value;

/// The values of one header: several for an array of strings, otherwise one.
pub(super) fn values(value: &AMQPValue) -> Vec<Bytes> {
    if let AMQPValue::FieldArray(array) = value {
        let strings: Option<Vec<Bytes>> = array.as_slice().iter().map(string).collect();
        if let Some(strings) = strings.filter(|strings| !strings.is_empty()) {
            return strings;
        }
    }
    vec![bytes(value)]
}

/// A whole number, from any integer type or decimal text.
pub(super) fn whole_number(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(number) => Some((*number).into()),
        AMQPValue::ShortShortUInt(number) => Some((*number).into()),
        AMQPValue::ShortInt(number) => Some((*number).into()),
        AMQPValue::ShortUInt(number) => Some((*number).into()),
        AMQPValue::LongInt(number) => Some((*number).into()),
        AMQPValue::LongUInt(number) => Some((*number).into()),
        AMQPValue::LongLongInt(number) => Some(*number),
        AMQPValue::Timestamp(number) => i64::try_from(*number).ok(),
        AMQPValue::ShortString(_) | AMQPValue::LongString(_) | AMQPValue::ByteArray(_) => {
            std::str::from_utf8(&string(value)?).ok()?.trim().parse().ok()
        }
        AMQPValue::Boolean(_)
        | AMQPValue::Float(_)
        | AMQPValue::Double(_)
        | AMQPValue::DecimalValue(_)
        | AMQPValue::FieldArray(_)
        | AMQPValue::FieldTable(_)
        | AMQPValue::Void => None,
    }
}

/// The bytes of a string, whatever its type on the wire.
pub(super) fn string(value: &AMQPValue) -> Option<Bytes> {
    match value {
        AMQPValue::LongString(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
        AMQPValue::ShortString(text) => Some(Bytes::copy_from_slice(text.as_str().as_bytes())),
        AMQPValue::ByteArray(bytes) => Some(Bytes::copy_from_slice(bytes.as_slice())),
        AMQPValue::Boolean(_)
        | AMQPValue::ShortShortInt(_)
        | AMQPValue::ShortShortUInt(_)
        | AMQPValue::ShortInt(_)
        | AMQPValue::ShortUInt(_)
        | AMQPValue::LongInt(_)
        | AMQPValue::LongUInt(_)
        | AMQPValue::LongLongInt(_)
        | AMQPValue::Float(_)
        | AMQPValue::Double(_)
        | AMQPValue::DecimalValue(_)
        | AMQPValue::FieldArray(_)
        | AMQPValue::Timestamp(_)
        | AMQPValue::FieldTable(_)
        | AMQPValue::Void => None,
    }
}

fn bytes(value: &AMQPValue) -> Bytes {
    if let Some(string) = string(value) {
        return string;
    }
    match json(value) {
        Value::Null => Bytes::new(),
        Value::String(text) => text.into(),
        json => json.to_string().into(),
    }
}

fn json(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Void => Value::Null,
        AMQPValue::Boolean(value) => Value::Bool(*value),
        AMQPValue::ShortShortInt(number) => (*number).into(),
        AMQPValue::ShortShortUInt(number) => (*number).into(),
        AMQPValue::ShortInt(number) => (*number).into(),
        AMQPValue::ShortUInt(number) => (*number).into(),
        AMQPValue::LongInt(number) => (*number).into(),
        AMQPValue::LongUInt(number) => (*number).into(),
        AMQPValue::LongLongInt(number) => (*number).into(),
        AMQPValue::Timestamp(seconds) => (*seconds).into(),
        // JSON has no infinity: written as text then.
        AMQPValue::Float(number) => float((*number).into(), number.to_string()),
        AMQPValue::Double(number) => float(*number, number.to_string()),
        AMQPValue::DecimalValue(decimal) => Value::String(decimal_text(decimal.value, decimal.scale)),
        AMQPValue::ShortString(text) => text.as_str().into(),
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned().into(),
        AMQPValue::ByteArray(bytes) => String::from_utf8_lossy(bytes.as_slice()).into_owned().into(),
        AMQPValue::FieldArray(array) => array.as_slice().iter().map(json).collect(),
        AMQPValue::FieldTable(table) => {
            Value::Object(table.inner().iter().map(|(name, value)| (name.as_str().to_owned(), json(value))).collect())
        }
    }
}

fn float(number: f64, text: String) -> Value {
    serde_json::Number::from_f64(number).map_or(Value::String(text), Value::Number)
}

/// `value` with the point `scale` digits from its end.
fn decimal_text(value: u32, scale: u8) -> String {
    let scale = usize::from(scale);
    let digits = format!("{value:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use lapin::types::{DecimalValue, FieldArray, FieldTable};

    use super::*;

    fn text(value: AMQPValue) -> String {
        let values = values(&value);
        assert_eq!(values.len(), 1, "{value:?}");
        String::from_utf8(values[0].to_vec()).expect("UTF-8")
    }

    #[test]
    fn values_that_are_no_strings_become_text() {
        assert_eq!(text(AMQPValue::Boolean(true)), "true");
        assert_eq!(text(AMQPValue::LongLongInt(-5)), "-5");
        assert_eq!(text(AMQPValue::Double(0.25)), "0.25");
        assert_eq!(text(AMQPValue::Double(f64::INFINITY)), "inf");
        assert_eq!(text(AMQPValue::Timestamp(1_700_000_000)), "1700000000");
        assert_eq!(text(AMQPValue::Void), "");
        assert_eq!(text(AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 5 })), "0.05");
        assert_eq!(text(AMQPValue::DecimalValue(DecimalValue { scale: 0, value: 5 })), "5");
        let mut table = FieldTable::default();
        table.insert("a".into(), AMQPValue::LongInt(1));
        assert_eq!(text(AMQPValue::FieldTable(table)), r#"{"a":1}"#);
        let mixed = FieldArray::from(vec![AMQPValue::LongString("a".into()), AMQPValue::LongInt(1)]);
        assert_eq!(text(AMQPValue::FieldArray(mixed)), r#"["a",1]"#);
        assert_eq!(text(AMQPValue::FieldArray(FieldArray::default())), "[]");
    }

    #[test]
    fn strings_keep_their_bytes_and_arrays_of_them_repeat() {
        assert_eq!(values(&AMQPValue::LongString(vec![0xff, 0].into())), [Bytes::from_static(&[0xff, 0])]);
        let array = FieldArray::from(vec![AMQPValue::LongString("a".into()), AMQPValue::ByteArray(vec![0xfe].into())]);
        assert_eq!(values(&AMQPValue::FieldArray(array)), [Bytes::from_static(b"a"), Bytes::from_static(&[0xfe])]);
    }

    #[test]
    fn counts_are_read_from_any_type() {
        assert_eq!(whole_number(&AMQPValue::ShortShortUInt(3)), Some(3));
        assert_eq!(whole_number(&AMQPValue::LongString("4".into())), Some(4));
        assert_eq!(whole_number(&AMQPValue::LongString("four".into())), None);
        assert_eq!(whole_number(&AMQPValue::Double(4.0)), None);
    }
}
