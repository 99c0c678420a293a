//! The agent of the simulated board: made once per thread, given to each life with the bounds of its world.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use dunlin::config::Config;
use dunlin::config::flags::Parsed;
use dunlin::config::merge::{Surroundings, draft};
use dunlin::core::Setting;
use dunlin::node::Node;
use dunlin::node::fingerprint::{Cgroups, Inputs, fingerprint};
use dunlin_hal::budget::Budget;
use dunlin_hal::sim::facts::board;
use dunlin_hal::sim::zones::SimZones;
use dunlin_hal::volume::Space;
use dunlin_runtime::id::NodeId;

/// The node.
pub const NODE: NodeId = NodeId([9; 16]);

thread_local! {
    static BASE: OnceCell<(Config, Node)> = const { OnceCell::new() };
}

/// The setting of an agent with these bounds.
pub fn setting(budget: Budget) -> Setting {
    let (config, node) = BASE.with(|base| base.get_or_init(make).clone());
    let zones = Box::new(SimZones::default());
    Setting { config, budget, node, zones, host_env: BTreeMap::new(), alloc_root: "/alloc".to_owned() }
}

/// Memory that allocations may use together.
pub fn memory_mb() -> u64 {
    BASE.with(|base| {
        let fingerprint = &base.get_or_init(make).1.fingerprint;
        fingerprint.resources.memory_mb.saturating_sub(fingerprint.reserved.memory_mb)
    })
}

fn make() -> (Config, Node) {
    let around = Surroundings { hostname: "field-7".to_owned(), is_root: true, ..Surroundings::default() };
    let mut config = draft(&[], &Parsed::default()).expect("no files").resolve(&around).expect("defaults");
    config.raw_exec = true;
    let facts = board();
    let storage = Space { size: 8 << 30, available: 6 << 30, ..Space::default() };
    let found = fingerprint(&Inputs {
        facts: &facts,
        storage: &storage,
        board: "",
        cgroups: Cgroups::default(),
        signals: &["SIGINT"],
        config: &config,
        http: None,
        version: "0",
    });
    let node = Node::new(NODE, found, &config, None);
    (config, node)
}
