use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use lapin::types::{AMQPValue, DecimalValue, ShortString};
use message::{Headers, name};

use crate::{Acknowledge, Delivery};

/// Reads a delivery of any producer. Nothing in it can fail: what is missing is `None`, what is not
/// text becomes text.
pub(super) fn delivery(wire: lapin::message::Delivery, acker: Box<dyn Acknowledge>) -> Delivery {
    let text = |field: &Option<ShortString>| field.as_ref().map(ToString::to_string);
    let properties = &wire.properties;
    let mut headers: Headers = properties
        .headers()
        .iter()
        .flat_map(|table| table.inner())
        .filter_map(|(header, value)| Some((header.to_string(), header_text(value)?)))
        .collect();
    for (header, property) in [
        (name::CORRELATION_ID, properties.correlation_id()),
        (name::REPLY_TO, properties.reply_to()),
    ] {
        if headers.get(header).is_none()
            && let Some(text) = property
        {
            headers.insert(header, text.as_str());
        }
    }
    Delivery {
        message_id: text(properties.message_id()),
        kind: text(properties.kind()),
        content_type: text(properties.content_type()),
        exchange: wire.exchange.into(),
        routing_key: wire.routing_key.into(),
        headers,
        payload: Bytes::from(wire.data),
        // Anything can be written there, also what no clock can show.
        timestamp: properties
            .timestamp()
            .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds))),
        redelivered: wire.redelivered,
        acker,
    }
}

/// A header value as text; `None` for void.
fn header_text(value: &AMQPValue) -> Option<String> {
    Some(match value {
        AMQPValue::Void => return None,
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::ByteArray(bytes) => String::from_utf8_lossy(bytes.as_slice()).into_owned(),
        other => {
            let mut json = String::new();
            push_json(&mut json, other);
            json
        }
    })
}

/// JSON for anything: scalars inside tables and arrays keep their type, strings are quoted.
fn push_json(out: &mut String, value: &AMQPValue) {
    // Writing to a string does not fail.
    let _ = match value {
        AMQPValue::Boolean(value) => write!(out, "{value}"),
        AMQPValue::ShortShortInt(value) => write!(out, "{value}"),
        AMQPValue::ShortShortUInt(value) => write!(out, "{value}"),
        AMQPValue::ShortInt(value) => write!(out, "{value}"),
        AMQPValue::ShortUInt(value) => write!(out, "{value}"),
        AMQPValue::LongInt(value) => write!(out, "{value}"),
        AMQPValue::LongUInt(value) => write!(out, "{value}"),
        AMQPValue::LongLongInt(value) => write!(out, "{value}"),
        AMQPValue::Timestamp(value) => write!(out, "{value}"),
        AMQPValue::Float(value) if value.is_finite() => write!(out, "{value}"),
        AMQPValue::Double(value) if value.is_finite() => write!(out, "{value}"),
        AMQPValue::Float(_) | AMQPValue::Double(_) | AMQPValue::Void => write!(out, "null"),
        AMQPValue::DecimalValue(value) => push_decimal(out, *value),
        AMQPValue::ShortString(text) => return push_json_text(out, text.as_str()),
        AMQPValue::LongString(text) => return push_json_text(out, &text.to_string()),
        AMQPValue::ByteArray(bytes) => {
            return push_json_text(out, &String::from_utf8_lossy(bytes.as_slice()));
        }
        AMQPValue::FieldArray(items) => {
            out.push('[');
            for (i, item) in items.as_slice().iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                push_json(out, item);
            }
            out.push(']');
            return;
        }
        AMQPValue::FieldTable(table) => {
            out.push('{');
            for (i, (field, item)) in table.inner().iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                push_json_text(out, field.as_str());
                out.push(':');
                push_json(out, item);
            }
            out.push('}');
            return;
        }
    };
}

fn push_decimal(out: &mut String, decimal: DecimalValue) -> std::fmt::Result {
    let scale = usize::from(decimal.scale);
    let digits = format!("{:0width$}", decimal.value, width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    if scale == 0 { write!(out, "{whole}") } else { write!(out, "{whole}.{fraction}") }
}

fn push_json_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        let _ = match character {
            '"' => write!(out, "\\\""),
            '\\' => write!(out, "\\\\"),
            control if control < ' ' => write!(out, "\\u{:04x}", u32::from(control)),
            plain => write!(out, "{plain}"),
        };
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use lapin::types::FieldTable;

    use super::*;

    fn text(value: AMQPValue) -> Option<String> {
        header_text(&value)
    }

    #[test]
    fn every_amqp_type_becomes_text() {
        let table = |key: &str, value: AMQPValue| {
            let mut table = FieldTable::default();
            table.insert(key.into(), value);
            AMQPValue::FieldTable(table)
        };
        let array = AMQPValue::FieldArray(
            vec![AMQPValue::LongInt(1), AMQPValue::Void, AMQPValue::LongString("a\"\\\n".into())]
                .into(),
        );
        let cases = [
            (AMQPValue::Boolean(true), "true"),
            (AMQPValue::ShortShortInt(-1), "-1"),
            (AMQPValue::ShortShortUInt(255), "255"),
            (AMQPValue::ShortInt(-2), "-2"),
            (AMQPValue::ShortUInt(2), "2"),
            (AMQPValue::LongInt(-3), "-3"),
            (AMQPValue::LongUInt(3), "3"),
            (AMQPValue::LongLongInt(i64::MIN), "-9223372036854775808"),
            (AMQPValue::Timestamp(1_700_000_000), "1700000000"),
            (AMQPValue::Float(1.5), "1.5"),
            (AMQPValue::Double(f64::NAN), "null"),
            (AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 5 }), "0.05"),
            (AMQPValue::DecimalValue(DecimalValue { scale: 0, value: 5 }), "5"),
            (AMQPValue::LongString("ü".into()), "ü"),
            (AMQPValue::LongString(vec![0xff, b'a'].into()), "\u{fffd}a"),
            (AMQPValue::ByteArray(vec![b'x', 0xfe].into()), "x\u{fffd}"),
            (array, r#"[1,null,"a\"\\\u000a"]"#),
            (table("k", table("n", AMQPValue::Boolean(false))), r#"{"k":{"n":false}}"#),
        ];
        for (value, expected) in cases {
            assert_eq!(text(value).as_deref(), Some(expected));
        }
        assert_eq!(text(AMQPValue::Void), None);
    }

    #[test]
    fn nested_values_are_json_that_parses_back() {
        let value = AMQPValue::FieldArray(
            vec![AMQPValue::LongString("tab\t\u{1f600}\u{7f}".into())].into(),
        );
        let json = text(value).expect("an array");
        let headers = Headers::from_json(&format!(r#"{{"h":{json}}}"#)).expect("valid JSON");
        assert!(
            headers.get("h").is_some_and(|text| text.contains("\\t") && text.contains('\u{1f600}'))
        );
    }
}
