//! Rows for flags, defaults and what only the whole can show.

use super::*;
use crate::config::flags::{Order, parse};

fn around() -> Surroundings {
    Surroundings { hostname: "edge-7".into(), is_root: true, xdg_runtime_dir: None, temporary: Some("/tmp/fresh".into()) }
}

fn load_in(around: &Surroundings, line: &str, files: &[&str]) -> Result<Config, String> {
    let words: Vec<String> = line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let flags = parse(AGENT_FLAGS, Order::Mixed, &words).map_err(|error| error.to_string())?;
    let files: Vec<Text> = files.iter().map(|text| Text { name: "f.json".into(), text: (*text).to_owned() }).collect();
    let told = |errors: Vec<ConfigError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
    draft(&files, &flags).map_err(told)?.resolve(around).map_err(told)
}

fn load(line: &str, files: &[&str]) -> Result<Config, String> {
    load_in(&around(), line, files)
}

#[test]
fn defaults() {
    let config = load("", &[]).unwrap();
    assert_eq!((config.region.as_str(), config.datacenter.as_str(), config.node_name.as_str()), ("global", "dc1", "edge-7"));
    assert_eq!((config.data_dir, config.alloc_dir), ("/var/lib/dunlin".into(), "/var/lib/dunlin/alloc".into()));
    assert_eq!(config.http.tcp, ["127.0.0.1:4646".parse().unwrap()]);
    assert_eq!((config.log_level, config.raw_exec, config.enable_debug), (log::LevelFilter::Info, false, false));
    assert_eq!((config.temporary, config.warnings, config.dev), (None, Vec::<String>::new(), false));
    assert_eq!((config.dynamic_ports, config.max_kill_timeout), (20_000..=32_000, Duration::from_secs(30)));
    assert!(config.env_denylist.iter().any(|name| name == "NOMAD_TOKEN") && config.env_denylist.len() == 17);
}

#[test]
fn dev_mode() {
    let config = load("-dev job.json", &[]).unwrap();
    assert_eq!((config.data_dir, config.temporary), ("/tmp/fresh/data".into(), Some("/tmp/fresh".into())));
    assert_eq!((config.log_level, config.raw_exec, config.enable_debug), (log::LevelFilter::Debug, true, true));
    assert_eq!(config.jobs, [PathBuf::from("job.json")]);
    // A folder of the operator's is used and not removed; a file may still turn things off.
    let config = load("-dev -data-dir /mine", &[r#"{"plugin": {"raw_exec": {"config": {"enabled": false}}}}"#]).unwrap();
    assert_eq!((config.data_dir, config.temporary, config.raw_exec), ("/mine".into(), None, false));
    // Without -dev no temporary folder is used, even if there is one.
    assert_eq!(load("", &[]).unwrap().temporary, None);
}

#[test]
fn flags_win_over_files() {
    let file = r#"{"region": "file", "datacenter": "file", "addresses": {"http": "127.0.0.9"}, "client": {"meta": {"k": "file", "l": "file"},
        "servers": ["file"]}}"#;
    let config = load("-region=flag -meta k=flag=x -servers a,b, --log-level ERROR", &[file]).unwrap();
    assert_eq!((config.region.as_str(), config.datacenter.as_str()), ("flag", "file"));
    assert_eq!((config.meta["k"].as_str(), config.meta["l"].as_str()), ("flag=x", "file"));
    assert_eq!((config.servers, config.log_level), (vec!["a".to_owned(), "b".to_owned()], log::LevelFilter::Error));
    assert_eq!(load("-http 127.0.0.1:1", &[file]).unwrap().http.tcp, ["127.0.0.1:1".parse().unwrap()]);
    assert_eq!(load("-bind 127.0.0.3", &[file]).unwrap().http.tcp, ["127.0.0.3:4646".parse().unwrap()]);
}

#[track_caller]
fn check_http(line: &str, want: &str) {
    let told = load(line, &[]).map(|config| {
        let unix = config.http.unix.map(|path| path.display().to_string());
        config.http.tcp.iter().map(ToString::to_string).chain(unix).collect::<Vec<_>>().join(" ")
    });
    assert_eq!(told.unwrap_or_else(|error| error), want, "{line}");
}

#[test]
fn where_http_listens() {
    check_http("-http localhost:80", "127.0.0.1:80");
    check_http("-http 0.0.0.0:0", "0.0.0.0:0");
    check_http("-http [::1]:80", "[::1]:80");
    check_http("-http :80 -bind 127.0.0.2", "127.0.0.2:80");
    check_http("-http 127.0.0.1:1 -http 127.0.0.1:2 -http unix:///run/s", "127.0.0.1:1 127.0.0.1:2 /run/s");
    check_http("-http unix:///run/s", "/run/s");
    check_http("-bind [::]", "[::]:4646");
    let form = "expected host:port with an IP address or localhost, or unix:///path";
    for bad in ["80", "example.org:80", "127.0.0.1:x", "127.0.0.1:70000", "::1:80", ""] {
        check_http(&format!("-http={bad}"), &format!("command line: -http: found {bad:?}, {form}"));
    }
    check_http("-http unix://run", "command line: -http: found \"unix://run\", expected an absolute path");
    let long = format!("unix:///{}", "x".repeat(120));
    assert!(load(&format!("-http {long}"), &[]).unwrap_err().ends_with("expected a socket path of at most 107 bytes"));
    assert!(load(&"-http 127.0.0.1:1 ".repeat(9), &[]).unwrap_err().ends_with("expected at most eight addresses"));
}

#[test]
fn what_is_advertised() {
    for (given, want) in [
        ("192.0.2.1", "192.0.2.1:4646"),
        ("192.0.2.1:80", "192.0.2.1:80"),
        ("edge.example.org:80", "edge.example.org:80"),
        ("2001:db8::1", "[2001:db8::1]:4646"),
        ("[2001:db8::1]:80", "[2001:db8::1]:80"),
    ] {
        let file = format!(r#"{{"advertise": {{"http": "{given}"}}}}"#);
        assert_eq!(load("", &[&file]).unwrap().http.advertise.as_deref(), Some(want), "{given}");
    }
    for bad in ["{{ x }}", "a:b", ":80", "http://x"] {
        let file = format!(r#"{{"advertise": {{"http": "{bad}"}}}}"#);
        assert!(load("", &[&file]).unwrap_err().contains("expected a name or address"), "{bad}");
    }
}

#[test]
fn runtime_folders() {
    let dir = |around: &Surroundings| load_in(around, "", &[]).unwrap().runtime_dir("0d1b2c3d-0000-4000-8000-000000000001");
    assert_eq!(dir(&around()), PathBuf::from("/run/dunlin/0d1b2c3d"));
    let user = Surroundings { is_root: false, xdg_runtime_dir: Some("/run/user/7".into()), ..around() };
    assert_eq!(dir(&user), PathBuf::from("/run/user/7/dunlin/0d1b2c3d"));
    let bare = Surroundings { is_root: false, ..around() };
    assert_eq!(dir(&bare), PathBuf::from("/var/lib/dunlin/run/0d1b2c3d"));
    // A relative one cannot be meant; a short id is used as it is.
    assert_eq!(dir(&Surroundings { xdg_runtime_dir: Some("x".into()), ..bare }), PathBuf::from("/var/lib/dunlin/run/0d1b2c3d"));
    assert_eq!(load("", &[]).unwrap().runtime_dir("ab"), PathBuf::from("/run/dunlin/ab"));
}

#[test]
fn faults_of_flags() {
    for (line, want) in [
        ("-data-dir here", "command line: -data-dir: found \"here\", expected an absolute path"),
        ("-meta x", "command line: -meta: found \"x\", expected key=value"),
        ("-log-level loud", "command line: -log-level: found \"loud\", expected TRACE, DEBUG, INFO, WARN or ERROR"),
        ("-network-speed -1", "command line: -network-speed: found \"-1\", expected a whole number"),
        ("-bind example.org", "command line: -bind: found \"example.org\", expected an IP address or localhost"),
        ("-datadir /x", "flag provided but not defined: -datadir (did you mean -data-dir?)"),
    ] {
        assert_eq!(load(line, &[]), Err(want.to_owned()), "{line}");
    }
    let ports = r#"{"client": {"min_dynamic_port": 9000, "max_dynamic_port": 8000}}"#;
    assert!(load("", &[ports]).unwrap_err().contains("found 9000 above 8000"));
    let nameless = Surroundings { hostname: String::new(), ..around() };
    assert!(load_in(&nameless, "", &[]).unwrap_err().contains("a name for this node"));
    assert_eq!(load_in(&nameless, "-node n", &[]).unwrap().node_name, "n");
}

/// A unit file written for Nomad still starts.
#[test]
fn flags_without_meaning_are_named() {
    let config = load("-client -server -join x -plugin-dir /x", &[]).unwrap();
    assert_eq!(config.warnings, ["settings of Nomad that have no meaning here and are ignored: -server, -join, -plugin-dir"]);
    assert!(load("-acl-enabled -bind 0.0.0.0", &[]).unwrap_err().contains("-acl-enabled"));
}

#[test]
fn reserved_ports() {
    for (text, want) in [
        ("22", Ok(vec![22..=22])),
        ("22, 80 ,8500-8600", Ok(vec![22..=22, 80..=80, 8500..=8600])),
        ("1-65535", Ok(vec![1..=65535])),
        ("0", Err("ports such as 22,8500-8600")),
        ("5-3", Err("ports such as 22,8500-8600")),
        ("22,", Err("ports such as 22,8500-8600")),
        ("65536", Err("ports such as 22,8500-8600")),
        ("", Err("ports such as 22,8500-8600")),
    ] {
        assert_eq!(port_ranges(text), want, "{text}");
    }
    assert!(port_ranges(&vec!["1"; 300].join(",")).is_err());
}
