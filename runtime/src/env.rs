//! The environment of a task, and `${...}` interpolation over it. Pure: maps in, maps out; reads no environment itself.
//!
//! Layers, later wins: NOMAD_* -> meta -> host variables (only absent ones) -> the task's `env` -> files of templates.
//! Shape: (allocation, task, folders, node, host variables) -> [`Env`].   Units: bytes.
//! Invariant: one pass, no nesting; an unknown reference stays as it is. Substituted values take at most [`ROOM_BYTES`] together:
//! a reference that would go beyond stays as it is (a process could not be given more).   Errors: none.
//! Source: `spec/runtime.md` 3.3; upstream v2.0.5 client/taskenv/env.go, helper/args/args.go (behaviour only).

use std::collections::BTreeMap;

use crate::spec::{AllocSpec, NodeVars, Port, TaskSpec};

/// Names and values.
pub type Vars = BTreeMap<String, String>;

/// Bytes that the values put in place of references may take, in one environment or one list of texts.
pub const ROOM_BYTES: usize = 1 << 20;

/// Variables of the agent that tasks never inherit.
pub const HOST_DENYLIST: [&str; 17] = [
    "CONSUL_TOKEN",
    "CONSUL_HTTP_TOKEN",
    "CONSUL_HTTP_TOKEN_FILE",
    "NOMAD_TOKEN",
    "VAULT_TOKEN",
    "CONSUL_LICENSE",
    "CONSUL_LICENSE_PATH",
    "NOMAD_LICENSE",
    "NOMAD_LICENSE_PATH",
    "VAULT_LICENSE",
    "VAULT_LICENSE_PATH",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_METADATA_URL",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_OAUTH_ACCESS_TOKEN",
];

/// Names that begin so are made fit for a shell.
const SANITISED: [&str; 5] = ["NOMAD_ADDR_", "NOMAD_IP_", "NOMAD_PORT_", "NOMAD_HOST_PORT_", "NOMAD_META_"];

/// The three folders a task is told of, as one side sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirView {
    /// Shared by the tasks of the allocation.
    pub alloc: String,
    /// The task's own `local`.
    pub local: String,
    /// The task's own `secrets`.
    pub secrets: String,
}

/// The folders as the task and as the agent see them. The same for a driver without a root of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirs {
    /// In the task.
    pub task: DirView,
    /// On the host.
    pub host: DirView,
}

/// A task's environment, and what else interpolation may read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env {
    vars: Vars,
    /// With the folders of the host; `None` = the same as `vars`.
    host_vars: Option<Vars>,
    node: Vars,
}

/// Builds the environment of one task. `host`: the agent's own variables.
#[must_use]
pub fn build(alloc: &AllocSpec, task: &TaskSpec, dirs: &Dirs, node: &NodeVars, host: &Vars) -> Env {
    let node_vars = node_vars(node);
    let layers = |view| layers(alloc, task, view, node, host, &node_vars);
    let vars = layers(&dirs.task);
    let host_vars = (dirs.task != dirs.host).then(|| layers(&dirs.host));
    Env { vars, host_vars, node: node_vars }
}

impl Env {
    /// The variables of the process.
    #[must_use]
    pub fn vars(&self) -> &Vars {
        &self.vars
    }

    /// A variable, else a value of the node: what the template function `env` gives.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).or_else(|| self.node.get(name)).map(String::as_str)
    }

    /// Replaces the references in a text that the task will read.
    #[must_use]
    pub fn interpolate(&self, text: &str) -> String {
        replace(text, &self.vars, &self.node, &mut { ROOM_BYTES })
    }

    /// As [`Env::interpolate`], for texts that share one room: the arguments of a command.
    #[must_use]
    pub fn interpolate_all(&self, texts: &[String]) -> Vec<String> {
        let mut room = ROOM_BYTES;
        texts.iter().map(|text| replace(text, &self.vars, &self.node, &mut room)).collect()
    }

    /// Replaces the references in a text that the agent will read: paths of templates and artifacts.
    #[must_use]
    pub fn interpolate_host(&self, text: &str) -> String {
        replace(text, self.host_vars.as_ref().unwrap_or(&self.vars), &self.node, &mut { ROOM_BYTES })
    }

    /// Puts the variables of a rendered file on top.
    pub fn extend(&mut self, vars: Vars) {
        for (name, value) in vars {
            let name = clean_name(name);
            if let Some(host_vars) = &mut self.host_vars {
                host_vars.insert(name.clone(), value.clone());
            }
            self.vars.insert(name, value);
        }
    }
}

fn layers(alloc: &AllocSpec, task: &TaskSpec, dirs: &DirView, node: &NodeVars, host: &Vars, node_vars: &Vars) -> Vars {
    let mut vars = Vars::new();
    let mut room = ROOM_BYTES;
    built_in(&mut vars, alloc, task, dirs, node);
    for (name, value) in meta(alloc, task) {
        let name = replace(&name, &vars, node_vars, &mut room);
        let value = replace(value, &vars, node_vars, &mut room);
        vars.insert(name, value);
    }
    for (name, value) in host {
        if !vars.contains_key(name) && !HOST_DENYLIST.contains(&name.as_str()) {
            let value = replace(value, &vars, node_vars, &mut room);
            vars.insert(name.clone(), value);
        }
    }
    for (name, value) in &task.env {
        let value = replace(value, &vars, node_vars, &mut room);
        vars.insert(name.clone(), value);
    }
    vars.into_iter().map(|(name, value)| (clean_name(name), value)).collect()
}

fn built_in(vars: &mut Vars, alloc: &AllocSpec, task: &TaskSpec, dirs: &DirView, node: &NodeVars) {
    let mut set = |name: &str, value: &str| {
        if !value.is_empty() {
            vars.insert(name.to_owned(), value.to_owned());
        }
    };
    set("NOMAD_ALLOC_DIR", &dirs.alloc);
    set("NOMAD_TASK_DIR", &dirs.local);
    set("NOMAD_SECRETS_DIR", &dirs.secrets);
    let number = |n: i64| if n == 0 { String::new() } else { n.to_string() };
    set("NOMAD_MEMORY_LIMIT", &number(task.resources.memory_mb.into()));
    set("NOMAD_MEMORY_MAX_LIMIT", &number(task.resources.memory_max_mb.into()));
    set("NOMAD_CPU_LIMIT", &number(task.resources.cpu_mhz.into()));
    let id = alloc.id.to_string();
    set("NOMAD_SHORT_ALLOC_ID", id.get(..8).unwrap_or(""));
    set("NOMAD_ALLOC_ID", &id);
    set("NOMAD_ALLOC_NAME", &alloc.name);
    set("NOMAD_ALLOC_INDEX", &alloc.index.to_string());
    set("NOMAD_TASK_NAME", &task.name);
    set("NOMAD_GROUP_NAME", &alloc.group);
    set("NOMAD_JOB_ID", &alloc.job_id);
    set("NOMAD_JOB_NAME", &alloc.job_name);
    set("NOMAD_JOB_PARENT_ID", &alloc.job_parent_id);
    set("NOMAD_DC", &node.datacenter);
    set("NOMAD_NAMESPACE", &alloc.namespace);
    set("NOMAD_REGION", &alloc.region);
    set("NOMAD_PARENT_CGROUP", &node.cgroup_parent);
    for Port { label, value, to, host_ip } in &alloc.ports {
        let inside = if *to > 0 { *to } else { *value }.to_string();
        let outside = value.to_string();
        let addr = if host_ip.contains(':') { format!("[{host_ip}]:{outside}") } else { format!("{host_ip}:{outside}") };
        set(&format!("NOMAD_IP_{label}"), host_ip);
        set(&format!("NOMAD_HOST_IP_{label}"), host_ip);
        set(&format!("NOMAD_ADDR_{label}"), &addr);
        set(&format!("NOMAD_HOST_ADDR_{label}"), &addr);
        set(&format!("NOMAD_PORT_{label}"), &inside);
        set(&format!("NOMAD_ALLOC_PORT_{label}"), &inside);
        set(&format!("NOMAD_HOST_PORT_{label}"), &outside);
    }
}

/// Meta of job and group under the task's; each key as it is, and in upper case unless another key is spelt so.
fn meta<'a>(alloc: &'a AllocSpec, task: &'a TaskSpec) -> BTreeMap<String, &'a str> {
    let mut merged: BTreeMap<&str, &str> = alloc.meta.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    merged.extend(task.meta.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let upper = merged.iter().map(|(key, value)| (format!("NOMAD_META_{}", key.to_uppercase()), *value));
    let exact = merged.iter().map(|(key, value)| (format!("NOMAD_META_{key}"), *value));
    upper.chain(exact).collect()
}

fn node_vars(node: &NodeVars) -> Vars {
    let mut vars = Vars::new();
    if !node.region.is_empty() {
        vars.insert("node.region".to_owned(), node.region.clone());
    }
    for (name, value) in [
        ("node.unique.id", node.id.to_string()),
        ("node.unique.name", node.name.clone()),
        ("node.class", node.class.clone()),
        ("node.pool", node.pool.clone()),
        ("node.datacenter", node.datacenter.clone()),
    ] {
        vars.insert(name.to_owned(), value);
    }
    vars.extend(node.attributes.iter().map(|(name, value)| (format!("attr.{name}"), value.clone())));
    vars.extend(node.meta.iter().map(|(name, value)| (format!("meta.{name}"), value.clone())));
    vars
}

/// Replaces `${name}` and `${env["name"]}`, from left to right, values not looked at again.
fn replace(text: &str, vars: &Vars, node: &Vars, room: &mut usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        out.push_str(before);
        let value = parse_reference(reference).and_then(|(name, is_env, len)| {
            let value = vars.get(name).or_else(|| if is_env { None } else { node.get(name) })?;
            *room = room.checked_sub(value.len())?;
            Some((value, len))
        });
        // Without a value only the `$` is passed: `${${A}` has a reference inside.
        let len = value.map_or(1, |(_, len)| len);
        let (taken, after) = reference.split_at(len);
        out.push_str(value.map_or(taken, |(value, _)| value));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The name in a reference at the start of `text`, whether it can only be a variable, and the length of the reference.
fn parse_reference(text: &str) -> Option<(&str, bool, usize)> {
    let inner = text.strip_prefix("${")?;
    if let Some(quoted) = inner.strip_prefix("env[\"") {
        let (name, _) = quoted.split_once("\"]}")?;
        return (!name.contains(['"', '\n'])).then_some((name, true, "${env[\"\"]}".len() + name.len()));
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let len = inner.find(|c| !is_name(c))?;
    let (name, after) = inner.split_at(len);
    (!name.is_empty() && after.starts_with('}')).then_some((name, false, "${}".len() + len))
}

/// Every byte of a sanitised name that a shell would not take becomes `_`.
fn clean_name(name: String) -> String {
    if !SANITISED.iter().any(|prefix| name.starts_with(prefix)) {
        return name;
    }
    name.bytes().map(|c| if c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.') { char::from(c) } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{AllocId, NodeId};
    use crate::spec::{DriverKind, KillPolicy, LogPolicy, Resources, RestartPolicy, Role};

    fn vars(pairs: &[(&str, &str)]) -> Vars {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// The first allocation of jobs/telemetry on a small board.
    fn alloc() -> AllocSpec {
        AllocSpec {
            id: AllocId::parse("29fbd40e-dc6c-9f86-343d-95c29ddd20f9").unwrap(),
            name: "telemetry.sense[0]".to_owned(),
            index: 0,
            namespace: "default".to_owned(),
            region: "global".to_owned(),
            job_id: "telemetry".to_owned(),
            job_name: "telemetry".to_owned(),
            job_parent_id: String::new(),
            group: "sense".to_owned(),
            ports: Vec::new(),
            meta: vars(&[("site", "field-7")]),
            ..AllocSpec::default()
        }
    }

    fn task() -> TaskSpec {
        TaskSpec {
            name: "sample".to_owned(),
            driver: DriverKind::RawExec,
            program: Ok(Default::default()),
            user: String::new(),
            env: vars(&[("SENSOR_BUS", "i2c-1")]),
            meta: Vars::new(),
            resources: Resources { cpu_mhz: 50, memory_mb: 16, memory_max_mb: 0 },
            restart: RestartPolicy::default(),
            kill: KillPolicy::default(),
            shutdown_delay_ms: 0,
            logs: LogPolicy::default(),
            role: Role::Main,
            is_leader: false,
            templates: Vec::new(),
            payload_file: String::new(),
        }
    }

    fn dirs() -> Dirs {
        let view = DirView { alloc: "/a/alloc".to_owned(), local: "/a/sample/local".to_owned(), secrets: "/a/sample/secrets".to_owned() };
        Dirs { task: view.clone(), host: view }
    }

    fn node() -> NodeVars {
        NodeVars {
            id: NodeId::parse("0a1b2c3d-0000-4000-8000-00000000000f").unwrap(),
            name: "shop-3".to_owned(),
            class: String::new(),
            pool: "default".to_owned(),
            datacenter: "dc1".to_owned(),
            region: "global".to_owned(),
            attributes: vars(&[("cpu.arch", "arm"), ("os.name", "linux")]),
            meta: vars(&[("rack", "r1")]),
            cgroup_parent: "/nomad".to_owned(),
        }
    }

    #[test]
    fn telemetry_gets_these_and_no_others() {
        let host = vars(&[("PATH", "/bin"), ("NOMAD_TOKEN", "secret"), ("NOMAD_DC", "host"), ("SENSOR_BUS", "host")]);
        let env = build(&alloc(), &task(), &dirs(), &node(), &host);
        let expected = vars(&[
            ("NOMAD_ALLOC_DIR", "/a/alloc"),
            ("NOMAD_ALLOC_ID", "29fbd40e-dc6c-9f86-343d-95c29ddd20f9"),
            ("NOMAD_ALLOC_INDEX", "0"),
            ("NOMAD_ALLOC_NAME", "telemetry.sense[0]"),
            ("NOMAD_CPU_LIMIT", "50"),
            ("NOMAD_DC", "dc1"),
            ("NOMAD_GROUP_NAME", "sense"),
            ("NOMAD_JOB_ID", "telemetry"),
            ("NOMAD_JOB_NAME", "telemetry"),
            ("NOMAD_MEMORY_LIMIT", "16"),
            ("NOMAD_META_SITE", "field-7"),
            ("NOMAD_META_site", "field-7"),
            ("NOMAD_NAMESPACE", "default"),
            ("NOMAD_PARENT_CGROUP", "/nomad"),
            ("NOMAD_REGION", "global"),
            ("NOMAD_SECRETS_DIR", "/a/sample/secrets"),
            ("NOMAD_SHORT_ALLOC_ID", "29fbd40e"),
            ("NOMAD_TASK_DIR", "/a/sample/local"),
            ("NOMAD_TASK_NAME", "sample"),
            ("PATH", "/bin"),
            ("SENSOR_BUS", "i2c-1"),
        ]);
        assert_eq!(env.vars(), &expected);
    }

    /// One variable of the environment built from the fixtures after `change`.
    #[track_caller]
    fn check(change: impl Fn(&mut AllocSpec, &mut TaskSpec), expected: &[(&str, Option<&str>)]) {
        let (mut alloc, mut task) = (alloc(), task());
        change(&mut alloc, &mut task);
        let host = vars(&[("PATH", "/bin"), ("GREETING", "on ${node.unique.name}")]);
        let env = build(&alloc, &task, &dirs(), &node(), &host);
        for (name, value) in expected {
            assert_eq!(env.vars().get(*name).map(String::as_str), *value, "{name}");
        }
    }

    #[test]
    fn ports_of_the_group() {
        let port = |label: &str, value, to, host_ip: &str| Port { label: label.to_owned(), value, to, host_ip: host_ip.to_owned() };
        check(
            |alloc, _| alloc.ports = vec![port("http", 23456, 0, "10.0.0.5"), port("db-1", 25000, 5432, "::1"), port("x.y", 1, 0, "")],
            &[
                ("NOMAD_IP_http", Some("10.0.0.5")),
                ("NOMAD_PORT_http", Some("23456")),
                ("NOMAD_ADDR_http", Some("10.0.0.5:23456")),
                ("NOMAD_HOST_PORT_http", Some("23456")),
                ("NOMAD_HOST_IP_http", Some("10.0.0.5")),
                ("NOMAD_HOST_ADDR_http", Some("10.0.0.5:23456")),
                ("NOMAD_ALLOC_PORT_http", Some("23456")),
                ("NOMAD_PORT_db_1", Some("5432")),
                ("NOMAD_ALLOC_PORT_db-1", Some("5432")),
                ("NOMAD_HOST_PORT_db_1", Some("25000")),
                ("NOMAD_ADDR_db_1", Some("[::1]:25000")),
                ("NOMAD_PORT_db-1", None),
                ("NOMAD_PORT_x.y", Some("1")),
            ],
        );
    }

    #[test]
    fn meta_of_the_task_wins_and_names_are_cleaned() {
        check(
            |alloc, task| {
                alloc.meta = vars(&[("site", "job"), ("owner", "${node.unique.name}"), ("Mixed", "m"), ("MIXED", "M"), ("a-ü", "1")]);
                task.meta = vars(&[("site", "task"), ("r-${meta.rack}", "x")]);
            },
            &[
                ("NOMAD_META_site", Some("task")),
                ("NOMAD_META_SITE", Some("task")),
                ("NOMAD_META_owner", Some("shop-3")),
                ("NOMAD_META_Mixed", Some("m")),
                ("NOMAD_META_MIXED", Some("M")),
                ("NOMAD_META_a___", Some("1")),
                ("NOMAD_META_r_r1", Some("x")),
            ],
        );
    }

    #[test]
    fn limits_and_parents_are_left_out_when_not_set() {
        check(
            |alloc, task| {
                task.resources = Resources { cpu_mhz: 0, memory_mb: 0, memory_max_mb: -1 };
                alloc.job_parent_id = "nightly".to_owned();
                alloc.index = 12;
            },
            &[
                ("NOMAD_CPU_LIMIT", None),
                ("NOMAD_MEMORY_LIMIT", None),
                ("NOMAD_MEMORY_MAX_LIMIT", Some("-1")),
                ("NOMAD_JOB_PARENT_ID", Some("nightly")),
                ("NOMAD_ALLOC_INDEX", Some("12")),
            ],
        );
    }

    #[test]
    fn the_env_block_reads_the_layers_below() {
        check(
            |_, task| {
                task.env = vars(&[
                    ("PATH", "${PATH}:${NOMAD_TASK_DIR}/bin"),
                    ("ARCH", "${attr.cpu.arch}"),
                    ("NOMAD_META_site", "mine"),
                    ("LOOP", "${LOOP}"),
                ]);
            },
            &[
                ("PATH", Some("/bin:/a/sample/local/bin")),
                ("ARCH", Some("arm")),
                ("GREETING", Some("on shop-3")),
                ("NOMAD_META_site", Some("mine")),
                ("LOOP", Some("${LOOP}")),
            ],
        );
    }

    #[test]
    fn references() {
        let mut task = task();
        task.env = vars(&[("A", "1"), ("B", "${node.class}"), ("odd name", "odd"), ("D", "${X}")]);
        let env = build(&alloc(), &task, &dirs(), &node(), &vars(&[]));
        for (text, expected) in [
            ("", ""),
            ("plain $A", "plain $A"),
            ("${A}", "1"),
            ("x${A}${A}y", "x11y"),
            ("${B}", ""),
            ("${D}", "${X}"),
            ("${a}", "${a}"),
            ("${}", "${}"),
            ("${A", "${A"),
            ("${A }", "${A }"),
            ("${${A}}", "${1}"),
            ("$${A}", "$1"),
            ("${ü}${A}", "${ü}1"),
            ("${env[\"A\"]}", "1"),
            ("${env[\"odd name\"]}", "odd"),
            ("${env[\"node.class\"]}", "${env[\"node.class\"]}"),
            ("${env[\"A]}${A}", "${env[\"A]}1"),
            ("${env[\"A]} ${env[\"A\"]}", "${env[\"A]} 1"),
            ("${env}", "${env}"),
            ("${node.unique.id}", "0a1b2c3d-0000-4000-8000-00000000000f"),
            ("${node.unique.name}/${node.datacenter}/${node.pool}/${node.region}", "shop-3/dc1/default/global"),
            ("${meta.rack} ${attr.os.name} ${attr.none}", "r1 linux ${attr.none}"),
            ("${NOMAD_ALLOC_ID}", "29fbd40e-dc6c-9f86-343d-95c29ddd20f9"),
        ] {
            assert_eq!(env.interpolate(text), expected, "{text}");
            assert_eq!(env.interpolate_host(text), expected, "{text}");
        }
        assert_eq!(env.get("A"), Some("1"));
        assert_eq!(env.get("node.unique.name"), Some("shop-3"));
        assert_eq!(env.get("none"), None);
    }

    #[test]
    fn the_host_sees_other_folders() {
        let mut dirs = dirs();
        dirs.task = DirView { alloc: "/alloc".to_owned(), local: "/local".to_owned(), secrets: "/secrets".to_owned() };
        let mut task = task();
        task.env = vars(&[("CONF", "${NOMAD_TASK_DIR}/conf")]);
        let mut env = build(&alloc(), &task, &dirs, &node(), &vars(&[]));
        assert_eq!(env.interpolate("${CONF} ${NOMAD_ALLOC_DIR}"), "/local/conf /alloc");
        assert_eq!(env.interpolate_host("${CONF} ${NOMAD_ALLOC_DIR}"), "/a/sample/local/conf /a/alloc");
        env.extend(vars(&[("CONF", "new"), ("NOMAD_META_x-y", "z")]));
        assert_eq!((env.get("CONF"), env.interpolate_host("${CONF}").as_str()), (Some("new"), "new"));
        assert_eq!(env.get("NOMAD_META_x_y"), Some("z"));
    }

    #[test]
    fn values_cannot_multiply_without_end() {
        let mut task = task();
        let big = "x".repeat(ROOM_BYTES / 2 + 1);
        task.env = vars(&[("A", &big), ("B", "${A}"), ("C", "${A}"), ("D", "${A}")]);
        let env = build(&alloc(), &task, &dirs(), &node(), &vars(&[]));
        assert_eq!(env.get("B").map(str::len), Some(big.len()));
        assert_eq!(env.get("C"), Some("${A}"));
        assert_eq!(env.interpolate(&"${A}".repeat(3)).len(), big.len() + 8);
        let all = env.interpolate_all(&["${A}".to_owned(), "${A}".to_owned(), "${NOMAD_DC}".to_owned()]);
        assert_eq!((all[0].len(), all[1].as_str(), all[2].as_str()), (big.len(), "${A}", "dc1"));
    }
}
