//! Conditions and preferences about nodes: are they well-formed? Whether a node meets them is the scheduler's question.
//!
//! Shape: `check_*(&value, &mut Faults)`, pure. Texts: `spec/jobs.md` 4; upstream v1.3.1 nomad/structs/structs.go `Constraint.Validate`,
//! `Affinity.Validate`, `Spread.Validate`; the forms of versions: hashicorp/go-version 1.4, helper/constraints/semver (behaviour only).

use std::collections::BTreeSet;

use regex_lite::Regex;

use super::Faults;
use crate::model::job::{Affinity, Constraint, Spread};
use crate::wire::go_text::quote;

/// One entry per faulty constraint, numbered from 1.
pub(super) fn check_constraints(constraints: &[Constraint], faults: &mut Faults) {
    for (i, constraint) in constraints.iter().enumerate() {
        faults.nest(&format!("Constraint {} validation failed: ", i + 1), check_constraint(constraint));
    }
}

/// As [`check_constraints`]; system jobs may have none.
pub(super) fn check_affinities(affinities: &[Affinity], is_system: bool, faults: &mut Faults) {
    if is_system && !affinities.is_empty() {
        faults.add("System jobs may not have an affinity stanza");
        return;
    }
    for (i, affinity) in affinities.iter().enumerate() {
        faults.nest(&format!("Affinity {} validation failed: ", i + 1), check_affinity(affinity));
    }
}

/// As [`check_constraints`]; system jobs may have none.
pub(super) fn check_spreads(spreads: &[Spread], is_system: bool, faults: &mut Faults) {
    if is_system && !spreads.is_empty() {
        faults.add("System jobs may not have a spread stanza");
        return;
    }
    for (i, spread) in spreads.iter().enumerate() {
        faults.nest(&format!("Spread {} validation failed: ", i + 1), check_spread(spread));
    }
}

fn check_constraint(constraint: &Constraint) -> Faults {
    let mut faults = Faults::default();
    let (operand, right) = (constraint.operand.as_str(), constraint.r_target.as_str());
    if operand.is_empty() {
        faults.add("Missing constraint operand");
    }
    match operand {
        "distinct_hosts" => {}
        "set_contains" | "set_contains_all" | "set_contains_any" if right.is_empty() => {
            faults.add("Set contains constraint requires an RTarget")
        }
        "set_contains" | "set_contains_all" | "set_contains_any" => {}
        "regexp" => check(check_regexp(right), "Regular expression failed to compile", &mut faults),
        "version" => check(check_version(right), "Version constraint is invalid", &mut faults),
        "semver" => check(check_semver(right), "Semver constraint is invalid", &mut faults),
        "distinct_property" if right.is_empty() => {}
        "distinct_property" => match right.parse::<u64>() {
            Ok(0) => faults.add("Distinct Property must have an allowed count of 1 or greater: 0 < 1"),
            Ok(_) => {}
            Err(why) => faults.add(format!("Failed to convert RTarget {} to uint64: {why}", quote(right))),
        },
        "is_set" | "is_not_set" if right.is_empty() => {}
        "is_set" | "is_not_set" => faults.add(format!("Operator {} does not support an RTarget", quote(operand))),
        "=" | "==" | "is" | "!=" | "not" | "<" | "<=" | ">" | ">=" if right.is_empty() => {
            faults.add(format!("Operator {} requires an RTarget", quote(operand)));
        }
        "=" | "==" | "is" | "!=" | "not" | "<" | "<=" | ">" | ">=" => {}
        _ => faults.add(format!("Unknown constraint type {}", quote(operand))),
    }
    if operand != "distinct_hosts" && constraint.l_target.is_empty() {
        faults.add("No LTarget provided but is required by constraint");
    }
    faults
}

fn check_affinity(affinity: &Affinity) -> Faults {
    let mut faults = Faults::default();
    let (operand, right) = (affinity.operand.as_str(), affinity.r_target.as_str());
    if operand.is_empty() {
        faults.add("Missing affinity operand");
    }
    match operand {
        "set_contains" | "set_contains_all" | "set_contains_any" if right.is_empty() => {
            faults.add("Set contains operators require an RTarget")
        }
        "set_contains" | "set_contains_all" | "set_contains_any" => {}
        "regexp" => check(check_regexp(right), "Regular expression failed to compile", &mut faults),
        "version" => check(check_version(right), "Version affinity is invalid", &mut faults),
        "semver" => check(check_semver(right), "Semver affinity is invalid", &mut faults),
        "=" | "==" | "is" | "!=" | "not" | "<" | "<=" | ">" | ">=" if right.is_empty() => {
            faults.add(format!("Operator {} requires an RTarget", quote(operand)));
        }
        "=" | "==" | "is" | "!=" | "not" | "<" | "<=" | ">" | ">=" => {}
        _ => faults.add(format!("Unknown affinity operator {}", quote(operand))),
    }
    if affinity.l_target.is_empty() {
        faults.add("No LTarget provided but is required");
    }
    let weight = affinity.weight.unwrap_or(50);
    if weight == 0 {
        faults.add("Affinity weight cannot be zero");
    }
    if !(-100..=100).contains(&weight) {
        faults.add("Affinity weight must be within the range [-100,100]");
    }
    faults
}

fn check_spread(spread: &Spread) -> Faults {
    let mut faults = Faults::default();
    if spread.attribute.is_empty() {
        faults.add("Missing spread attribute");
    }
    if !(1..=100).contains(&spread.weight.unwrap_or(50)) {
        faults.add("Spread stanza must have a positive weight from 0 to 100");
    }
    let mut seen = BTreeSet::new();
    for target in &spread.spread_target {
        if !seen.insert(&target.value) {
            faults.add(format!("Spread target value {} already defined", quote(&target.value)));
        }
        if target.percent > 100 {
            faults.add(format!("Spread target percentage for value {} must be between 0 and 100", quote(&target.value)));
        }
    }
    let sum: u64 = spread.spread_target.iter().map(|target| u64::from(target.percent)).sum();
    if sum > 100 {
        faults.add(format!("Sum of spread target percentages must not be greater than 100%; got {sum}%"));
    }
    faults
}

fn check(result: Result<(), String>, what: &str, faults: &mut Faults) {
    if let Err(why) = result {
        faults.add(format!("{what}: {why}"));
    }
}

fn check_regexp(text: &str) -> Result<(), String> {
    Regex::new(text).map(|_| ()).map_err(|why| why.to_string())
}

/// `1.2`-style versions with `= != > < >= <= ~>`, comma-separated.
fn check_version(text: &str) -> Result<(), String> {
    each_matches(
        text,
        r"^\s*(?:|=|!=|>|<|>=|<=|~>)\s*v?[0-9]+(\.[0-9]+)*(-[0-9]+[0-9A-Za-z\-~]*(\.[0-9A-Za-z\-~]+)*|-?[A-Za-z\-~]+[0-9A-Za-z\-~]*(\.[0-9A-Za-z\-~]+)*)?(\+[0-9A-Za-z\-~]+(\.[0-9A-Za-z\-~]+)*)?\s*$",
    )
}

/// As [`check_version`], but a pre-release needs its dash and there is no `~>`.
fn check_semver(text: &str) -> Result<(), String> {
    each_matches(
        text,
        r"^\s*(?:|=|!=|>|<|>=|<=)\s*v?[0-9]+(\.[0-9]+)*(-[0-9]+[0-9A-Za-z\-~]*(\.[0-9A-Za-z\-~]+)*|-[A-Za-z\-~]+[0-9A-Za-z\-~]*(\.[0-9A-Za-z\-~]+)*)?(\+[0-9A-Za-z\-~]+(\.[0-9A-Za-z\-~]+)*)?\s*$",
    )
}

fn each_matches(text: &str, form: &str) -> Result<(), String> {
    let form = Regex::new(form).map_err(|why| why.to_string())?;
    match text.split(',').find(|part| !form.is_match(part)) {
        Some(bad) => Err(format!("Malformed constraint: {bad}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn constraint(l_target: &str, operand: &str, r_target: &str, want: &[&str]) {
        let value = Constraint { l_target: l_target.into(), operand: operand.into(), r_target: r_target.into() };
        assert_eq!(check_constraint(&value).list(), want, "{l_target} {operand} {r_target}");
    }

    #[test]
    fn constraints() {
        constraint("${attr.cpu.arch}", "=", "arm64", &[]);
        constraint("", "distinct_hosts", "", &[]);
        constraint("x", "is_set", "", &[]);
        constraint("x", "distinct_property", "", &[]);
        constraint("x", "distinct_property", "2", &[]);
        constraint("x", "", "y", &["Missing constraint operand", "Unknown constraint type \"\""]);
        constraint("x", "~", "y", &["Unknown constraint type \"~\""]);
        constraint("", "=", "", &["Operator \"=\" requires an RTarget", "No LTarget provided but is required by constraint"]);
        constraint("x", "is_set", "y", &["Operator \"is_set\" does not support an RTarget"]);
        constraint("x", "set_contains_any", "", &["Set contains constraint requires an RTarget"]);
        constraint("x", "version", ">>1", &["Version constraint is invalid: Malformed constraint: >>1"]);
        constraint("x", "semver", "~> 1.0", &["Semver constraint is invalid: Malformed constraint: ~> 1.0"]);
        constraint("x", "distinct_property", "0", &["Distinct Property must have an allowed count of 1 or greater: 0 < 1"]);
        let bad = Constraint { l_target: "x".into(), operand: "regexp".into(), r_target: "(".into() };
        assert!(check_constraint(&bad).list()[0].starts_with("Regular expression failed to compile: "));
    }

    #[test]
    fn versions() {
        for (text, version, semver) in [
            ("1", true, true),
            (">= 1.2.3", true, true),
            (" >=v1.2 , < 2 ", true, true),
            ("~> 1.2.0", true, false),
            ("!= 1.0-beta.1+git", true, true),
            ("1.0beta", true, false),
            ("", false, false),
            (">= 1,", false, false),
            ("1.", false, false),
            ("x", false, false),
            ("=> 1", false, false),
        ] {
            assert_eq!((check_version(text).is_ok(), check_semver(text).is_ok()), (version, semver), "{text}");
        }
    }

    #[test]
    fn affinities_and_spreads() {
        let value = Affinity { l_target: "x".into(), operand: "=".into(), r_target: "y".into(), weight: Some(0) };
        assert_eq!(check_affinity(&value).list(), ["Affinity weight cannot be zero"]);
        assert_eq!(
            check_affinity(&Affinity { weight: Some(-101), ..value }).list(),
            ["Affinity weight must be within the range [-100,100]"]
        );
        let target = |value: &str, percent| crate::model::job::SpreadTarget { value: value.into(), percent };
        let spread =
            Spread { attribute: String::new(), weight: Some(-1), spread_target: vec![target("a", 60), target("a", 50), target("b", 101)] };
        assert_eq!(
            check_spread(&spread).list(),
            [
                "Missing spread attribute",
                "Spread stanza must have a positive weight from 0 to 100",
                "Spread target value \"a\" already defined",
                "Spread target percentage for value \"b\" must be between 0 and 100",
                "Sum of spread target percentages must not be greater than 100%; got 211%",
            ]
        );
        let mut faults = Faults::default();
        check_affinities(&[Affinity::default()], true, &mut faults);
        check_spreads(&[spread], true, &mut faults);
        assert_eq!(faults.list(), ["System jobs may not have an affinity stanza", "System jobs may not have a spread stanza"]);
    }
}
