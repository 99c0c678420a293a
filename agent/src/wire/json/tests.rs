use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Doc {
    #[serde(rename = "ID")]
    id: String,
    count: Option<i64>,
    weight: u8,
    share: f64,
    is_on: bool,
    meta: BTreeMap<String, String>,
    items: Vec<Item>,
    raw: Raw,
    word: Word,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Item {
    name: String,
    sub: Option<Box<Item>>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    #[default]
    None,
    Left,
}

#[track_caller]
fn read(text: &str) -> Doc {
    decode(text.as_bytes(), 16).unwrap()
}

#[track_caller]
fn refused(text: &str, want: &str) {
    assert_eq!(decode::<Doc>(text.as_bytes(), 16).unwrap_err().to_string(), want);
}

#[test]
fn keys_match_without_case_and_the_last_wins() {
    let doc = read(r#"{"id":"a","ID":"b","iD":"c","COUNT":1,"ison":true,"items":[{"NAME":"x","sub":{"name":"y"}}],"word":"left"}"#);
    assert_eq!((doc.id.as_str(), doc.count, doc.is_on, doc.word), ("c", Some(1), true, Word::Left));
    assert_eq!(doc.items[0].sub.as_ref().map(|sub| sub.name.as_str()), Some("y"));
    assert_eq!(read(r#"{"ID":"a","ID":null}"#).id, "");
}

#[test]
fn null_is_absent_is_default() {
    let all_null =
        read(r#"{"ID":null,"Count":null,"Weight":null,"Share":null,"IsOn":null,"Meta":null,"Items":null,"Raw":null,"Word":null}"#);
    assert_eq!(all_null, Doc::default());
    assert_eq!(read("{}"), Doc::default());
    assert_eq!(read(" null "), Doc::default());
    let inner = read(r#"{"Meta":{"a":null},"Items":[null,{"Name":null}]}"#);
    assert_eq!((inner.meta["a"].as_str(), inner.items.len()), ("", 2));
}

#[test]
fn what_follows_the_first_value_does_not_count() {
    assert_eq!(read("{\"ID\":\"a\"}\n").id, "a");
    assert_eq!(read(r#"{"ID":"a"} {"ID":"b"} ]]}"#).id, "a");
}

#[test]
fn strings_are_unescaped_and_bad_utf8_is_replaced() {
    assert_eq!(read(r#"{"ID":"\u003ca\u003e \ud83d\ude00\n"}"#).id, "<a> 😀\n");
    assert_eq!(decode::<Doc>(b"{\"ID\":\"a\xffb\"}", 16).unwrap().id, "a\u{fffd}b");
}

#[test]
fn errors_name_the_path_what_was_found_and_what_was_expected() {
    refused(r#"{"ID":5}"#, "ID: found number 5, expected string");
    refused(r#"{"items":[{},{"sub":{"NAME":true}}]}"#, "Items[1].Sub.Name: found boolean, expected string");
    refused(r#"{"Count":"x"}"#, r#"Count: found string "x", expected integer"#);
    refused(r#"{"Count":1.0}"#, "Count: found number 1.0, expected integer");
    refused(r#"{"Count":1e3}"#, "Count: found number 1e3, expected integer");
    refused(r#"{"Count":9223372036854775808}"#, "Count: found number 9223372036854775808, expected integer");
    refused(r#"{"Weight":-1}"#, "Weight: found number -1, expected integer, not negative");
    refused(r#"{"Weight":256}"#, "Weight: invalid value: integer `256`, expected u8");
    refused(r#"{"Share":1e999}"#, "Share: found number 1e999, expected number");
    refused(r#"{"Share":"1"}"#, r#"Share: found string "1", expected number"#);
    refused(r#"{"IsOn":1}"#, "IsOn: found number 1, expected boolean");
    refused(r#"{"Meta":{"k":{}}}"#, "Meta.k: found object, expected string");
    refused(r#"{"Meta":[]}"#, "Meta: found list, expected object");
    refused(r#"{"Items":{}}"#, "Items: found object, expected list");
    refused(r#"{"Items":[[]]}"#, "Items[0]: found list, expected object");
    refused(r#"{"Word":"up"}"#, "Word: unknown variant `up`, expected `none` or `left`");
    refused("[]", "found list, expected object");
    refused("", "EOF");
    refused(" \n", "EOF");
    refused("{\"ID\":", "malformed JSON: EOF while parsing a value at line 1 column 6");
    let long = format!(r#"{{"Count":"{}"}}"#, "é".repeat(5000));
    assert!(decode::<Doc>(long.as_bytes(), 16).unwrap_err().to_string().len() < 200);
}

#[test]
fn numbers_are_exact_to_64_bits() {
    assert_eq!(read(r#"{"Count":9223372036854775807}"#).count, Some(i64::MAX));
    assert_eq!(read(r#"{"Count":-9223372036854775808}"#).count, Some(i64::MIN));
    assert!((read(r#"{"Share":2}"#).share - 2.0).abs() < f64::EPSILON);
}

#[test]
fn nesting_and_number_of_values_are_bounded_before_anything_is_built() {
    let deep = |n: usize| format!("{{\"Raw\":{}{}}}", "[".repeat(n), "]".repeat(n));
    assert!(decode::<Doc>(deep(15).as_bytes(), 16).is_ok());
    refused(&deep(16), "nested deeper than 16 levels");
    refused(&deep(500_000), "nested deeper than 16 levels");
    refused(&"{\"Unknown\":".repeat(500_000), "nested deeper than 16 levels");
    let wide = |n: usize| format!("{{\"Items\":[{}]}}", vec!["{}"; n].join(","));
    assert!(decode::<Doc>(wide(3000).as_bytes(), 16).is_ok());
    refused(&wide(5000), "too many values in one document");
    refused(&format!("[{}", "0,".repeat(WEIGHT_MAX)), "too many values in one document");
    // Brackets and commas inside strings are text.
    assert_eq!(read(&format!("{{\"ID\":\"{}\"}}", r#"\"[{,"#.repeat(70_000))).id.len(), 4 * 70_000);
}

#[test]
fn raw_values_are_compact_sorted_and_comparable() {
    let raw = read(r#"{"Raw": { "b" : [1, 2.5 , "\u003c"], "a" : {"c":null} } }"#).raw;
    assert_eq!(raw.get(), Some(r#"{"a":{"c":null},"b":[1,2.5,"<"]}"#));
    assert_eq!(raw, read(r#"{"Raw":{"a":{"c":null},"b":[1,2.5,"<"]}}"#).raw);
    assert_eq!(serde_json::to_string(&raw).unwrap(), raw.get().unwrap());
    assert_eq!(raw.entries().unwrap()["b"], r#"[1,2.5,"<"]"#);
    for none in ["{}", "[]", "null", "\"\"", "{ }"] {
        assert!(read(&format!(r#"{{"Raw":{none}}}"#)).raw.is_none(), "{none}");
    }
    assert_eq!(serde_json::to_string(&Raw::default()).unwrap(), "null");
    assert_eq!(Raw::from_text("[1,2]").unwrap().read::<Vec<i64>>().unwrap(), [1, 2]);
    assert!(Raw::default().read::<Vec<i64>>().unwrap().is_empty());
    assert_eq!(Raw::from_text("[1,true]").unwrap().read::<Vec<i64>>().unwrap_err().to_string(), "[1]: found boolean, expected integer");
    assert!(Raw::from_text("[1").is_err());
    assert!(Raw::from_text("5").unwrap().entries().is_none());
}

#[test]
fn unknown_keys_are_ignored_and_noted_when_they_hold_something() {
    let mut unknown = Vec::new();
    let text = r#"{"ID":"a","New":{"x":1},"Items":[{"Extra":"v","Old":null,"No":false,"Zero":0,"Empty":[ ],"None":{},"Text":""}]}"#;
    decode_noting::<Doc>(text.as_bytes(), 16, &mut unknown).unwrap();
    assert_eq!(unknown, ["New", "Items[0].Extra"]);
    let many = format!("{{{}\"ID\":\"a\"}}", (0..100).map(|i| format!("\"k{i}\":1,")).collect::<String>());
    unknown.clear();
    decode_noting::<Doc>(many.as_bytes(), 16, &mut unknown).unwrap();
    assert_eq!(unknown.len(), NOTES_MAX);
}

#[test]
fn dynamic_values_can_be_read_too() {
    let value: serde_json::Value = decode(br#"{"a":[1,-2,2.5,"x",true,null,{"b":18446744073709551615}]}"#, 16).unwrap();
    assert_eq!(value, serde_json::json!({"a": [1, -2, 2.5, "x", true, null, {"b": u64::MAX}]}));
}

/// Every prefix and every one-byte change of a document that uses all kinds of values is answered, never a panic.
#[test]
fn no_document_panics() {
    let text = r#"{"ID":"a\u00e9\n","Count":-12,"Weight":7,"Share":1.5e2,"IsOn":true,"Meta":{"k":"v"},"Items":[{"Name":"n","Sub":{"Name":"m"}}],"Raw":{"x":[1,{}]},"Word":"left"}"#;
    let bytes = text.as_bytes();
    assert!(decode::<Doc>(bytes, 16).is_ok());
    for end in 0..bytes.len() {
        assert!(decode::<Doc>(&bytes[..end], 16).is_err(), "{end}");
    }
    let mut taken_n = 0;
    for i in 0..bytes.len() {
        for byte in [0, b'"', b'\\', b'{', b'}', b'[', b']', b',', b':', b'0', b'-', b'e', b'n', 0xc3, 0xff] {
            let mut changed = bytes.to_vec();
            changed[i] = byte;
            taken_n += usize::from(decode::<Doc>(&changed, 16).is_ok());
        }
    }
    assert!(taken_n > 0);
}
