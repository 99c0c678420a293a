//! Ports of this node: which are taken, which a new allocation gets. Pure; randomness comes from the core's generator.
//!
//! Dynamic ports come from the configured range, at random among the free ones, so that a task that has just died does not
//! hand its port to a stranger while its clients still connect. A static port is taken or the placement fails.

use std::collections::BTreeSet;

use dunlin_hal::entropy::Rng;
use dunlin_runtime::spec::Port;

use crate::model::job::Network;

/// Ports in use.
#[derive(Clone, Debug, Default)]
pub struct Taken(BTreeSet<u16>);

/// Why no port was given: the dimension shown by the API (`spec/jobs.md` 7).
pub type Exhausted = String;

impl Taken {
    /// Marks the ports of an allocation as used.
    pub fn add(&mut self, ports: &[Port]) {
        self.0.extend(ports.iter().map(|port| port.value));
    }

    /// The ports of an allocation are free again.
    pub fn remove(&mut self, ports: &[Port]) {
        for port in ports {
            self.0.remove(&port.value);
        }
    }

    /// Marks one port as used: reserved by configuration, or listened on by something else.
    pub fn add_one(&mut self, port: u16) {
        self.0.insert(port);
    }

    /// Gives the ports a network asks for and marks them. Nothing is marked when one of them cannot be given.
    ///
    /// # Errors
    /// The exhausted dimension.
    pub fn assign(&mut self, ask: &Network, ip: &str, dynamic: (u16, u16), rng: &mut Rng) -> Result<Vec<Port>, Exhausted> {
        let mut given: Vec<Port> = Vec::new();
        let port_of = |value: i64| u16::try_from(value).unwrap_or(0);
        let mapped = |to: i64, value: u16| if to < 0 { value } else { port_of(to) };
        let is_taken = |given: &[Port], value: u16| self.0.contains(&value) || given.iter().any(|port| port.value == value);
        for port in &ask.reserved_ports {
            let value = port_of(port.value);
            if is_taken(&given, value) {
                return Err(format!("network: reserved port collision {}={value}", port.label));
            }
            given.push(Port { label: port.label.clone(), value, to: mapped(port.to, value), host_ip: ip.to_owned() });
        }
        for port in &ask.dynamic_ports {
            let (low, high) = dynamic;
            let range_n = u64::from(high.saturating_sub(low)) + 1;
            let start = rng.below(range_n);
            let free = (0..range_n)
                .filter_map(|step| u16::try_from(u64::from(low) + (start + step) % range_n).ok())
                .find(|&value| !is_taken(&given, value));
            let Some(value) = free else {
                return Err("network: dynamic port selection failed".to_owned());
            };
            given.push(Port { label: port.label.clone(), value, to: mapped(port.to, value), host_ip: ip.to_owned() });
        }
        self.add(&given);
        Ok(given)
    }
}
