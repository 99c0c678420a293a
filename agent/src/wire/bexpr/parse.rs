//! Text of a filter -> its tree: a parser of one pass that takes what upstream's grammar takes.
//!
//! That grammar tries alternatives in order and, where the first that fits leads nowhere, gives up. So each rule here gives its end,
//! or `None` (another alternative may fit), or a [`Fault`]: upstream notes some errors while it tries, and then the whole text is bad,
//! whatever fits later. A rule never begins again at a place where a longer one has failed, but for the words `not`, `any` and `all`,
//! which may be names. Positions are bytes.

use regex_lite::RegexBuilder;

use super::{DEPTH_MAX, Each, Fault, Match, Names, Node, Op, REGEX_BYTES_MAX, Selector, TEXT_BYTES_MAX};
use crate::wire::go_text;

/// What a rule has read, and where it ends.
type Fit<T> = Result<Option<(T, usize)>, Fault>;
/// Makes what is asked of a value.
type Make = fn(String) -> Op;

/// What could have stood at a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Word(&'static str),
    Class(&'static str),
    End,
}

const BLANK: Want = Want::Class("[ \\t\\r\\n]");

struct Parser<'t> {
    text: &'t str,
    depth: usize,
    /// The furthest place at which nothing fitted, and what was tried there.
    far: usize,
    wanted: Vec<Want>,
}

pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Fault(format!("{} bytes are too many, at most {TEXT_BYTES_MAX} are read", text.len())));
    }
    let mut parser = Parser { text, depth: 0, far: 0, wanted: Vec::new() };
    let start = parser.blanks(0);
    if let Some((node, end)) = parser.or(start)? {
        let end = parser.blanks(end);
        if end == text.len() {
            return Ok(node);
        }
        parser.miss(end, Want::End);
    }
    Err(parser.no_match())
}

impl Parser<'_> {
    fn rest(&self, at: usize) -> &str {
        self.text.get(at..).unwrap_or_default()
    }

    /// Where the run of characters that `fits` ends.
    fn run(&self, at: usize, fits: impl Fn(char) -> bool) -> usize {
        let rest = self.rest(at);
        at + rest.find(|c| !fits(c)).unwrap_or(rest.len())
    }

    fn miss(&mut self, at: usize, want: Want) {
        if at > self.far {
            self.far = at;
            self.wanted.clear();
        }
        if at == self.far && !self.wanted.contains(&want) {
            self.wanted.push(want);
        }
    }

    #[cold]
    fn fault(&self, at: usize, why: &str) -> Fault {
        let (mut line, mut column) = (1, 0);
        let before = self.text.char_indices().take_while(|(i, _)| *i <= at).map(|(_, c)| c);
        for c in before.chain((at >= self.text.len()).then_some('\0')) {
            (line, column) = if c == '\n' { (line + 1, 0) } else { (line, column + 1) };
        }
        Fault(format!("{line}:{column} ({at}): {why}"))
    }

    #[cold]
    fn no_match(&self) -> Fault {
        let mut wanted: Vec<String> = self
            .wanted
            .iter()
            .filter_map(|want| match want {
                Want::Word(word) => Some(go_text::quote(word)),
                Want::Class(class) => Some((*class).to_owned()),
                Want::End => None,
            })
            .collect();
        wanted.sort();
        if self.wanted.contains(&Want::End) {
            wanted.push("EOF".to_owned());
        }
        let last = wanted.pop().unwrap_or_default();
        let list = if wanted.is_empty() { last } else { format!("{} or {last}", wanted.join(", ")) };
        self.fault(self.far, &format!("no match found, expected: {list}"))
    }

    fn word(&mut self, at: usize, word: &'static str) -> Option<usize> {
        if self.rest(at).starts_with(word) {
            return Some(at + word.len());
        }
        self.miss(at, Want::Word(word));
        None
    }

    /// Blanks, if there are any.
    fn blanks(&mut self, at: usize) -> usize {
        let end = self.run(at, |c| matches!(c, ' ' | '\t' | '\r' | '\n'));
        self.miss(end, BLANK);
        end
    }

    /// At least one blank.
    fn blank(&mut self, at: usize) -> Option<usize> {
        Some(self.blanks(at)).filter(|end| *end > at)
    }

    /// `_ "word" _ "word" ..` without a blank at the end.
    fn words(&mut self, mut at: usize, words: &[&'static str]) -> Option<usize> {
        for &word in words {
            at = self.blank(at)?;
            at = self.word(at, word)?;
        }
        Some(at)
    }

    /// The same with a blank at the end.
    fn spaced(&mut self, at: usize, words: &[&'static str]) -> Option<usize> {
        let end = self.words(at, words)?;
        self.blank(end)
    }

    /// `a and b or any c as d { .. }`.
    fn or(&mut self, at: usize) -> Fit<Node> {
        let (mut parts, mut here) = (Vec::new(), at);
        let end = loop {
            if let Some((part, end)) = self.and(here)? {
                parts.push(part);
                match self.spaced(end, &["or"]) {
                    Some(next) => here = next,
                    None => break end,
                }
            } else if let Some((part, end)) = self.each(here)? {
                // Nothing can be joined to it.
                parts.push(part);
                break end;
            } else if parts.is_empty() {
                return Ok(None);
            } else {
                return Err(self.no_match());
            }
        };
        Ok(Some((one_or(parts, Node::Or), end)))
    }

    fn and(&mut self, at: usize) -> Fit<Node> {
        let (mut parts, mut here) = (Vec::new(), at);
        let end = loop {
            match self.not(here)? {
                Some((part, end)) => {
                    parts.push(part);
                    match self.spaced(end, &["and"]) {
                        Some(next) => here = next,
                        None => break end,
                    }
                }
                None if parts.is_empty() => return Ok(None),
                // Upstream would stop before the word, and then find nothing that can follow.
                None => return Err(self.no_match()),
            }
        };
        Ok(Some((one_or(parts, Node::And), end)))
    }

    fn not(&mut self, at: usize) -> Fit<Node> {
        let (mut nots, mut here) = (Vec::new(), at);
        while let Some(next) = self.word(here, "not").and_then(|end| self.blank(end)) {
            nots.push(here);
            here = next;
        }
        loop {
            if let Some((node, end)) = self.group(here)? {
                let node = if nots.len().is_multiple_of(2) { node } else { Node::Not(Box::new(node)) };
                return Ok(Some((node, end)));
            }
            // The last `not` may have been a name.
            match nots.pop() {
                Some(back) => here = back,
                None => return Ok(None),
            }
        }
    }

    fn group(&mut self, at: usize) -> Fit<Node> {
        let Some(inner) = self.word(at, "(") else { return self.one(at) };
        self.enter(at)?;
        let start = self.blanks(inner);
        let Some((node, end)) = self.or(start)? else { return Ok(None) };
        let end = self.blanks(end);
        self.depth -= 1;
        match self.word(end, ")") {
            Some(end) => Ok(Some((node, end))),
            None => Err(self.fault(end, "rule \"grouping\": Unmatched parentheses")),
        }
    }

    fn enter(&mut self, at: usize) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(self.fault(at, &format!("nested deeper than {DEPTH_MAX} levels"))) } else { Ok(()) }
    }

    fn each(&mut self, at: usize) -> Fit<Node> {
        let (wants_all, end) = match (self.word(at, "any"), self.word(at, "all")) {
            (Some(end), _) => (false, end),
            (_, Some(end)) => (true, end),
            _ => return Ok(None),
        };
        let Some(at) = self.blank(end) else { return Ok(None) };
        let Some((selector, end)) = self.selector(at)? else { return Ok(None) };
        let Some(at) = self.spaced(end, &["as"]) else { return Ok(None) };
        let Some((names, end)) = self.names(at) else { return Ok(None) };
        let brace = self.blanks(end);
        let Some(end) = self.word(brace, "{") else { return Ok(None) };
        self.enter(brace)?;
        let at = self.blanks(end);
        let Some((inner, end)) = self.or(at)? else { return Ok(None) };
        let end = self.blanks(end);
        self.depth -= 1;
        let Some(end) = self.word(end, "}") else { return Ok(None) };
        Ok(Some((Node::Each(Box::new(Each { wants_all, selector, names, inner })), end)))
    }

    fn names(&mut self, at: usize) -> Option<(Names, usize)> {
        let (first, end) = match self.id(at) {
            Some((id, end)) => (Some(id), end),
            None => (None, self.word(at, "_")?),
        };
        let comma = self.blanks(end);
        match (self.word(comma, ","), first) {
            (Some(end), first) => {
                let at = self.blanks(end);
                match (self.id(at), &first) {
                    (Some((second, end)), _) => Some((Names::Pair(first, Some(second)), end)),
                    (None, Some(_)) => self.word(at, "_").map(|end| (Names::Pair(first, None), end)),
                    (None, None) => None,
                }
            }
            (None, Some(only)) => Some((Names::One(only), end)),
            (None, None) => None,
        }
    }

    /// One comparison.
    fn one(&mut self, at: usize) -> Fit<Node> {
        let found = |selector, op, is_negated, end| Ok(Some((Node::Match(Match { selector, op, is_negated }), end)));
        let (value, end) = match self.selector(at)? {
            Some((selector, end)) => {
                if let Some((make, is_negated, end)) = self.value_op(end) {
                    return match self.value(end)? {
                        Some((value, end)) => found(selector, make(value), is_negated, end),
                        None => Ok(None),
                    };
                }
                for (words, op, is_negated) in [
                    (&["is", "empty"][..], Op::Empty, false),
                    (&["is", "not", "empty"], Op::Empty, true),
                    (&["is", "nil"], Op::Nil, false),
                    (&["is", "not", "nil"], Op::Nil, true),
                ] {
                    if let Some(end) = self.words(end, words) {
                        return found(selector, op, is_negated, end);
                    }
                }
                (selector.to_string(), end)
            }
            None => match self.literal(at)? {
                Some(value) => value,
                None => return Ok(None),
            },
        };
        let (is_negated, end) = match (self.spaced(end, &["in"]), self.spaced(end, &["not", "in"])) {
            (Some(end), _) => (false, end),
            (_, Some(end)) => (true, end),
            _ => return Ok(None),
        };
        match self.selector(end)? {
            Some((selector, end)) => found(selector, Op::In(value), is_negated, end),
            None => Err(self.fault(end, "rule \"match\": Invalid selector")),
        }
    }

    /// An operator that stands between a selector and a value.
    fn value_op(&mut self, at: usize) -> Option<(Make, bool, usize)> {
        let after = self.blanks(at);
        for (sign, is_negated) in [("==", false), ("!=", true)] {
            if let Some(end) = self.word(after, sign) {
                return Some((Op::Equal, is_negated, self.blanks(end)));
            }
        }
        for (words, make) in [(["not", "contains"], Op::In as Make), (["not", "matches"], matches)] {
            for (words, is_negated) in [(&words[1..], false), (&words[..], true)] {
                if let Some(end) = self.spaced(at, words) {
                    return Some((make, is_negated, end));
                }
            }
        }
        None
    }

    fn value(&mut self, at: usize) -> Fit<String> {
        match self.selector(at)? {
            Some((selector, end)) => Ok(Some((selector.to_string(), end))),
            None => self.literal(at),
        }
    }

    fn literal(&mut self, at: usize) -> Fit<String> {
        match self.number(at)? {
            Some(number) => Ok(Some(number)),
            None => self.string(at),
        }
    }

    fn selector(&mut self, at: usize) -> Fit<Selector> {
        let Some((first, mut end)) = self.id(at) else { return Ok(self.pointer(at)) };
        let mut path = vec![first];
        loop {
            let dot = self.word(end, ".");
            let next = match dot.and_then(|dot| self.id(dot)) {
                Some(next) => Some(next),
                None => match self.index(end)? {
                    Some(next) => Some(next),
                    None => dot.and_then(|dot| self.digits(dot)),
                },
            };
            let Some((part, next)) = next else { return Ok(Some((Selector { path, is_pointer: false }, end))) };
            path.push(part);
            end = next;
        }
    }

    /// `"/a/b"`.
    fn pointer(&mut self, at: usize) -> Option<(Selector, usize)> {
        let mut end = self.word(at, "\"")?;
        let mut path = Vec::new();
        while let Some(slash) = self.word(end, "/") {
            // Letters as this language's library has them: it counts some marks that upstream's does not.
            end = self.run(slash, |c| c.is_alphanumeric() || "-_.~:|".contains(c));
            self.miss(end, Want::Class("[\\pL\\pN-_.~:|]"));
            let part = self.text.get(slash..end).filter(|part| !part.is_empty())?;
            path.push(part.replace("~1", "/").replace("~0", "~"));
        }
        let end = self.word(end, "\"")?;
        if path.is_empty() {
            path.push(String::new());
        }
        Some((Selector { path, is_pointer: true }, end))
    }

    fn id(&mut self, at: usize) -> Option<(String, usize)> {
        if !self.rest(at).starts_with(|c: char| c.is_ascii_alphabetic()) {
            self.miss(at, Want::Class("[a-zA-Z]"));
            return None;
        }
        let end = self.run(at, |c| c.is_ascii_alphanumeric() || c == '_' || c == '/');
        self.miss(end, Want::Class("[a-zA-Z0-9_/]"));
        Some((self.text.get(at..end)?.to_owned(), end))
    }

    fn digits(&mut self, at: usize) -> Option<(String, usize)> {
        let end = self.run(at, |c| c.is_ascii_digit());
        self.miss(end, Want::Class("[0-9]"));
        Some((self.text.get(at..end)?.to_owned(), end)).filter(|_| end > at)
    }

    /// `["text"]`.
    fn index(&mut self, at: usize) -> Fit<String> {
        let Some(end) = self.word(at, "[") else { return Ok(None) };
        let start = self.blanks(end);
        let Some((part, end)) = self.string(start)? else { return Err(self.fault(start, "rule \"index\": Invalid index")) };
        let end = self.blanks(end);
        match self.word(end, "]") {
            Some(end) => Ok(Some((part, end))),
            None => Err(self.fault(end, "rule \"index\": Unclosed index expression")),
        }
    }

    fn number(&mut self, at: usize) -> Fit<String> {
        let start = self.word(at, "-").unwrap_or(at);
        let whole = match self.word(start, "0") {
            Some(end) => Some(end),
            None if self.rest(start).starts_with(|c: char| c.is_ascii_digit()) => self.digits(start).map(|(_, end)| end),
            None => {
                self.miss(start, Want::Class("[1-9]"));
                None
            }
        };
        let Some(whole) = whole else { return Ok(None) };
        let end = self.word(whole, ".").and_then(|dot| self.digits(dot)).map_or(whole, |(_, end)| end);
        match self.rest(end).chars().next() {
            None | Some(' ' | '\t' | '\r' | '\n' | ')') => Ok(self.text.get(at..end).map(|text| (text.to_owned(), end))),
            Some(_) => Err(self.fault(end, "rule \"number\": Invalid number literal")),
        }
    }

    fn string(&mut self, at: usize) -> Fit<String> {
        let (start, mark) = match (self.word(at, "`"), self.word(at, "\"")) {
            (Some(start), _) => (start, '`'),
            (_, Some(start)) => (start, '"'),
            _ => return Ok(None),
        };
        let Some(len) = self.rest(start).find(mark) else {
            return Err(self.fault(self.text.len(), "rule \"string\": Unterminated string literal"));
        };
        let inner = self.text.get(start..start + len).unwrap_or_default();
        let text = if mark == '`' { Some(inner.replace('\r', "")) } else { go_text::unescape(inner) };
        match text {
            Some(text) => Ok(Some((text, start + len + 1))),
            None => Err(self.fault(at, "rule \"string\": invalid syntax")),
        }
    }
}

/// A list of one is that one.
fn one_or(mut parts: Vec<Node>, many: fn(Vec<Node>) -> Node) -> Node {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            many(parts)
        }
        None => many(parts),
    }
}

fn matches(pattern: String) -> Op {
    let regex = RegexBuilder::new(&pattern).size_limit(REGEX_BYTES_MAX).build().map_err(|why| why.to_string());
    Op::Matches(pattern, regex)
}
