//! What `deny.toml` allows, held against the tree that is built; and a line in `docs/dependencies.md` for each direct dependency.
//! `cargo deny` checks the same and, with a network, the advisories; this needs nothing but cargo.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use super::{none, root};

/// The targets the product is built for.
const TARGETS: &[&str] = &["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl", "armv7-unknown-linux-musleabihf"];

/// A crate of the tree.
struct Crate {
    name: String,
    version: String,
    license: String,
    source: String,
    /// Names of the crates it is built with.
    needs: BTreeSet<String>,
    /// Ours.
    is_member: bool,
}

/// Everything that is compiled for the product, by cargo's id.
fn tree() -> BTreeMap<String, Crate> {
    let mut tree: BTreeMap<String, Crate> = BTreeMap::new();
    for target in TARGETS.iter().copied() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let words = ["metadata", "--format-version", "1", "--locked", "--filter-platform", target];
        let out = Command::new(&cargo).args(words).current_dir(root()).output().expect("cargo");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let mut whole = BTreeMap::new();
        add(&mut whole, &serde_json::from_slice(&out.stdout).expect("JSON"));
        // `cargo metadata` also lists what weak features (`crate?/feature`) only mention.
        let words = ["tree", "--package", "dunlin", "--edges", "normal,build", "--prefix", "none", "--format", "{p}", "--target", target];
        let out = Command::new(&cargo).args(words).current_dir(root()).output().expect("cargo");
        let built = String::from_utf8_lossy(&out.stdout).into_owned();
        let is_built = |one: &Crate| built.lines().any(|line| line.starts_with(&format!("{} v{}", one.name, one.version)));
        for (id, one) in whole.into_iter().filter(|(_, one)| is_built(one)) {
            match tree.get_mut(&id) {
                Some(Crate { needs, .. }) => needs.extend(one.needs),
                None => drop(tree.insert(id, one)),
            }
        }
    }
    tree
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// Adds what the agent needs, dependencies of tests left out.
fn add(tree: &mut BTreeMap<String, Crate>, meta: &Value) {
    let nodes: BTreeMap<String, &Value> = list(&meta["resolve"], "nodes").iter().map(|node| (text(node, "id"), node)).collect();
    let packages: BTreeMap<String, &Value> = list(meta, "packages").iter().map(|package| (text(package, "id"), package)).collect();
    let members: BTreeSet<&str> = list(meta, "workspace_members").iter().filter_map(Value::as_str).collect();
    let is_built = |dep: &&Value| list(dep, "dep_kinds").iter().any(|kind| kind["kind"] != "dev");
    let mut waiting: Vec<String> = packages.iter().filter(|(_, package)| package["name"] == "dunlin").map(|(id, _)| id.clone()).collect();
    while let Some(id) = waiting.pop() {
        let (Some(package), Some(node)) = (packages.get(&id), nodes.get(&id)) else { continue };
        let needed: Vec<String> = list(node, "deps").iter().filter(is_built).map(|dep| text(dep, "pkg")).collect();
        let one = Crate {
            name: text(package, "name"),
            version: text(package, "version"),
            license: text(package, "license"),
            source: text(package, "source"),
            needs: needed.iter().filter_map(|id| Some(text(packages.get(id)?, "name"))).collect(),
            is_member: members.contains(id.as_str()),
        };
        tree.insert(id, one);
        waiting.extend(needed.into_iter().filter(|id| !tree.contains_key(id)));
    }
}

/// `deny.toml` without comments.
fn deny() -> String {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    text.lines().map(|line| line.split('#').next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The quoted words between `start` and the closing bracket of its list.
fn quoted<'d>(deny: &'d str, start: &str) -> Vec<&'d str> {
    let list = deny.split_once(start).and_then(|(_, rest)| rest.split_once("\n]")).map_or("", |(list, _)| list);
    list.split('"').skip(1).step_by(2).collect()
}

/// True when the licence expression can be met by licences of the list.
fn allowed(license: &str, list: &[&str]) -> bool {
    let license = license.trim();
    // The outermost words that join two halves.
    for (word, all) in [(" AND ", true), (" OR ", false), ("/", false)] {
        let mut depth = 0;
        for (at, c) in license.char_indices() {
            depth += i32::from(c == '(') - i32::from(c == ')');
            if depth == 0 && license[at..].starts_with(word) {
                let (left, right) = (allowed(&license[..at], list), allowed(&license[at + word.len()..], list));
                return if all { left && right } else { left || right };
            }
        }
    }
    match license.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => allowed(inner, list),
        None => list.contains(&license),
    }
}

#[test]
fn licence_expressions() {
    let list = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"];
    for (license, want) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0 AND MIT", false),
        ("(MIT OR GPL-3.0) AND ISC", true),
        ("(MIT OR GPL-3.0) AND Zlib", false),
        ("Apache-2.0 WITH LLVM-exception OR Apache-2.0", true),
        ("", false),
    ] {
        assert_eq!(allowed(license, &list), want, "{license}");
    }
}

#[test]
fn licences_sources_and_bans() {
    let (tree, deny) = (tree(), deny());
    let licenses = quoted(&deny, "\nallow = [");
    let bans: Vec<(&str, &str)> = deny.lines().filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split_once('"')).collect();
    assert!(licenses.contains(&"MIT") && bans.len() > 3, "deny.toml has changed its form");
    let mut faults = Vec::new();
    for one in tree.values() {
        let named = format!("{} {}", one.name, one.version);
        if !allowed(&one.license, &licenses) {
            faults.push(format!("{named}: licence {:?}", one.license));
        }
        if !one.is_member && one.source != "registry+https://github.com/rust-lang/crates.io-index" {
            faults.push(format!("{named}: from {:?}", one.source));
        }
        for (_, rule) in bans.iter().filter(|(name, _)| *name == one.name) {
            let wrappers: Vec<&str> = rule
                .split_once("wrappers = [")
                .map_or(Vec::new(), |(_, rest)| rest.split(']').next().unwrap_or_default().split('"').skip(1).step_by(2).collect());
            let users = tree.values().filter(|user| user.needs.contains(&one.name) && !wrappers.contains(&user.name.as_str()));
            faults.extend(users.map(|user| format!("{named}: banned, and {} needs it", user.name)));
        }
    }
    none(faults);
}

#[test]
fn no_crate_twice() {
    let (tree, deny) = (tree(), deny());
    let skipped = quoted(&deny, "\nskip = [");
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in tree.values().filter(|one| !skipped.iter().any(|skip| is_skipped(skip, one))) {
        versions.entry(&one.name).or_default().push(&one.version);
    }
    none(versions.into_iter().filter(|(_, all)| all.len() > 1).map(|(name, all)| format!("{name}: {}", all.join(", "))).collect());
}

/// `name@version`, where the version may be cut short.
fn is_skipped(skip: &str, one: &Crate) -> bool {
    let (name, version) = skip.split_once('@').unwrap_or((skip, ""));
    name == one.name && (one.version == version || one.version.starts_with(&format!("{version}.")))
}

#[test]
fn every_direct_dependency_says_why() {
    let docs = std::fs::read_to_string(root().join("docs/dependencies.md")).expect("docs/dependencies.md");
    let tree = tree();
    let ours: BTreeSet<&str> = tree.values().filter(|one| one.is_member).map(|one| one.name.as_str()).collect();
    let direct: BTreeSet<&String> = tree.values().filter(|one| one.is_member).flat_map(|one| &one.needs).collect();
    let missing = direct.iter().filter(|name| !ours.contains(name.as_str()) && !docs.contains(&format!("| `{name}`")));
    none(missing.map(|name| format!("{name} has no line in docs/dependencies.md")).collect());
}
