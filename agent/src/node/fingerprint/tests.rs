//! Rows on simulated boards. The names are held against those of recorded nodes.

use super::*;
use crate::config::file::Text;
use crate::config::flags::Parsed;
use crate::config::merge::{Surroundings, draft};
use dunlin_hal::sim::facts::{board, usage};

/// A configuration from the text of its file.
fn config(text: &str) -> Config {
    let files = [Text { name: "f".into(), text: text.to_owned() }];
    let around = Surroundings { hostname: "edge-7".into(), is_root: true, ..Surroundings::default() };
    draft(&files, &Parsed::default()).unwrap().resolve(&around).unwrap()
}

fn of(facts: &Facts, text: &str) -> Fingerprint {
    fingerprint(&Inputs {
        facts,
        storage: &usage().alloc_dir,
        board: "",
        cgroups: Cgroups { version: Some("1"), controllers: &["cpu", "memory", "pids"], parent: "/nomad" },
        signals: &["SIGHUP", "SIGINT"],
        config: &config(text),
        http: Some("127.0.0.1:4646".parse().unwrap()),
        version: "0.1.0",
    })
}

const RAW_EXEC: &str = r#"{"plugin": {"raw_exec": {"config": {"enabled": true}}}}"#;

#[test]
fn attributes_of_a_board() {
    let want = "cpu.arch=arm cpu.frequency=1200 cpu.modelname=Sim Board cpu.numcores=4 cpu.reservablecores=4 cpu.totalcompute=4800 \
        cpu.usablecompute=4560 driver.raw_exec=1 edge.board=Sim Board edge.cgroup.controllers=cpu,memory,pids edge.cgroup.memory=true \
        edge.version=0.1.0 kernel.arch=armv7l kernel.name=linux kernel.version=6.1.0-sim memory.totalbytes=268435456 \
        nomad.revision=edge nomad.service_discovery=false nomad.version=1.10.5 os.cgroups.version=1 os.name=poky \
        os.signals=SIGHUP,SIGINT os.version=4.0.1 unique.advertise.address=127.0.0.1:4646 \
        unique.host_id=0123456789abcdef0123456789abcdef unique.hostname=edge-7 unique.network.ip-address=192.0.2.7 \
        unique.storage.bytesfree=6000000000 unique.storage.bytestotal=8000000000 unique.storage.volume=/dev/mmcblk0p2";
    let told: Vec<String> = of(&board(), RAW_EXEC).attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(told.join(" "), want);
}

/// Names in the recorded answers for a node and in the registration that real servers accepted.
#[test]
fn names_of_recorded_nodes() {
    let told = of(&board(), RAW_EXEC).attributes;
    for name in
        "cpu.arch kernel.name os.name unique.storage.volume nomad.version cpu.numcores cpu.totalcompute driver.raw_exec kernel.arch \
        memory.totalbytes nomad.revision nomad.service_discovery os.signals unique.hostname unique.network.ip-address"
            .split_ascii_whitespace()
    {
        assert!(told.contains_key(name), "{name}");
    }
}

#[test]
fn what_is_unknown_is_left_out() {
    let facts = Facts { cpu: board().cpu, ..Facts::default() };
    let told = fingerprint(&Inputs {
        facts: &facts,
        storage: &Space::default(),
        board: "",
        cgroups: Cgroups::default(),
        signals: &[],
        config: &config("{}"),
        http: None,
        version: "",
    });
    assert!(told.attributes.values().all(|value| !value.is_empty()));
    for name in
        ["os.name", "os.cgroups.version", "unique.network.ip-address", "unique.storage.volume", "driver.raw_exec", "kernel.landlock"]
    {
        assert!(!told.attributes.contains_key(name), "{name}");
    }
    assert_eq!(told.attributes["edge.cgroup.memory"], "false");
    assert_eq!((told.resources.networks, told.resources.node_networks, told.http_addr.as_str()), (vec![], vec![], ""));
}

#[test]
fn resources_of_a_board() {
    let told = of(&board(), r#"{"client": {"reserved": {"cpu": 100, "memory": 32, "disk": 36, "reserved_ports": "22"}}}"#);
    let resources = told.resources;
    assert_eq!((resources.cpu_mhz, resources.cores.len(), resources.reservable_cores), (4800, 4, vec![0, 1, 2, 3]));
    assert_eq!((resources.memory_mb, resources.disk_mb), (256, 6866));
    assert_eq!(resources.dynamic_ports, 20_000..=32_000);
    let network = Network { device: "eth0".into(), cidr: "192.0.2.7/32".into(), ip: "192.0.2.7".into(), mbits: 100 };
    assert_eq!(resources.networks, [network]);
    assert_eq!(resources.node_networks[0].mac, "02:00:00:00:00:01");
    // Configured plus the agent's own need: 5 %, 16 MB, 64 MB.
    let reserved = told.reserved;
    assert_eq!((reserved.cpu_mhz, reserved.memory_mb, reserved.disk_mb, reserved.host_ports.as_str()), (340, 48, 100, "22"));
    assert_eq!(told.attributes["cpu.usablecompute"], "4460");
    assert_eq!(told.cgroup_parent, "/nomad");
}

#[test]
fn the_configuration_overrides_what_is_detected() {
    let text = r#"{"client": {"cpu_total_compute": 9000, "memory_total_mb": 100, "disk_total_mb": 700, "network_speed": 10}}"#;
    let told = of(&board(), text);
    assert_eq!((told.resources.cpu_mhz, told.resources.memory_mb, told.resources.disk_mb), (9000, 100, 700));
    assert_eq!((told.attributes["memory.totalbytes"].as_str(), told.resources.networks[0].mbits), ("104857600", 10));
    // Free space is never told to be more than there is.
    assert_eq!(told.attributes["unique.storage.bytesfree"], (700 * MB).to_string());
    assert_eq!(of(&board(), r#"{"client": {"disk_free_mb": 50}}"#).resources.disk_mb, 50);
    let huge = format!(r#"{{"client": {{"memory_total_mb": {0}, "cpu_total_compute": {0}, "disk_total_mb": {0}}}}}"#, u64::MAX);
    assert_eq!(of(&board(), &huge).resources.cpu_mhz, u64::MAX);
}

#[test]
fn reserved_and_reservable_cores() {
    let told = of(&board(), r#"{"client": {"reservable_cores": "1-7", "reserved": {"cores": "3"}}}"#);
    assert_eq!((told.resources.reservable_cores, told.reserved.cores), (vec![1, 2], vec![3]));
    assert_eq!(told.attributes["cpu.reservablecores"], "2");
    assert_eq!((told.attributes["cpu.totalcompute"].as_str(), told.attributes["cpu.usablecompute"].as_str()), ("4800", "2160"));
}

#[track_caller]
fn check_cores(mhz: &[u32], want: &str) {
    let mut facts = board();
    facts.cpu.cores = (0..).zip(mhz).map(|(id, mhz)| Core { id, mhz: *mhz }).collect();
    let told = of(&facts, "{}").attributes;
    let told = told.iter().filter(|(name, _)| name.starts_with("cpu.frequency") || name.starts_with("cpu.numcores"));
    assert_eq!(told.map(|(name, value)| format!("{}={value}", &name[4..])).collect::<Vec<_>>().join(" "), want, "{mhz:?}");
}

#[test]
fn kinds_of_cores() {
    check_cores(&[1000], "frequency=1000 numcores=1");
    check_cores(&[1400; 4], "frequency=1400 numcores=4");
    check_cores(
        &[1416, 1416, 1800],
        "frequency.efficiency=1416 frequency.performance=1800 numcores=3 numcores.efficiency=2 numcores.performance=1",
    );
    check_cores(
        &[1000, 2000, 3000, 3000],
        "frequency.efficiency=2000 frequency.performance=3000 numcores=4 numcores.efficiency=2 numcores.performance=2",
    );
    // Favoured cores of a desktop.
    check_cores(&[4900, 5000, 5100], "frequency=5100 numcores=3");
}

#[track_caller]
fn check_addresses(addresses: &[&str], text: &str, want: &[&str]) {
    let mut facts = board();
    let link = Link { addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(), speed_mbits: None, ..facts.link.unwrap() };
    facts.link = Some(link);
    let told = of(&facts, text);
    assert_eq!(told.resources.networks.iter().map(|network| network.cidr.as_str()).collect::<Vec<_>>(), want, "{addresses:?}");
    assert!(told.resources.networks.iter().all(|network| network.mbits == LINK_MBITS_DEFAULT));
    assert_eq!(told.resources.node_networks.len(), usize::from(!want.is_empty()));
}

#[test]
fn addresses_of_the_interface() {
    check_addresses(&["192.0.2.1", "2001:db8::1", "fe80::1"], "{}", &["192.0.2.1/32", "2001:db8::1/128"]);
    check_addresses(&["169.254.1.1"], "{}", &["169.254.1.1/32"]);
    check_addresses(&["169.254.1.1"], r#"{"client": {"options": {"fingerprint.network.disallow_link_local": "true"}}}"#, &[]);
    check_addresses(&["127.0.0.1"], "{}", &["127.0.0.1/32"]);
    check_addresses(&[], "{}", &[]);
}

#[test]
fn where_http_is_reached() {
    let address = |http: &str, text: &str| {
        let (facts, storage, config) = (board(), usage().alloc_dir, config(text));
        let (http, cgroups) = (http.parse().ok(), Cgroups::default());
        fingerprint(&Inputs { facts: &facts, storage: &storage, board: "", cgroups, signals: &[], config: &config, http, version: "" })
            .http_addr
    };
    assert_eq!(address("127.0.0.1:4646", "{}"), "127.0.0.1:4646");
    assert_eq!(address("0.0.0.0:80", "{}"), "192.0.2.7:80");
    assert_eq!(address("[::]:80", "{}"), "192.0.2.7:80");
    assert_eq!(address("none", "{}"), "");
    assert_eq!(address("0.0.0.0:80", r#"{"advertise": {"http": "edge.example.org:99"}}"#), "edge.example.org:99");
}

#[test]
fn the_driver_tells_whether_it_is_on() {
    assert_eq!(of(&board(), RAW_EXEC).drivers, [Driver { name: "raw_exec", is_detected: true, is_healthy: true, description: "Healthy" }]);
    let off = of(&board(), "{}");
    assert_eq!(off.drivers, [Driver { name: "raw_exec", is_detected: false, is_healthy: false, description: "disabled" }]);
}
