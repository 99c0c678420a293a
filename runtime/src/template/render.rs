//! Nodes -> text. Pure: values come from a lookup passed in.
//!
//! Shape: ([`Parsed`], lookup) -> text.   Units: bytes.   Errors: [`TooLong`] alone; all else was refused by `parse`.
//! Source: Go text/template; hashicorp/consul-template `env` (behaviour only): a name nobody knows is empty.

use core::fmt;

use super::parse::{Expr, Function, Node, Parsed, Value};

/// Longest text rendered.
pub const OUTPUT_BYTES_MAX: usize = 2 << 20;

/// The text would be longer than [`OUTPUT_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rendered template is longer than {OUTPUT_BYTES_MAX} bytes")
    }
}

/// Renders a template; `lookup` answers the function `env`.
///
/// # Errors
/// When the text gets too long.
pub fn render<'a>(parsed: &Parsed, lookup: &dyn Fn(&str) -> Option<&'a str>) -> Result<String, TooLong> {
    let mut out = String::new();
    for node in &parsed.nodes {
        match node {
            Node::Text(text) => push(&mut out, text)?,
            Node::Print(expr) => push(&mut out, &text(eval(expr, lookup)))?,
        }
    }
    Ok(out)
}

fn push(out: &mut String, text: &str) -> Result<(), TooLong> {
    if out.len() + text.len() > OUTPUT_BYTES_MAX {
        return Err(TooLong);
    }
    out.push_str(text);
    Ok(())
}

/// The value of an expression. `parse` limits how deep it goes.
fn eval<'a>(expr: &Expr, lookup: &dyn Fn(&str) -> Option<&'a str>) -> Value {
    match expr {
        Expr::Value(value) => value.clone(),
        Expr::Call { function: Function::Env, args } => {
            let name = args.first().map(|arg| text(eval(arg, lookup))).unwrap_or_default();
            Value::Text(lookup(&name).unwrap_or("").to_owned())
        }
    }
}

/// A value as it is printed.
fn text(value: Value) -> String {
    match value {
        Value::Text(text) => text,
        Value::Int(number) => number.to_string(),
        Value::Bool(is_true) => is_true.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    fn known(name: &str) -> Option<&'static str> {
        match name {
            "NOMAD_ALLOC_NAME" => Some("web.page[0]"),
            "node.unique.name" => Some("shop-3"),
            "POINTER" => Some("NOMAD_ALLOC_NAME"),
            "ACTION" => Some("{{ env \"POINTER\" }}"),
            _ => None,
        }
    }

    #[track_caller]
    fn check_delimited(left: &str, right: &str, source: &str, expected: &str) {
        let parsed = parse(source, left, right).unwrap_or_else(|e| panic!("{source}: {e}"));
        assert_eq!(render(&parsed, &known).as_deref(), Ok(expected), "{source}");
    }

    #[track_caller]
    fn check(source: &str, expected: &str) {
        check_delimited("{{", "}}", source, expected);
    }

    #[test]
    fn the_page_of_web() {
        let source = "<h1>{{ env \"NOMAD_ALLOC_NAME\" }} on {{ env \"node.unique.name\" }}</h1>\n";
        check(source, "<h1>web.page[0] on shop-3</h1>\n");
    }

    #[test]
    fn text_and_values() {
        check("", "");
        check("plain } text {", "plain } text {");
        check("{{env \"none\"}}", "");
        check("{{ \"POINTER\" | env }}{{ \"POINTER\" | env | env }}", "NOMAD_ALLOC_NAMEweb.page[0]");
        check("{{ env (env \"POINTER\") }}{{ ((\"x\")) }}{{(env \"POINTER\")|env}}", "web.page[0]xweb.page[0]");
        check("{{ 42 }} {{ -7 }} {{ +7 }} {{ 0 }} {{ true }} {{ false }}", "42 -7 7 0 true false");
        check("{{ \"a\\tb\\\"\\\\\\x41\\101\\u00e4\\U0001F600\\n\" }}", "a\tb\"\\AA\u{e4}\u{1F600}\n");
        check("{{ `raw \\n \"x\"` }}{{ \"\" }}", "raw \\n \"x\"");
        check("{{ \"}}\" }}{{ `{{` }}", "}}{{");
        check("{{\n  env\n  \"node.unique.name\"\n}}", "shop-3");
        // What a value brings is text, not a template.
        check("{{ env \"ACTION\" }}", "{{ env \"POINTER\" }}");
    }

    #[test]
    fn comments_and_trimming() {
        check("a{{/* {{ no }} */}}b", "ab");
        check("a {{- /* c */ -}} b", "ab");
        check("a \n\t{{- 1 }} b", "a1 b");
        check("a {{ 1 -}} \r\n b", "a 1b");
        check("a {{- 1 -}} {{- 2 -}} b", "a12b");
        check("a {{-1}} b", "a -1 b");
        check("{{- 1 -}}", "1");
        check("x {{ \"y \" -}} ", "x y ");
    }

    #[test]
    fn other_delimiters() {
        check_delimited("[[", "]]", "{{ x }} [[ env \"node.unique.name\" ]]", "{{ x }} shop-3");
        check_delimited("<%", "%>", "<%- 1 -%> {{", "1{{");
        check_delimited("(", ")", "a ( (1) ) b", "a 1 b");
        check_delimited("", "", "{{ 1 }}", "1");
    }

    #[test]
    fn the_output_is_bounded() {
        let big = "x".repeat(1 << 20);
        let value: &str = &big;
        let parsed = parse("{{ env \"A\" }}{{ env \"A\" }}", "", "").unwrap();
        assert_eq!(render(&parsed, &|_| Some(value)).map(|text| text.len()), Ok(OUTPUT_BYTES_MAX));
        let parsed = parse("{{ env \"A\" }}{{ env \"A\" }}.", "", "").unwrap();
        assert_eq!(render(&parsed, &|_| Some(value)), Err(TooLong));
    }
}
