//! Faults of service registrations and their checks.

use std::collections::{BTreeMap, BTreeSet};

use super::Faults;
use crate::model::job::{Service, ServiceCheck, Task, TaskGroup};
use crate::wire::go_text::{duration, quote};

const SECOND: i64 = 1_000_000_000;

/// Services of the group, and what those of its tasks must have in common with them.
pub(super) fn check_group(group: &TaskGroup) -> Faults {
    let mut faults = Faults::default();
    let of_tasks = || group.tasks.iter().flat_map(|task| &task.services);
    for check in of_tasks().flat_map(|service| &service.checks).filter(|check| !check.task_name.is_empty()) {
        faults.add(format!("Check {} is invalid: only task group service checks can be assigned tasks", check.name));
    }
    for (i, service) in group.services.iter().enumerate() {
        let own = check_service(service);
        if !own.is_empty() {
            faults.nest(&format!("Service[{i}] {} validation failed: ", service.name), own);
            continue;
        }
        if service.address_mode == "driver" {
            let name = quote(&service.name);
            faults.add(format!(
                "service {name} cannot use address_mode=\"driver\", only services defined in a \"task\" block can use this mode"
            ));
        }
        for check in service.checks.iter().filter(|check| !check.task_name.is_empty()) {
            if !matches!(check.check_type.as_str(), "script" | "grpc") {
                faults.add(format!("Check {} invalid: only script and gRPC checks should have tasks", check.name));
            }
            if check.address_mode == "driver" {
                faults.add(format!(
                    "Check {} invalid: cannot use address_mode=\"driver\", only checks defined in a \"task\" service block can use this mode",
                    quote(&service.name)
                ));
            }
            if group.task(&check.task_name).is_none() {
                faults.add(format!("Check {} invalid: refers to non-existent task {}", check.name, check.task_name));
            }
        }
    }
    let providers: BTreeSet<&str> = group.services.iter().chain(of_tasks()).map(|service| service.provider.as_str()).collect();
    if providers.len() > 1 {
        faults.add("Multiple service providers used: task group services must use the same provider");
    }
    faults
}

/// Script checks of the group's services run in a task.
pub(super) fn check_scripts(group: &TaskGroup) -> Faults {
    let mut faults = Faults::default();
    for service in group.services.iter().filter(|service| service.task_name.is_empty()) {
        for check in service.checks.iter().filter(|check| check.check_type == "script" && check.task_name.is_empty()) {
            faults.add(format!("Service [{}]->{} or Check {} must specify task parameter", group.name, service.name, check.name));
        }
    }
    faults
}

/// Services of one task.
pub(super) fn check_task(task: &Task, group: &TaskGroup) -> Faults {
    let mut faults = Faults::default();
    // Port label -> names of the services that refer to it.
    let mut ports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (i, service) in task.services.iter().enumerate() {
        let name = quote(&service.name);
        faults.nest(&format!("service[{i}] {name} validation failed: "), check_service(service));
        if service.address_mode == "alloc" {
            faults.add(format!(
                "service {name} cannot use address_mode=\"alloc\", only services defined in a \"group\" block can use this mode"
            ));
        }
        if !seen.insert(format!("{}{}", service.name, service.port_label)) {
            faults.add(format!("service {name} is duplicate"));
        }
        let is_number = service.port_label.parse::<i64>().is_ok();
        let is_own_number = service.address_mode == "driver" && is_number;
        if !service.port_label.is_empty() && !is_own_number {
            ports.entry(&service.port_label).or_default().insert(&service.name);
        }
        check_task_checks(service, &mut ports, &mut faults);
    }
    let networks = group.networks.first().into_iter().chain(task.resources.iter().flat_map(|resources| &resources.networks));
    let known: BTreeSet<&str> =
        networks.flat_map(|network| network.reserved_ports.iter().chain(&network.dynamic_ports)).map(|port| port.label.as_str()).collect();
    for (label, services) in ports.iter().filter(|(label, _)| !known.contains(**label)) {
        let names: Vec<&str> = services.iter().copied().collect();
        faults.add(format!("port label {} referenced by services {} does not exist", quote(label), names.join(", ")));
    }
    faults
}

fn check_task_checks<'a>(service: &'a Service, ports: &mut BTreeMap<&'a str, BTreeSet<&'a str>>, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for check in &service.checks {
        let name = quote(&check.name);
        if !seen.insert(&check.name) {
            faults.add(format!("check {name} is duplicate"));
        }
        if check.address_mode == "alloc" {
            let service = quote(&service.name);
            faults.add(format!(
                "check {service} cannot use address_mode=\"alloc\", only checks defined in a \"group\" service block can use this mode"
            ));
        }
        if !needs_port(check) {
            continue;
        }
        let port = if check.port_label.is_empty() { &service.port_label } else { &check.port_label };
        match (port.parse::<i64>(), check.address_mode.as_str()) {
            _ if port.is_empty() => faults.add(format!("check {name} is missing a port")),
            (Ok(number), "driver") if number <= 0 => faults.add(format!("check {name} has invalid numeric port {number}")),
            (Ok(_), "driver") => {}
            (Ok(number), _) => {
                faults.add(format!("check {name} cannot use a numeric port {number} without setting address_mode=\"driver\""))
            }
            (Err(_), _) => _ = ports.entry(port).or_default().insert(&service.name),
        }
    }
}

fn needs_port(check: &ServiceCheck) -> bool {
    matches!(check.check_type.as_str(), "grpc" | "http" | "tcp")
}

fn check_service(service: &Service) -> Faults {
    let mut faults = Faults::default();
    if !is_service_name(&without_references(&service.name)) {
        faults.add(format!(
            "Service name must be valid per RFC 1123 and can contain only alphanumeric characters or dashes and must be no longer than 63 characters: {}",
            quote(&service.name)
        ));
    }
    match service.address_mode.as_str() {
        "" | "auto" => {}
        "host" | "driver" | "alloc" if service.address.is_empty() => {}
        "host" | "driver" | "alloc" => faults.add("Service address_mode must be \"auto\" if address is set"),
        mode => faults.add(format!("Service address_mode must be \"auto\", \"host\", or \"driver\"; not {}", quote(mode))),
    }
    if !is_on_update(&service.on_update) {
        faults.add(format!(
            "Service on_update must be \"require_healthy\", \"ignore_warnings\", or \"ignore\"; not {}",
            quote(&service.on_update)
        ));
    }
    let is_nomad = service.provider == "nomad";
    if !matches!(service.provider.as_str(), "consul" | "nomad") {
        faults.add(format!("Service provider must be \"consul\", or \"nomad\"; not {}", quote(&service.provider)));
    }
    for check in &service.checks {
        let name = &check.name;
        if service.port_label.is_empty() && check.port_label.is_empty() && needs_port(check) {
            let service = quote(&service.name);
            faults.add(format!("Check {name} invalid: check requires a port but neither check nor service {service} have a port"));
        } else if let Err(why) = check_check(check, is_nomad) {
            faults.add(format!("Check {name} invalid: {why}"));
        }
    }
    if !service.connect.is_none() {
        faults.add("Connect is not supported by this agent");
    }
    faults
}

/// Letters, digits and dashes, no dash at either end, 1 to 63.
fn is_service_name(name: &str) -> bool {
    let is_edge = |c: &u8| c.is_ascii_alphanumeric();
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(is_edge)
        && bytes.last().is_some_and(is_edge)
        && bytes.iter().all(|c| is_edge(c) || *c == b'-')
}

/// References stand for a valid part of a name.
fn without_references(name: &str) -> String {
    let mut out = String::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((_, after)) = after.split_once('}') else { break };
        out.push_str(before);
        out.push_str("ENV-VAR");
        rest = after;
    }
    out.push_str(rest);
    out
}

fn is_on_update(word: &str) -> bool {
    matches!(word, "" | "ignore" | "require_healthy" | "ignore_warnings")
}

/// The first fault of a check.
fn check_check(check: &ServiceCheck, is_nomad: bool) -> Result<(), String> {
    let kind = check.check_type.to_ascii_lowercase();
    match kind.as_str() {
        "http" | "tcp" => {}
        "grpc" | "script" if !is_nomad => {}
        _ if is_nomad => return Err(format!("invalid check type ({}), must be one of tcp, http", quote(&check.check_type))),
        _ => return Err(format!("invalid type ({}), must be one of \"http\", \"tcp\", or \"script\" type", quote(&check.check_type))),
    }
    if kind == "http" && check.path.is_empty() {
        return Err("http type must have a valid http path".to_owned());
    }
    if kind == "http" && check.path.contains("://") && !check.path.starts_with('/') {
        return Err("http type must have a relative http path".to_owned());
    }
    if kind == "script" && check.command.is_empty() {
        return Err("script type must have a valid script path".to_owned());
    }
    match check.interval_ns {
        0 => return Err("missing required value interval. Interval cannot be less than 1s".to_owned()),
        ns if ns < SECOND => return Err(format!("interval ({}) cannot be lower than 1s", duration(ns))),
        _ => {}
    }
    match check.timeout_ns {
        0 => return Err("missing required value timeout. Timeout cannot be less than 1s".to_owned()),
        ns if ns < SECOND => return Err(format!("timeout ({}) is lower than required minimum timeout 1s", duration(ns))),
        _ => {}
    }
    if !matches!(check.initial_status.as_str(), "" | "passing" | "warning" | "critical") {
        let status = &check.initial_status;
        return Err(format!("invalid initial check state ({status}), must be one of \"passing\", \"warning\", \"critical\" or empty"));
    }
    match check.address_mode.as_str() {
        "" | "host" | "alloc" => {}
        "driver" if is_nomad => return Err("address_mode = driver may only be set for Consul service checks".to_owned()),
        "driver" => {}
        "auto" => return Err("invalid address_mode \"auto\" - auto only valid for services".to_owned()),
        mode => return Err(format!("invalid address_mode {}", quote(mode))),
    }
    if !is_on_update(&check.on_update) {
        return Err(format!("on_update must be \"require_healthy\", \"ignore_warnings\", or \"ignore\"; got {}", quote(&check.on_update)));
    }
    if check.expose && !matches!(kind.as_str(), "http" | "grpc") {
        return Err("expose may only be set on HTTP or gRPC checks".to_owned());
    }
    let counts = [("success_before_passing", check.success_before_passing), ("failures_before_critical", check.failures_before_critical)];
    if let Some((field, _)) = counts.iter().find(|(_, count)| *count > 0 && !needs_port(check)) {
        return Err(format!("{field} not supported for check of type {}", quote(&check.check_type)));
    }
    if let Some(restart) = &check.check_restart {
        if check.on_update == "ignore" {
            return Err("on_update value \"ignore\" is not compatible with check_restart".to_owned());
        }
        if !restart.ignore_warnings && check.on_update == "ignore_warnings" {
            return Err("on_update value \"ignore_warnings\" not supported with check_restart ignore_warnings value \"false\"".to_owned());
        }
        if restart.limit < 0 {
            return Err(format!("limit must be greater than or equal to 0 but found {}", restart.limit));
        }
        if restart.grace_ns.is_some_and(|grace_ns| grace_ns < 0) {
            return Err(format!(
                "grace period must be greater than or equal to 0 but found {}",
                duration(restart.grace_ns.unwrap_or_default())
            ));
        }
    }
    if is_nomad { check_nomad(check) } else { Ok(()) }
}

/// What only Consul's checks can do.
fn check_nomad(check: &ServiceCheck) -> Result<(), String> {
    let only_consul = [
        ("expose", check.expose),
        ("on_update = ignore_warnings", check.on_update == "ignore_warnings"),
        ("ignore_warnings of check_restart", check.check_restart.as_ref().is_some_and(|restart| restart.ignore_warnings)),
        ("success_before_passing", check.success_before_passing != 0),
        ("failures_before_critical", check.failures_before_critical != 0),
    ];
    match only_consul.iter().find(|(_, is_asked)| *is_asked) {
        Some((what, _)) => Err(format!("{what} may only be set for Consul service checks")),
        None => Ok(()),
    }
}
