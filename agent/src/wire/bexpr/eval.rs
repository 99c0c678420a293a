//! Does an expression hold of an object?
//!
//! Left to right; what stands behind a decided `and` or `or` is not looked at, errors in it included. The entries of a map come in
//! the order of the JSON (upstream: in none).

use super::datum::{Datum, Form, Found, Work};
use super::{Each, Fault, Match, Names, Node, Op, Selector};
use crate::wire::go_text;

/// What a comparison is worth in bytes looked at, beside those of the text it compares.
const MATCH_WORK: usize = 16;

/// A name given by `any` or `all`, and those around it.
struct Scope<'s> {
    name: &'s str,
    value: Datum<'s>,
    outer: Option<&'s Scope<'s>>,
}

pub(super) fn holds(node: &Node, object: Datum<'_>) -> Result<bool, Fault> {
    Run { object, work: Work::of(object) }.node(node, None)
}

struct Run<'o> {
    object: Datum<'o>,
    work: Work,
}

impl<'o> Run<'o> {
    fn node(&mut self, node: &Node, scope: Option<&Scope<'_>>) -> Result<bool, Fault> {
        match node {
            Node::Or(parts) => self.until(parts, true, scope),
            Node::And(parts) => self.until(parts, false, scope),
            Node::Not(inner) => self.node(inner, scope).map(|holds| !holds),
            Node::Match(one) => self.one(one, scope),
            Node::Each(each) => self.each(each, scope),
        }
    }

    /// Up to the first part that decides.
    fn until(&mut self, parts: &[Node], decides: bool, scope: Option<&Scope<'_>>) -> Result<bool, Fault> {
        for part in parts {
            if self.node(part, scope)? == decides {
                return Ok(decides);
            }
        }
        Ok(!decides)
    }

    /// Where a selector leads, from the nearest name it begins with, else from the object.
    fn find<'s>(&mut self, selector: &Selector, scope: Option<&Scope<'s>>) -> Result<Found<'s>, Fault>
    where
        'o: 's,
    {
        let mut path = selector.path.as_slice();
        let mut here: Datum<'s> = self.object;
        let mut scope = scope;
        while let Some(near) = scope {
            if path.first().is_some_and(|first| first == near.name) {
                here = near.value;
                path = path.get(1..).unwrap_or_default();
                break;
            }
            scope = near.outer;
        }
        for (i, part) in path.iter().enumerate() {
            let is_last = i + 1 == path.len();
            match here.child(part, is_last, &mut self.work) {
                Ok(Found::Value(next)) => here = next,
                Ok(Found::NoKey) => return Ok(Found::NoKey),
                Err(why) => {
                    let at = i + selector.path.len() - path.len();
                    let colon = if why.starts_with(',') { ":" } else { "" };
                    return Err(Fault(format!("error finding value in datum: /{}{colon} at part {at}{why}", selector.path.join("/"))));
                }
            }
        }
        Ok(Found::Value(here))
    }

    fn one(&mut self, one: &Match, scope: Option<&Scope<'_>>) -> Result<bool, Fault> {
        let holds = match self.find(&one.selector, scope)? {
            // Nothing is equal to what is not there, and it is as empty as can be.
            Found::NoKey => matches!(one.op, Op::Empty | Op::Nil),
            Found::Value(datum) => self.is(one, datum)?,
        };
        Ok(holds != one.is_negated)
    }

    fn is(&mut self, one: &Match, datum: Datum<'_>) -> Result<bool, Fault> {
        let form = datum.form()?;
        self.work.spend(MATCH_WORK + if let Form::Text(text) = &form { text.len() } else { 0 })?;
        let unfit = |what: &str| {
            Err(Fault(format!("cannot perform {what} operations on type {} for selector: \"{}\"", datum.kind_name(), one.selector)))
        };
        match (&one.op, form) {
            (Op::Equal(value), form) => equal(value, &form).unwrap_or_else(|| Err(unfit_to_compare("matching"))),
            (Op::In(value), Form::Text(text)) => Ok(text.contains(value.as_str())),
            (Op::In(value), Form::Map(mut parts, _)) => parts.has(value, &mut self.work),
            (Op::In(value), Form::List(mut parts, _)) => {
                let kind = datum.element();
                // What cannot be compared is told of an empty list too; elements of any kind are asked one by one.
                if !kind.is_any() {
                    equal(value, &kind.form()?).unwrap_or_else(|| Err(unfit_to_compare("\"in\" comparison")))?;
                }
                while let Some((_, element)) = parts.next(&mut self.work)? {
                    match equal(value, &element.form()?) {
                        Some(Ok(false)) => {}
                        Some(Err(why)) if kind.is_any() && why.0.ends_with(go_text::SYNTAX) => {}
                        Some(result) => return result,
                        None => return Err(unfit_to_compare("\"in\" comparison")),
                    }
                }
                Ok(false)
            }
            // A value that cannot be read is told before the operator that does not fit.
            (Op::In(value), form) => {
                equal(value, &form).unwrap_or(Ok(false))?;
                unfit("in/contains")
            }
            (Op::Matches(pattern, regex), Form::Text(text)) => {
                self.work.spend(text.len().saturating_mul(pattern.len()) / 16)?;
                match regex {
                    Ok(regex) => Ok(regex.is_match(&text)),
                    Err(why) => Err(Fault(format!("failed to compile regular expression {}: {why}", go_text::quote(pattern)))),
                }
            }
            (Op::Matches(..), _) => Err(Fault(format!("value of type {} is not convertible to []byte", datum.type_name()))),
            (Op::Empty, Form::Text(text)) => Ok(text.is_empty()),
            (Op::Empty, Form::List(mut parts, _) | Form::Map(mut parts, _)) => Ok(parts.next(&mut self.work)?.is_none()),
            (Op::Empty | Op::Nil, Form::Bytes(is_nil)) => Ok(is_nil),
            (Op::Empty, _) => unfit("is-empty"),
            (Op::Nil, Form::List(_, is_nil) | Form::Map(_, is_nil)) => Ok(is_nil),
            (Op::Nil, Form::Nil) => Ok(true),
            (Op::Nil, Form::Struct) => Ok(false),
            (Op::Nil, _) => unfit("is-nil"),
        }
    }

    fn each(&mut self, each: &Each, scope: Option<&Scope<'_>>) -> Result<bool, Fault> {
        let datum = match self.find(&each.selector, scope)? {
            Found::Value(datum) => datum,
            Found::NoKey => return Ok(each.wants_all),
        };
        let (mut parts, is_list) = match datum.form()? {
            Form::List(parts, _) => (parts, true),
            Form::Map(parts, _) => (parts, false),
            _ => return Err(Fault(format!("{} is not a list or a map", each.selector))),
        };
        let mut i = 0u64;
        while let Some((key, element)) = parts.next(&mut self.work)? {
            let position = i.to_string();
            i += 1;
            let key = if is_list { Datum::position(&position) } else { key };
            let (first, second) = match &each.names {
                Names::One(name) if is_list => (None, Some(name)),
                Names::One(name) => (Some(name), None),
                Names::Pair(Some(first), Some(second)) if first == second => {
                    let why = format!("{} cannot be used as a placeholder for both the index and the value", go_text::quote(first));
                    return Err(Fault(why));
                }
                Names::Pair(first, second) => (first.as_ref(), second.as_ref()),
            };
            let outer = first.map(|name| Scope { name, value: key, outer: scope });
            let outer = outer.as_ref().or(scope);
            let inner = second.map(|name| Scope { name, value: element, outer });
            if self.node(&each.inner, inner.as_ref().or(outer))? != each.wants_all {
                return Ok(!each.wants_all);
            }
        }
        Ok(each.wants_all)
    }
}

#[cold]
fn unfit_to_compare(what: &str) -> Fault {
    Fault(format!("unable to find suitable primitive comparison function for {what}"))
}

/// Reads the value as what it is compared with; `None` when that is nothing values are compared with.
fn equal(value: &str, form: &Form<'_>) -> Option<Result<bool, Fault>> {
    let read = match form {
        Form::Text(text) => Ok(text == value),
        Form::Bool(is) => go_text::parse_bool(value).map(|value| value == *is),
        Form::Int(number) => go_text::parse_int(value).map(|value| value == *number),
        Form::Uint(number) => go_text::parse_uint(value).map(|value| value == *number),
        #[expect(clippy::float_cmp, reason = "the language compares floats to the bit")]
        Form::Float(number) => go_text::parse_float(value).map(|value| value == *number),
        _ => return None,
    };
    Some(read.map_err(|why| Fault(format!("error getting match value in expression: {why}"))))
}
