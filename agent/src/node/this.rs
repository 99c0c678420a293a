//! This node as the floors above see it: its fingerprint, its names, and what they need of both again and again.

use std::net::SocketAddr;

use dunlin_runtime::id::NodeId;
use dunlin_runtime::spec::{DriverKind, NodeVars};

use super::Fingerprint;
use crate::config::Config;

/// What every shown object says of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeNames {
    /// The node.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its datacenter.
    pub datacenter: String,
}

/// This node.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it offers.
    pub fingerprint: Fingerprint,
    /// What interpolation and constraints may read of it.
    pub vars: NodeVars,
    /// Drivers that work.
    pub drivers: Vec<DriverKind>,
    /// Where HTTP listens; `None` = on a Unix socket only.
    pub http: Option<SocketAddr>,
    /// It is reached by HTTPS.
    pub is_tls: bool,
}

impl Node {
    /// This node, from what was found and what was configured.
    #[must_use]
    pub fn new(id: NodeId, fingerprint: Fingerprint, config: &Config, http: Option<SocketAddr>) -> Self {
        let drivers = fingerprint.drivers.iter().filter(|driver| driver.is_healthy).filter_map(|driver| DriverKind::parse(driver.name));
        Self {
            drivers: drivers.collect(),
            vars: NodeVars {
                id,
                name: config.node_name.clone(),
                class: config.node_class.clone(),
                pool: config.node_pool.clone(),
                datacenter: config.datacenter.clone(),
                region: config.region.clone(),
                attributes: fingerprint.attributes.clone(),
                meta: config.meta.clone(),
                cgroup_parent: fingerprint.cgroup_parent.clone(),
            },
            fingerprint,
            http,
            is_tls: config.http.tls.is_some(),
        }
    }

    /// Its names.
    #[must_use]
    pub fn names(&self) -> NodeNames {
        NodeNames { id: self.vars.id, name: self.vars.name.clone(), datacenter: self.vars.datacenter.clone() }
    }

    /// The address a leader would have: a standalone node is its own (`spec/http-api.md` 9.2).
    #[must_use]
    pub fn rpc_address(&self) -> String {
        let ip = self.http.map_or_else(|| "127.0.0.1".to_owned(), |http| http.ip().to_string());
        format!("{ip}:4647")
    }

    /// Compute of one percent of one core, MHz: `TotalTicks` is percent times this (`spec/runtime.md` 5.5).
    #[must_use]
    pub fn mhz_per_percent(&self) -> f64 {
        let resources = &self.fingerprint.resources;
        let cores_n = u32::try_from(resources.cores.len().max(1)).unwrap_or(1);
        let total = u32::try_from(resources.cpu_mhz).unwrap_or(u32::MAX);
        f64::from(total) / f64::from(cores_n) / 100.0
    }
}
