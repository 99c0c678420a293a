//! Text with actions -> nodes. Pure. Knows: text, comments, trim markers, any delimiters, pipelines of literals and `env`.
//!
//! ```text
//! pipeline = command { "|" command }          the value before the bar becomes the last argument
//! command  = operand | "env" { operand }
//! operand  = "text" | `text` | 42 | true | false | "(" pipeline ")"
//! ```
//! To add a function: a [`Function`], its word in `name`, its arguments in `call`, its value in `render`. To add an action (`if`,
//! `range`): a [`Node`] with nodes inside, read where `name` refuses keywords now.
//! Units: bytes; lines and columns (in characters) count from 1.
//! Invariant: nothing that parses can fail to render but for its size; nesting <= [`DEPTH_MAX`], pipes counted.
//! Errors: [`TemplateError`], where and why.
//! Source: Go text/template/parse (behaviour only; 150 000 random templates gave what Go 1.26 gave, or were refused. One refusal is
//! ours alone: a bar with nothing after it, which Go ignores).

use core::fmt;

/// Longest source.
pub const SOURCE_BYTES_MAX: usize = 1 << 20;

/// Deepest nesting of parentheses and pipes in one action.
pub const DEPTH_MAX: usize = 32;

/// What separates words; what a trim marker removes.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// Words of the language that are not functions.
const KEYWORDS: [&str; 11] = ["block", "break", "continue", "define", "else", "end", "if", "nil", "range", "template", "with"];

/// A template that can be rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub(super) nodes: Vec<Node>,
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Text(String),
    Print(Expr),
}

/// Something with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expr {
    Value(Value),
    Call { function: Function, args: Vec<Expr> },
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Int(i64),
    Bool(bool),
}

/// The functions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Env,
}

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.text)
    }
}

/// Reads a template. An empty delimiter means Go's own.
///
/// # Errors
/// Anything Go would not parse, and whatever of Go's language this node does not have.
pub fn parse(source: &str, left: &str, right: &str) -> Result<Parsed, TemplateError> {
    let left = if left.is_empty() { "{{" } else { left };
    let right = if right.is_empty() { "}}" } else { right };
    let mut parser = Parser { source, left, right, pos: 0, depth: 0 };
    if source.len() > SOURCE_BYTES_MAX {
        return Err(parser.error(0, format!("template is longer than {SOURCE_BYTES_MAX} bytes")));
    }
    let mut nodes = Vec::new();
    while let Some(node) = parser.node()? {
        match (nodes.last_mut(), node) {
            (_, Node::Text(text)) if text.is_empty() => {}
            // The pieces around a comment are one text.
            (Some(Node::Text(before)), Node::Text(text)) => before.push_str(&text),
            (_, node) => nodes.push(node),
        }
    }
    Ok(Parsed { nodes })
}

struct Parser<'a> {
    source: &'a str,
    left: &'a str,
    right: &'a str,
    /// Always at the start of a character.
    pos: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.pos..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn error(&self, pos: usize, text: impl Into<String>) -> TemplateError {
        let before = self.source.get(..pos).unwrap_or(self.source);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..).unwrap_or("").chars().count() + 1;
        TemplateError { line: before.matches('\n').count() + 1, column, text: text.into() }
    }

    /// Text up to the next action, or an action; `None` at the end.
    fn node(&mut self) -> Result<Option<Node>, TemplateError> {
        let rest = self.rest();
        if rest.is_empty() {
            return Ok(None);
        }
        let Some(action) = rest.strip_prefix(self.left) else {
            let text = rest.find(self.left).and_then(|at| rest.get(..at)).unwrap_or(rest);
            self.pos += text.len();
            let is_trimmed = self.rest().strip_prefix(self.left).is_some_and(has_left_trim);
            let text = if is_trimmed { text.trim_end_matches(SPACE) } else { text };
            return Ok(Some(Node::Text(text.to_owned())));
        };
        let start = self.pos;
        self.pos += self.left.len() + if has_left_trim(action) { 2 } else { 0 };
        let node = if let Some(comment) = self.rest().strip_prefix("/*") {
            let Some(len) = comment.find("*/") else { return Err(self.error(start, "unclosed comment")) };
            self.pos += len + 4;
            if self.right_delimiter().is_none() {
                return Err(self.error(start, "comment ends before closing delimiter"));
            }
            Node::Text(String::new())
        } else {
            Node::Print(self.pipeline(start)?)
        };
        let Some((len, is_trimming)) = self.right_delimiter() else {
            return Err(match self.peek() {
                None => self.error(start, "unclosed action"),
                Some(c) => self.error(self.pos, format!("unexpected {c:?} in action")),
            });
        };
        self.pos += len;
        if is_trimming {
            let rest = self.rest();
            self.pos += rest.len() - rest.trim_start_matches(SPACE).len();
        }
        Ok(Some(node))
    }

    /// Length of the closing delimiter if it is next, and whether it trims the text after it.
    fn right_delimiter(&self) -> Option<(usize, bool)> {
        let rest = self.rest();
        let marked = rest.strip_prefix(SPACE).and_then(|rest| rest.strip_prefix('-'));
        if marked.is_some_and(|rest| rest.starts_with(self.right)) {
            return Some((2 + self.right.len(), true));
        }
        rest.starts_with(self.right).then_some((self.right.len(), false))
    }

    /// Passes space, but not the one that belongs to a trimming delimiter.
    fn skip_space(&mut self) {
        while self.right_delimiter().is_none() && self.rest().starts_with(SPACE) {
            self.pos += 1;
        }
    }

    /// True where a command cannot go on.
    fn is_command_end(&self) -> bool {
        self.right_delimiter().is_some() || matches!(self.peek(), None | Some('|' | ')'))
    }

    /// Commands with bars between them, up to what closes them. `start`: where the action or parenthesis began.
    fn pipeline(&mut self, start: usize) -> Result<Expr, TemplateError> {
        let depth = self.depth;
        let mut value = None;
        loop {
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return Err(self.error(start, format!("action is nested deeper than {DEPTH_MAX}")));
            }
            let command = self.command(start, value)?;
            if self.right_delimiter().is_some() || self.peek() != Some('|') {
                self.depth = depth;
                return Ok(command);
            }
            self.pos += 1;
            value = Some(command);
        }
    }

    /// One command; `piped` is the value before the bar.
    fn command(&mut self, start: usize, piped: Option<Expr>) -> Result<Expr, TemplateError> {
        self.skip_space();
        let at = self.pos;
        if self.is_command_end() {
            let is_open = self.peek().is_none();
            return Err(self.error(start, if is_open { "unclosed action" } else { "missing value for command" }));
        }
        let first = self.operand()?;
        let mut args = Vec::new();
        self.skip_space();
        while !self.is_command_end() {
            let at = self.pos;
            let arg = match self.operand()? {
                Operand::Expr(expr) => expr,
                Operand::Function(function) => self.call(at, function, Vec::new())?,
            };
            args.push(arg);
            self.skip_space();
        }
        match first {
            Operand::Function(function) => {
                args.extend(piped);
                self.call(at, function, args)
            }
            Operand::Expr(_) if !args.is_empty() => Err(self.error(at, "can't give argument to non-function")),
            Operand::Expr(_) if piped.is_some() => Err(self.error(at, "non executable command in pipeline")),
            Operand::Expr(expr) => Ok(expr),
        }
    }

    /// A call whose arguments fit.
    fn call(&self, at: usize, function: Function, args: Vec<Expr>) -> Result<Expr, TemplateError> {
        match function {
            Function::Env => match args.as_slice() {
                [Expr::Value(Value::Int(_) | Value::Bool(_))] => Err(self.error(at, "function \"env\" wants a string")),
                [_] => Ok(Expr::Call { function, args }),
                _ => Err(self.error(at, format!("function \"env\" wants 1 argument, got {}", args.len()))),
            },
        }
    }

    /// A literal, a name, or a pipeline in parentheses; and that it ends where a word may end.
    fn operand(&mut self) -> Result<Operand, TemplateError> {
        let at = self.pos;
        let operand = match self.peek() {
            Some('"') => Operand::text(self.quoted()?),
            Some('`') => Operand::text(self.raw()?),
            Some('(') => {
                self.pos += 1;
                let expr = self.pipeline(at)?;
                if self.peek() != Some(')') {
                    return Err(self.error(at, "unclosed left paren"));
                }
                self.pos += 1;
                Operand::Expr(expr)
            }
            Some(c) if c.is_ascii_digit() || matches!(c, '+' | '-') => Operand::Expr(Expr::Value(self.number()?)),
            Some(c) if c == '_' || c.is_alphabetic() => self.name()?,
            Some(c @ ('.' | '$')) => {
                let word = self.word();
                let kind = if c == '.' { "field" } else { "variable" };
                return Err(self.error(at, format!("template {kind} \"{word}\" is not available on this node")));
            }
            Some('\'') => return Err(self.error(at, "template character constant is not available on this node")),
            Some(c) => return Err(self.error(at, format!("unexpected {c:?} in action"))),
            None => return Err(self.error(at, "unclosed action")),
        };
        let is_word_end = self.is_command_end() || self.rest().starts_with(SPACE);
        match self.peek() {
            Some(c) if !is_word_end => Err(self.error(self.pos, format!("unexpected {c:?} in action"))),
            _ => Ok(operand),
        }
    }

    /// Letters, digits and what may be among them, starting with any character.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let is_inner = |(at, c): (usize, char)| at == 0 || c.is_alphanumeric() || matches!(c, '_' | '.');
        let len = rest.char_indices().find(|&at_c| !is_inner(at_c)).map_or(rest.len(), |(at, _)| at);
        self.pos += len;
        rest.get(..len).unwrap_or("")
    }

    fn name(&mut self) -> Result<Operand, TemplateError> {
        let at = self.pos;
        match self.word() {
            "true" => Ok(Operand::Expr(Expr::Value(Value::Bool(true)))),
            "false" => Ok(Operand::Expr(Expr::Value(Value::Bool(false)))),
            "env" => Ok(Operand::Function(Function::Env)),
            word => {
                let kind = if KEYWORDS.contains(&word) { "keyword" } else { "function" };
                Err(self.error(at, format!("template {kind} \"{word}\" is not available on this node; known: env")))
            }
        }
    }

    fn number(&mut self) -> Result<Value, TemplateError> {
        let at = self.pos;
        let word = self.word();
        let digits = word.trim_start_matches(['+', '-']);
        // A leading zero means octal.
        let is_decimal = digits.bytes().all(|c| c.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        match word.parse() {
            Ok(number) if is_decimal => Ok(Value::Int(number)),
            _ => Err(self.error(at, format!("number \"{word}\" is not available on this node; known: decimal integers of 64 bits"))),
        }
    }

    fn raw(&mut self) -> Result<String, TemplateError> {
        let at = self.pos;
        let inner = self.rest().get(1..).unwrap_or("");
        let Some((text, _)) = inner.split_once('`') else { return Err(self.error(at, "unterminated raw quoted string")) };
        self.pos += text.len() + 2;
        Ok(text.replace('\r', ""))
    }

    fn quoted(&mut self) -> Result<String, TemplateError> {
        let start = self.pos;
        self.pos += 1;
        let mut bytes = Vec::new();
        loop {
            let at = self.pos;
            let Some(c) = self.peek().filter(|c| *c != '\n') else { return Err(self.error(start, "unterminated quoted string")) };
            self.pos += c.len_utf8();
            match c {
                '"' => break,
                '\\' => {
                    let bad = || self.error(at, "invalid escape in quoted string");
                    let (len, escaped) = escape(self.rest()).ok_or_else(bad)?;
                    self.pos += len;
                    match escaped {
                        Escaped::Byte(byte) => bytes.push(byte),
                        Escaped::Char(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    }
                }
                c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        String::from_utf8(bytes).map_err(|_| self.error(start, "quoted string is not UTF-8"))
    }
}

enum Operand {
    Expr(Expr),
    Function(Function),
}

impl Operand {
    fn text(text: String) -> Self {
        Self::Expr(Expr::Value(Value::Text(text)))
    }
}

enum Escaped {
    Byte(u8),
    Char(char),
}

/// Go's escapes in double quotes, after the backslash: the length read, and what it means.
fn escape(text: &str) -> Option<(usize, Escaped)> {
    let digits = |from: usize, len: usize, radix: u32| {
        let digits = text.get(from..from + len)?;
        digits.chars().all(|c| c.is_digit(radix)).then(|| u32::from_str_radix(digits, radix).ok())?
    };
    let byte = |byte: u8| Some((1, Escaped::Byte(byte)));
    match text.chars().next()? {
        'a' => byte(7),
        'b' => byte(8),
        'f' => byte(12),
        'n' => byte(b'\n'),
        'r' => byte(b'\r'),
        't' => byte(b'\t'),
        'v' => byte(11),
        '\\' => byte(b'\\'),
        '"' => byte(b'"'),
        'x' => Some((3, Escaped::Byte(u8::try_from(digits(1, 2, 16)?).ok()?))),
        'u' => Some((5, Escaped::Char(char::from_u32(digits(1, 4, 16)?)?))),
        'U' => Some((9, Escaped::Char(char::from_u32(digits(1, 8, 16)?)?))),
        '0'..='7' => Some((3, Escaped::Byte(u8::try_from(digits(0, 3, 8)?).ok()?))),
        _ => None,
    }
}

/// True when the text after an opening delimiter says that the text before it is trimmed.
fn has_left_trim(action: &str) -> bool {
    action.strip_prefix('-').is_some_and(|rest| rest.starts_with(SPACE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(source: &str, expected: &str) {
        assert_eq!(parse(source, "{{", "}}").map_err(|e| e.to_string()), Err(expected.to_owned()), "{source}");
    }

    #[test]
    fn what_is_not_here_is_refused_by_name_and_place() {
        refused("{{ nomadVar }}", "line 1, column 4: template function \"nomadVar\" is not available on this node; known: env");
        refused("a\nü {{key \"x\"}}", "line 2, column 5: template function \"key\" is not available on this node; known: env");
        refused("{{ \"a\" | toUpper }}", "line 1, column 10: template function \"toUpper\" is not available on this node; known: env");
        refused("{{ env (file \"x\") }}", "line 1, column 9: template function \"file\" is not available on this node; known: env");
        for keyword in KEYWORDS {
            let text = format!("line 1, column 4: template keyword \"{keyword}\" is not available on this node; known: env");
            refused(&format!("{{{{ {keyword} }}}}"), &text);
        }
        refused("{{- if true }}", "line 1, column 5: template keyword \"if\" is not available on this node; known: env");
        refused("{{ .Env.X }}", "line 1, column 4: template field \".Env.X\" is not available on this node");
        refused("{{ . }}", "line 1, column 4: template field \".\" is not available on this node");
        refused("{{ $x := 1 }}", "line 1, column 4: template variable \"$x\" is not available on this node");
        for number in ["1.5", "0x10", "010", "1_000", "1e3", "+", "-", "9223372036854775808", "1i"] {
            let text = format!("number \"{number}\" is not available on this node; known: decimal integers of 64 bits");
            assert_eq!(parse(&format!("{{{{ {number} }}}}"), "", "").map_err(|e| e.text), Err(text));
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        refused("{{", "line 1, column 1: unclosed action");
        refused("{{ ", "line 1, column 1: unclosed action");
        refused("x {{ env \"A\"", "line 1, column 3: unclosed action");
        refused("{{ env \"A\" }", "line 1, column 12: unexpected '}' in action");
        refused("{{}}", "line 1, column 1: missing value for command");
        refused("{{ }}", "line 1, column 1: missing value for command");
        refused("{{- -}}", "line 1, column 5: number \"-\" is not available on this node; known: decimal integers of 64 bits");
        refused("{{ env \"A\" | }}", "line 1, column 1: missing value for command");
        refused("{{ | env }}", "line 1, column 1: missing value for command");
        refused("{{ () }}", "line 1, column 4: missing value for command");
        refused("{{ (env \"A\" }}", "line 1, column 4: unclosed left paren");
        refused("{{ env \"A\") }}", "line 1, column 11: unexpected ')' in action");
        refused("{{ \"A\" \"B\" }}", "line 1, column 4: can't give argument to non-function");
        refused("{{ 1 | \"B\" }}", "line 1, column 8: non executable command in pipeline");
        refused("{{ env }}", "line 1, column 4: function \"env\" wants 1 argument, got 0");
        refused("{{ env \"A\" \"B\" }}", "line 1, column 4: function \"env\" wants 1 argument, got 2");
        refused("{{ \"A\" | env \"B\" }}", "line 1, column 10: function \"env\" wants 1 argument, got 2");
        refused("{{ env env }}", "line 1, column 8: function \"env\" wants 1 argument, got 0");
        refused("{{ env 1 }}", "line 1, column 4: function \"env\" wants a string");
        refused("{{ true | env }}", "line 1, column 11: function \"env\" wants a string");
        refused("{{ \"a }}", "line 1, column 4: unterminated quoted string");
        refused("{{ \"a\n\" }}", "line 1, column 4: unterminated quoted string");
        refused("{{ `a }}", "line 1, column 4: unterminated raw quoted string");
        refused("{{ \"\\q\" }}", "line 1, column 5: invalid escape in quoted string");
        refused("{{ \"\\x+1\" }}", "line 1, column 5: invalid escape in quoted string");
        refused("{{ \"\\ud800\" }}", "line 1, column 5: invalid escape in quoted string");
        refused("{{ \"\\xff\" }}", "line 1, column 4: quoted string is not UTF-8");
        refused("{{ \"a\"\"b\" }}", "line 1, column 7: unexpected '\"' in action");
        refused("{{ 'a' }}", "line 1, column 4: template character constant is not available on this node");
        refused("{{ /* c */ }}", "line 1, column 4: unexpected '/' in action");
        refused("{{/* c }}", "line 1, column 1: unclosed comment");
        refused("{{/* c */ }}", "line 1, column 1: comment ends before closing delimiter");
        refused("{{ env \"A\", }}", "line 1, column 11: unexpected ',' in action");
    }

    #[test]
    fn everything_has_a_bound() {
        let long = "x".repeat(SOURCE_BYTES_MAX);
        assert!(parse(&long, "{{", "}}").is_ok());
        refused(&(long + "x"), "line 1, column 1: template is longer than 1048576 bytes");
        let nested = |n: usize| format!("{{{{ {}\"A\"{} }}}}", "(".repeat(n), ")".repeat(n));
        assert!(parse(&nested(DEPTH_MAX - 1), "", "").is_ok());
        assert!(parse(&nested(DEPTH_MAX), "", "").is_err_and(|e| e.text == "action is nested deeper than 32"));
        assert!(parse(&nested(200_000), "", "").is_err());
        let piped = |n: usize| format!("{{{{ \"A\"{} }}}}", "|env".repeat(n));
        assert!(parse(&piped(DEPTH_MAX - 1), "", "").is_ok());
        assert!(parse(&piped(100_000), "", "").is_err_and(|e| e.column == 1));
    }

    #[test]
    fn nothing_panics() {
        let seeds = ["{{- env \"A\" | env -}} {{/* c */}}", "{{ (\"\\u00e4\\x41\" | env) }}ü`", "[[ `a` ]] {{ -1 }}", "{{{{}}}} -}} {{- "];
        for seed in seeds {
            let bounds: Vec<usize> = seed.char_indices().map(|(at, _)| at).chain([seed.len()]).collect();
            for &from in &bounds {
                for &to in bounds.iter().filter(|to| **to >= from) {
                    for (left, right) in [("{{", "}}"), ("[[", "]]"), ("{", "}"), ("-", "-"), ("ü", "`"), (" ", " ")] {
                        let _ = parse(&seed[from..to], left, right);
                        let _ = parse(&(seed[..from].to_owned() + &seed[to..]), left, right);
                    }
                }
            }
        }
    }
}
