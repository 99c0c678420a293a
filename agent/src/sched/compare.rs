//! One condition on the node: does a value stand in the asked relation to another? Pure.
//!
//! Shape: (operand, left, right) -> bool; `None` = the node has no such value, and then only negations hold.
//! Orders: integers or floats when both sides are numbers, else text. `version` orders as hashicorp/go-version, `semver` strictly.
//! Source: `spec/jobs.md` 7; upstream v1.10.5 scheduler/feasible.go `checkConstraint` (behaviour only).

use core::cmp::Ordering;

use regex_lite::Regex;

/// True when the condition holds.
#[must_use]
pub fn is_met(operand: &str, left: Option<&str>, right: Option<&str>) -> bool {
    match (operand, left, right) {
        ("is_set", left, _) => left.is_some(),
        ("is_not_set", left, _) => left.is_none(),
        ("!=" | "not", left, right) => left != right,
        (_, None, _) | (_, _, None) => false,
        ("=" | "==" | "is", Some(left), Some(right)) => left == right,
        ("<", Some(left), Some(right)) => order(left, right).is_lt(),
        ("<=", Some(left), Some(right)) => order(left, right).is_le(),
        (">", Some(left), Some(right)) => order(left, right).is_gt(),
        (">=", Some(left), Some(right)) => order(left, right).is_ge(),
        ("regexp", Some(left), Some(right)) => Regex::new(right).is_ok_and(|regex| regex.is_match(left)),
        ("version", Some(left), Some(right)) => all_versions_met(left, right, false),
        ("semver", Some(left), Some(right)) => all_versions_met(left, right, true),
        ("set_contains" | "set_contains_all", Some(left), Some(right)) => items(right).all(|want| items(left).any(|has| has == want)),
        ("set_contains_any", Some(left), Some(right)) => items(right).any(|want| items(left).any(|has| has == want)),
        _ => false,
    }
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

fn order(left: &str, right: &str) -> Ordering {
    if let (Ok(left), Ok(right)) = (left.parse::<i64>(), right.parse::<i64>()) {
        return left.cmp(&right);
    }
    if let (Ok(left), Ok(right)) = (left.parse::<f64>(), right.parse::<f64>())
        && let Some(order) = left.partial_cmp(&right)
    {
        return order;
    }
    left.cmp(right)
}

/// A version: numbers, and what follows a dash. Build metadata says nothing about order.
#[derive(Debug, PartialEq, Eq)]
struct Version<'t> {
    numbers: Vec<u64>,
    pre: &'t str,
    /// Numbers as written, before they were filled up to three.
    given_n: usize,
}

impl<'t> Version<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let text = text.split('+').next().unwrap_or(text);
        let (numbers, pre) = text.split_once('-').unwrap_or((text, ""));
        let mut numbers: Vec<u64> = numbers.split('.').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        let given_n = numbers.len();
        numbers.resize(given_n.max(3), 0);
        Some(Self { numbers, pre, given_n })
    }

    fn cmp(&self, other: &Self) -> Ordering {
        let longest = self.numbers.len().max(other.numbers.len());
        let number = |version: &Self, at: usize| version.numbers.get(at).copied().unwrap_or(0);
        for at in 0..longest {
            match number(self, at).cmp(&number(other, at)) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
        }
        match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            // A release comes after all that led to it.
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => cmp_pre(self.pre, other.pre),
        }
    }
}

fn cmp_pre(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.split('.'), right.split('.'));
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => a.cmp(b),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn all_versions_met(left: &str, conditions: &str, is_semver: bool) -> bool {
    let Some(version) = Version::parse(left) else { return false };
    conditions.split(',').all(|condition| {
        let condition = condition.trim();
        let at = condition.find(|c: char| !"=!<>~".contains(c)).unwrap_or(condition.len());
        let (operator, want) = condition.split_at(at);
        Version::parse(want.trim()).is_some_and(|want| is_version_met(&version, operator, &want, is_semver))
    })
}

fn is_version_met(version: &Version<'_>, operator: &str, want: &Version<'_>, is_semver: bool) -> bool {
    let order = version.cmp(want);
    // Outside semver a pre-release only meets conditions that name a pre-release of the same numbers.
    let is_comparable = is_semver || version.pre.is_empty() || (!want.pre.is_empty() && version.numbers == want.numbers);
    match operator {
        "" | "=" => order.is_eq(),
        "!=" => order.is_ne(),
        ">" => is_comparable && order.is_gt(),
        ">=" => is_comparable && order.is_ge(),
        "<" => is_comparable && order.is_lt(),
        "<=" => is_comparable && order.is_le(),
        "~>" => {
            let fixed_n = want.given_n.saturating_sub(1).max(1);
            is_comparable && order.is_ge() && version.numbers.iter().zip(&want.numbers).take(fixed_n).all(|(has, want)| has == want)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations() {
        for (operand, left, right, want) in [
            ("=", Some("linux"), Some("linux"), true),
            ("=", None, Some("linux"), false),
            ("!=", None, Some("linux"), true),
            ("is_set", Some(""), Some(""), true),
            ("is_not_set", None, Some(""), true),
            ("<", Some("9"), Some("10"), true),
            ("<", Some("1.5"), Some("1.25"), false),
            ("<", Some("a9"), Some("a10"), false),
            ("regexp", Some("armv7l"), Some("^arm"), true),
            ("regexp", Some("x"), Some("("), false),
            ("set_contains", Some("a, b,c"), Some("c,a"), true),
            ("set_contains", Some("a,b"), Some("a,c"), false),
            ("set_contains_any", Some("a,b"), Some("x, b"), true),
            ("nonsense", Some("a"), Some("a"), false),
        ] {
            assert_eq!(is_met(operand, left, right), want, "{operand} {left:?} {right:?}");
        }
    }

    #[test]
    fn versions() {
        for (operand, left, right, want) in [
            ("version", "1.10.5", ">= 1.4.0", true),
            ("version", "1.10.5", ">= 1.4, < 1.10", false),
            ("version", "6.1", "= 6.1.0", true),
            ("version", "1.2.9", "~> 1.2.3", true),
            ("version", "1.3.0", "~> 1.2.3", false),
            ("version", "1.3.0", "~> 1.2", true),
            ("version", "2.0.0-beta1", ">= 1.0", false),
            ("version", "2.0.0-beta2", ">= 2.0.0-beta1", true),
            ("semver", "2.0.0-beta1", ">= 1.0.0", true),
            ("semver", "1.0.0-rc.2", "> 1.0.0-rc.1", true),
            ("semver", "1.0.0", "> 1.0.0-rc.1", true),
            ("version", "not a version", ">= 1", false),
            ("version", "1.0", "~ 1", false),
        ] {
            assert_eq!(is_met(operand, Some(left), Some(right)), want, "{operand} {left} {right}");
        }
    }
}
