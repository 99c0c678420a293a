//! Rows for files: what a key does, what is told about a wrong one, and the ways Nomad lets the same thing be written.

use super::*;
use crate::config::flags::Parsed;
use crate::config::keys::ROWS;
use crate::config::merge::{Surroundings, draft};
use crate::config::{Config, TlsFiles};

fn around() -> Surroundings {
    Surroundings { hostname: "edge-7".into(), is_root: true, ..Surroundings::default() }
}

fn load(texts: &[&str]) -> Result<Config, Vec<String>> {
    let files: Vec<Text> = (1..).zip(texts).map(|(i, text)| Text { name: format!("{i}.json"), text: (*text).to_owned() }).collect();
    let told = |errors: Vec<ConfigError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    draft(&files, &Parsed::default()).map_err(told)?.resolve(&around()).map_err(told)
}

#[track_caller]
fn check(text: &str, same: impl Fn(&mut Config)) {
    let mut want = load(&[]).unwrap();
    same(&mut want);
    assert_eq!(load(&[text]), Ok(want), "{text}");
}

#[track_caller]
fn check_error(text: &str, want: &str) {
    assert_eq!(load(&[text]).unwrap_err().join(" | "), want, "{text}");
}

#[test]
fn an_empty_file_changes_nothing() {
    check("{}", |_| {});
    check("[]", |_| {});
    check("[{}, {}]", |_| {});
    check(r#"{"region": "", "client": {}}"#, |_| {});
}

#[test]
fn what_keys_do() {
    check(r#"{"region": "eu", "datacenter": "roof", "name": "n1"}"#, |config| {
        (config.region, config.datacenter, config.node_name) = ("eu".into(), "roof".into(), "n1".into());
    });
    check(r#"{"data_dir": "/srv/d"}"#, |config| {
        (config.data_dir, config.state_dir, config.alloc_dir) = ("/srv/d".into(), "/srv/d/client".into(), "/srv/d/alloc".into());
    });
    check(r#"{"ports": {"http": 80}, "addresses": {"http": "127.0.0.2 unix:///run/x.sock ::1"}}"#, |config| {
        config.http.tcp = vec!["127.0.0.2:80".parse().unwrap(), "[::1]:80".parse().unwrap()];
        config.http.unix = Some("/run/x.sock".into());
    });
    check(r#"{"addresses": {"http": "unix:///run/x.sock"}}"#, |config| {
        config.http.tcp = vec![];
        config.http.unix = Some("/run/x.sock".into());
    });
    check(r#"{"log_level": "warn", "enable_debug": true}"#, |config| {
        (config.log_level, config.enable_debug) = (log::LevelFilter::Warn, true);
    });
    check(r#"{"plugin": {"raw_exec": {"config": {"enabled": true}}}}"#, |config| config.raw_exec = true);
    check(r#"{"client": {"options": {"driver.raw_exec.enable": "1"}}}"#, |config| config.raw_exec = true);
    check(r#"{"client": {"options": {"driver.raw_exec.enable": "1"}}, "plugin": [{"raw_exec": {"config": {"enabled": false}}}]}"#, |_| {});
    check(r#"{"client": {"reserved": {"cpu": 100, "memory": 32, "disk": 9, "reserved_ports": "22,80-81", "cores": "0,2-3"}}}"#, |config| {
        let reserved = &mut config.reserved;
        (reserved.cpu_mhz, reserved.memory_mb, reserved.disk_mb, reserved.cores) = (100, 32, 9, vec![0, 2, 3]);
        (reserved.ports, reserved.port_ranges) = ("22,80-81".into(), vec![22..=22, 80..=81]);
    });
    check(r#"{"client": {"meta": {"site": "roof", "rack": 7}, "node_class": "pi", "max_kill_timeout": "1m"}}"#, |config| {
        config.meta = [("rack".into(), "7".into()), ("site".into(), "roof".into())].into();
        (config.node_class, config.max_kill_timeout) = ("pi".into(), core::time::Duration::from_secs(60));
    });
    check(r#"{"client": {"min_dynamic_port": 30000, "max_dynamic_port": 30010, "gc_max_allocs": 7}}"#, |config| {
        (config.dynamic_ports, config.gc.allocs_max) = (30000..=30010, Some(7));
    });
    check(r#"{"client": {"servers": ["a:4647"], "server_join": {"retry_join": ["b"], "start_join": ["c"]}}}"#, |config| {
        config.servers = ["b", "c", "a:4647"].map(str::to_owned).into();
        config.warnings = vec!["this version does not join servers yet; b, c, a:4647 will not hear of this node".to_owned()];
    });
    check(r#"{"http_api_response_headers": {"X-A": "b"}, "limits": {"http_max_conns_per_client": 0}}"#, |config| {
        config.http.headers = [("X-A".into(), "b".into())].into();
        config.http.conns_per_client_max = Some(0);
    });
    check(r#"{"client": {"options": {"env.denylist": "A, B,"}}}"#, |config| config.env_denylist = vec!["A".into(), "B".into()]);
    check(r#"{"edge": {"runtime_dir": "/run/e", "reserve": {"cpu_percent": 0, "memory_mb": 8}}}"#, |config| {
        (config.runtime_base, config.own_need.cpu_percent, config.own_need.memory_mb) = ("/run/e".into(), 0, 8);
    });
}

/// Every key that the table calls used reaches the draft: nothing is accepted silently.
#[test]
fn every_used_key_has_an_effect() {
    for &(block, form, used, names) in ROWS.iter().filter(|row| row.2 == Use::Used) {
        assert_eq!(used, Use::Used);
        for name in names.split_ascii_whitespace() {
            let path = join(block, name);
            let samples: &[&str] = match form {
                Form::Text => &["\"/path\"", "\"::9\"", "\"error\"", "\"9s\"", "\"5\""],
                Form::Number => &["77"],
                Form::Share => &["7.5"],
                Form::Truth => &["true", "false"],
                Form::Texts => &["[\"a\"]"],
                Form::Words => &["{\"a\": \"b\"}"],
                Form::Any | Form::Block | Form::Labels => continue,
            };
            let before = format!("{:?}", draft(&[], &Parsed::default()).unwrap());
            let changes = samples.iter().any(|sample| {
                let text = path.rsplit('.').fold((*sample).to_owned(), |value, name| format!("{{\"{name}\": {value}}}"));
                draft(&[Text { name: "f".into(), text }], &Parsed::default()).is_ok_and(|draft| format!("{draft:?}") != before)
            });
            assert!(changes, "{path}");
        }
    }
}

#[test]
fn the_ways_hcl_json_nests() {
    let on = |config: &mut Config| config.raw_exec = true;
    check(r#"{"plugin": [{"raw_exec": [{"config": [{"enabled": true}]}]}]}"#, on);
    check(r#"{"PLUGIN": {"raw_exec": {"Config": {"ENABLED": "true"}}}}"#, on);
    check(r#"{"client": [{"node_class": "a"}, {"node_class": "b"}]}"#, |config| config.node_class = "b".into());
    check(r#"{"client": {"meta": [{"a": "1"}, {"b": "2"}]}}"#, |config| {
        config.meta = [("a".into(), "1".into()), ("b".into(), "2".into())].into();
    });
    check(r#"{"ports": {"http": "8080"}}"#, |config| config.http.tcp = vec!["127.0.0.1:8080".parse().unwrap()]);
    check(r#"{"client": {"reserved": {"reserved_ports": 22}}}"#, |config| {
        (config.reserved.ports, config.reserved.port_ranges) = ("22".into(), vec![22..=22]);
    });
}

#[test]
fn unknown_keys_name_the_nearest() {
    check_error(r#"{"datadir": "/x"}"#, "1.json: datadir: unknown key; the nearest known one is data_dir");
    check_error(r#"{"client": {"meat": {}}}"#, "1.json: client.meat: unknown key; the nearest known one is client.meta");
    check_error(
        r#"{"plugin": {"raw_exec": {"config": {"enable": true}}}}"#,
        "1.json: plugin.raw_exec.config.enable: unknown key; the nearest known one is plugin.raw_exec.config.enabled",
    );
    check_error(
        r#"{"client": {"host_volume": {"d": {"pth": "/x"}}}}"#,
        "1.json: client.host_volume.d.pth: unknown key; the nearest known one is client.host_volume.d.path",
    );
    // The right key in the wrong place.
    check_error(r#"{"retry_join": []}"#, "1.json: retry_join: unknown key; the nearest known one is client.server_join.retry_join");
    check_error(r#"{"client": {"data_dir": "/x"}}"#, "1.json: client.data_dir: unknown key; the nearest known one is data_dir");
    // Inside a block that has no meaning here, too.
    check_error(
        r#"{"server": {"bootstrap_expct": 1}}"#,
        "1.json: server.bootstrap_expct: unknown key; the nearest known one is server.bootstrap_expect",
    );
}

#[test]
fn wrong_values_tell_found_and_expected() {
    for (text, want) in [
        (r#"{"data_dir": true}"#, "data_dir: found true, expected a string"),
        (r#"{"data_dir": "here"}"#, "data_dir: found \"here\", expected an absolute path"),
        (r#"{"ports": 5}"#, "ports: found 5, expected an object"),
        (r#"{"ports": [5]}"#, "ports: found a list, expected an object"),
        (r#"{"ports": {"http": "x"}}"#, "ports.http: found \"x\", expected a whole number, 0 or more"),
        (r#"{"ports": {"http": -1}}"#, "ports.http: found -1, expected a whole number, 0 or more"),
        (r#"{"ports": {"http": 65536}}"#, "ports.http: found 65536, expected a port from 0 to 65535"),
        (r#"{"enable_debug": "perhaps"}"#, "enable_debug: found \"perhaps\", expected true or false"),
        (r#"{"enable_debug": null}"#, "enable_debug: found null, expected true or false"),
        (r#"{"client": {"servers": "a"}}"#, "client.servers: found \"a\", expected a list of strings"),
        (r#"{"client": {"servers": [[]]}}"#, "client.servers: found a list, expected a list of strings"),
        (r#"{"client": {"meta": {"a": {}}}}"#, "client.meta: found an object, expected an object whose values are strings"),
        (r#"{"client": {"max_kill_timeout": "5"}}"#, "client.max_kill_timeout: found \"5\", expected a duration such as 30s or 1h30m"),
        (
            r#"{"client": {"gc_disk_usage_threshold": 101}}"#,
            "client.gc_disk_usage_threshold: found 101, expected a percentage from 0 to 100",
        ),
        (r#"{"client": {"reserved": {"cores": "x"}}}"#, "client.reserved.cores: found \"x\", expected core ids such as 0-2,7"),
        (r#"{"log_level": "LOUD"}"#, "log_level: found \"LOUD\", expected TRACE, DEBUG, INFO, WARN or ERROR"),
        (r#"{"bind_addr": "{{ GetPrivateIP }}"}"#, "bind_addr: found \"{{ GetPrivateIP }}\", expected an IP address or localhost"),
        (r#"{"http_api_response_headers": {"a b": ""}}"#, "http_api_response_headers: found an object, expected names of HTTP headers"),
        // Also in keys and blocks without meaning here.
        (r#"{"plugin_dir": 1.5, "server": {"enabled": 3}}"#, "server.enabled: found 3, expected true or false"),
    ] {
        check_error(text, &format!("1.json: {want}"));
    }
    let long = format!(r#"{{"log_level": "{}"}}"#, "é".repeat(5000));
    assert!(load(&[&long]).unwrap_err()[0].len() < 200);
}

#[test]
fn broken_files() {
    for text in ["", "{", "nonsense", "{\"region\": \"x\"} trailing", "{\"a\":"] {
        assert!(load(&[text]).unwrap_err()[0].starts_with("1.json: not JSON: "), "{text}");
    }
    check_error("5", "1.json: found 5, expected an object");
    // Deeper than the reader goes.
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(load(&[&deep]).unwrap_err()[0].contains("recursion limit"));
    let many: Vec<String> = (0..100).map(|i| format!("\"k{i}\": 1")).collect();
    assert_eq!(load(&[&format!("{{{}}}", many.join(","))]).unwrap_err().len(), ERRORS_MAX);
}

#[test]
fn all_faults_are_told_at_once() {
    let errors = load(&[r#"{"regin": "a", "ports": {"http": "x"}}"#, "{"]).unwrap_err();
    assert_eq!(errors.len(), 3);
    assert!(errors[2].starts_with("2.json: not JSON"));
}

#[test]
fn later_files_win_and_lists_add_up() {
    let first = r#"{"region": "a", "datacenter": "x", "client": {"meta": {"k": "1", "l": "1"}, "servers": ["s1"]}}"#;
    let second = r#"{"region": "b", "client": {"meta": {"k": "2"}, "servers": ["s2"]}}"#;
    let config = load(&[first, second]).unwrap();
    assert_eq!((config.region.as_str(), config.datacenter.as_str()), ("b", "x"));
    assert_eq!((config.meta["k"].as_str(), config.meta["l"].as_str()), ("2", "1"));
    assert_eq!(config.servers, ["s1", "s2"]);
}

/// A configuration of a real client: every section Nomad's documentation shows.
#[test]
fn keys_without_meaning_are_named_in_one_warning() {
    let text = r#"{
        "client": {"enabled": true, "chroot_env": {"/a": "/b"}, "host_volume": {"d": {"path": "/d", "read_only": true}},
            "template": {"wait": {"min": "1s"}}, "options": {"driver.docker.volumes": "true"}},
        "server": {"enabled": false, "bootstrap_expect": 3}, "consul": {"address": "127.0.0.1:8500"}, "vault": [{"enabled": true}],
        "telemetry": {"prometheus_metrics": true}, "ui": {"label": {"text": "x"}}, "autopilot": {"min_quorum": 3}, "leave_on_interrupt": true,
        "plugin": {"docker": {"config": {"allow_privileged": true}}}, "ports": {"rpc": 4647}, "acl": {"enabled": false, "token_ttl": "30s"},
        "tls": {"http": false, "ca_file": "/ca", "rpc": true}
    }"#;
    let want = "settings of Nomad that have no meaning here and are ignored: acl.token_ttl, autopilot, client.chroot_env, \
        client.host_volume, client.options.driver.docker.volumes, client.template, consul, leave_on_interrupt, plugin.docker, ports.rpc, \
        server, telemetry, tls.rpc, ui, vault";
    check(text, |config| config.warnings = vec![want.to_owned()]);
    // The same twice is named once.
    assert_eq!(load(&[text, text]).unwrap().warnings, [want]);
}

#[test]
fn protection_is_not_silently_left_out() {
    let local = load(&[r#"{"acl": {"enabled": true}}"#]).unwrap();
    assert_eq!(local.warnings, ["1.json: acl.enabled is not enforced by this version; HTTP listens on this machine only"]);
    check_error(
        r#"{"acl": {"enabled": true}, "bind_addr": "0.0.0.0"}"#,
        "1.json: acl.enabled: this version cannot give that protection, so it does not listen on 0.0.0.0:4646; \
         listen on 127.0.0.1 or a Unix socket, or take the key out",
    );
    // A later file takes the wish back; being open is then told at every start.
    let open = load(&[r#"{"acl": {"enabled": true}, "bind_addr": "0.0.0.0"}"#, r#"{"acl": {"enabled": false}}"#]).unwrap();
    assert_eq!(open.warnings.len(), 1);
    assert!(open.warnings[0].starts_with("HTTP listens on 0.0.0.0:4646 without access control"));
}

#[test]
fn tls() {
    let files = r#"{"bind_addr": "0.0.0.0", "tls": {"http": true, "cert_file": "a.pem", "key_file": "/k.pem", "ca_file": "/ca.pem"}}"#;
    let http = load(&[files]).unwrap().http;
    assert_eq!(http.tls, Some(TlsFiles { cert: "a.pem".into(), key: "/k.pem".into(), client_ca: None }));
    // Encrypted is not yet protected; client certificates are.
    assert_eq!(load(&[files]).unwrap().warnings.len(), 1);
    let verified = load(&[files, r#"{"tls": {"verify_https_client": true}}"#]).unwrap();
    assert_eq!(verified.http.tls.unwrap().client_ca, Some("/ca.pem".into()));
    assert_eq!(verified.warnings, [""; 0]);
    // Files alone mean nothing; a wish without files is a fault.
    assert_eq!(load(&[files, r#"{"tls": {"http": false}}"#]).unwrap().http.tls, None);
    for (text, want) in [
        (r#"{"tls": {"http": true, "cert_file": "/c"}}"#, "tls.key_file: found nothing, expected a PEM file, as tls.http is true"),
        (r#"{"tls": {"http": true, "key_file": "/k"}}"#, "tls.cert_file: found nothing, expected a PEM file, as tls.http is true"),
        (
            r#"{"tls": {"http": true, "cert_file": "/c", "key_file": "/k", "verify_https_client": true}}"#,
            "tls.ca_file: found nothing, expected a PEM file, as tls.verify_https_client is true",
        ),
    ] {
        check_error(text, &format!("configuration: {want}"));
    }
}

#[test]
fn files_and_folders() {
    let folder = std::env::temp_dir().join(format!("dunlin-config-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("sub.json")).unwrap();
    for (name, text) in [("b.json", "B"), ("a.json", "A"), (".#c.json", "C"), ("d.json~", "D"), ("notes.txt", "N")] {
        fs::write(folder.join(name), text).unwrap();
    }
    let at = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let whole = folder.to_string_lossy().into_owned();
    let texts = |paths: &[&str]| read(paths.iter().copied()).map(|texts| texts.into_iter().map(|text| text.text).collect::<String>());
    assert_eq!(texts(&[&at("b.json"), &whole]), Ok("BAB".to_owned()));
    assert_eq!(texts(&[&at("notes.txt")]), Ok("N".to_owned()));
    assert!(matches!(texts(&[&at("none.json")]), Err(ConfigError { fault: Fault::Unreadable { .. }, .. })));
    fs::write(folder.join("big.json"), vec![b' '; 1 + (1 << 20)]).unwrap();
    assert_eq!(texts(&[&at("big.json")]).unwrap_err().fault, Fault::TooLarge);
    fs::write(folder.join("bytes.json"), [0xff]).unwrap();
    assert!(matches!(texts(&[&at("bytes.json")]).unwrap_err().fault, Fault::Syntax { .. }));
    fs::remove_file(folder.join("big.json")).unwrap();
    fs::remove_file(folder.join("bytes.json")).unwrap();
    fs::write(folder.join("z.hcl"), "").unwrap();
    assert_eq!(texts(&[&whole]).unwrap_err().fault, Fault::Hcl);
    fs::remove_dir_all(&folder).unwrap();
}
