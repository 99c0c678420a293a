//! The filter language of lists (go-bexpr): text -> [`Expr`] -> does it hold of an object?
//!
//! Shape: [`Expr::parse`] reads the text once; [`Expr::holds`] looks at one [`Datum`] after the other. Pure.
//! What a selector finds is typed as in Go: [`datum`] joins the object's JSON with a table of kinds, because the language tells a
//! missing field from a missing key, a nil list from an empty one and a string from a number.
//! Bounds: [`TEXT_BYTES_MAX`], [`DEPTH_MAX`], [`REGEX_BYTES_MAX`], and of one evaluation [`WORK_MIN`]; beyond each is a [`Fault`].
//! Reading is linear in the text, where upstream's grammar is exponential in its nesting. Nothing panics on any text.
//! Errors: a [`Fault`] with the place, in upstream's words where clients look for them.
//! Source: `spec/http-api.md` 1.9; go-bexpr v0.1.16 grammar/grammar.peg, evaluate.go and pointerstructure v1.2.1 get.go (behaviour only).

use core::fmt;

use regex_lite::Regex;

pub mod datum;
mod eval;
mod parse;

pub use datum::Datum;

/// Longest text.
pub const TEXT_BYTES_MAX: usize = 4 << 10;
/// Deepest nesting of `(` and `{`.
pub const DEPTH_MAX: usize = 32;
/// Memory one regular expression may take.
pub const REGEX_BYTES_MAX: usize = 64 << 10;
/// Bytes of JSON one evaluation may look at, beside eight times the object's own.
pub const WORK_MIN: usize = 1 << 20;

/// What is wrong with a text, or why it cannot be answered for an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An expression.
#[derive(Debug)]
pub struct Expr(Node);

impl Expr {
    /// Reads an expression.
    ///
    /// # Errors
    /// `<line>:<column> (<offset>): <why>`, or that it is longer than [`TEXT_BYTES_MAX`].
    pub fn parse(text: &str) -> Result<Self, Fault> {
        parse::parse(text).map(Self)
    }

    /// True when it holds of the object.
    ///
    /// # Errors
    /// A selector that leads nowhere, an operator that does not fit what it finds, a value that cannot be read as its kind.
    pub fn holds(&self, object: Datum<'_>) -> Result<bool, Fault> {
        eval::holds(&self.0, object)
    }

    /// True when some selector begins with `name`: what none names need not be made.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        self.0.names(name)
    }
}

#[derive(Debug)]
enum Node {
    /// `a or b or c`.
    Or(Vec<Self>),
    /// `a and b and c`.
    And(Vec<Self>),
    Not(Box<Self>),
    Match(Match),
    Each(Box<Each>),
}

/// One comparison.
#[derive(Debug)]
struct Match {
    selector: Selector,
    op: Op,
    /// `!=`, `not in`, `is not nil`.
    is_negated: bool,
}

/// What is asked of the value a selector finds. Values are text: what it is compared with decides how they are read.
#[derive(Debug)]
enum Op {
    Equal(String),
    /// `in`, and `contains` the other way round.
    In(String),
    /// The pattern, and what became of it: a bad one is an error only where it is reached.
    Matches(String, Result<Regex, String>),
    Empty,
    Nil,
}

/// `any list as name { .. }`.
#[derive(Debug)]
struct Each {
    wants_all: bool,
    selector: Selector,
    names: Names,
    inner: Node,
}

/// What stands between `as` and `{`.
#[derive(Debug)]
enum Names {
    /// The element of a list, the key of a map.
    One(String),
    /// Position or key, and the element; `_` = not named.
    Pair(Option<String>, Option<String>),
}

/// A path into the object.
#[derive(Debug)]
struct Selector {
    path: Vec<String>,
    is_pointer: bool,
}

impl fmt::Display for Selector {
    /// As upstream prints it, and takes it where a value is wanted: the first slash of a JSON pointer is lost.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path.join(if self.is_pointer { "/" } else { "." }))
    }
}

impl Node {
    fn names(&self, name: &str) -> bool {
        let begins = |selector: &Selector| selector.path.first().is_some_and(|first| first == name);
        match self {
            Self::Or(parts) | Self::And(parts) => parts.iter().any(|part| part.names(name)),
            Self::Not(inner) => inner.names(name),
            Self::Match(one) => begins(&one.selector),
            Self::Each(each) => begins(&each.selector) || each.inner.names(name),
        }
    }
}

#[cfg(test)]
mod tests;
