//! Mount tables, plans, parsed figures, and a v2 tree made of plain files.

use std::collections::BTreeMap;

use super::stats::{Cpu, Memory, Sample, cpu_v1, cpu_v2, memory_v1, memory_v2, percent, value_of};
use super::*;

const HYBRID: &str = "\
30 24 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/pids ro,relatime - cgroup cgroup rw,pids
34 30 0:30 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
35 30 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
36 30 0:28 / /mnt/other\\040memory rw,relatime - cgroup cgroup rw,freezer
37 24 0:32 / /proc rw - proc proc rw
garbage
";

fn at(path: &str) -> PathBuf {
    PathBuf::from(path)
}

#[test]
fn the_mount_table_tells_what_there_is() {
    let root = Path::new("/sys/fs/cgroup");
    let want = Layout {
        unified: Some(at("/sys/fs/cgroup/unified")),
        legacy: vec![
            (Controller::Cpu, at("/sys/fs/cgroup/cpu,cpuacct")),
            (Controller::Cpuacct, at("/sys/fs/cgroup/cpu,cpuacct")),
            (Controller::Memory, at("/sys/fs/cgroup/memory")),
        ],
    };
    assert_eq!(Layout::parse(HYBRID, root), want);
    let v2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    assert_eq!(Layout::parse(v2, root), Layout { unified: Some(at("/sys/fs/cgroup")), legacy: vec![] });
    assert_eq!(Layout::parse("", root), Layout::default());
    assert_eq!(Layout::parse(HYBRID, Path::new("/mnt")).legacy, [(Controller::Freezer, at("/mnt/other memory"))]);
}

#[test]
fn resources_become_limits() {
    let mb = |mb: u64| Some(mb << 20);
    for (memory_mb, memory_max_mb, hard, soft) in
        [(32, 0, mb(32), None), (32, 64, mb(64), mb(32)), (32, -1, None, mb(32)), (0, 0, None, None), (0, 64, mb(64), None)]
    {
        let limits = Limits::of(&Resources { cpu_mhz: 100, memory_mb, memory_max_mb }, 512);
        assert_eq!((limits.memory_hard_bytes, limits.memory_soft_bytes), (hard, soft), "{memory_mb} {memory_max_mb}");
    }
}

#[test]
fn weights_of_shares() {
    for (shares, want) in
        [(0, 1), (2, 1), (50, 10), (100, 17), (250, 34), (500, 58), (1000, 99), (1024, 100), (2000, 170), (4000, 297), (u32::MAX, 10_000)]
    {
        assert_eq!(v2::weight(shares), want, "{shares}");
    }
}

fn lines(plan: Vec<Setting>) -> Vec<String> {
    plan.into_iter().map(|s| format!("{}={}{}", s.file, s.value, if s.is_optional { " ?" } else { "" })).collect()
}

#[test]
fn plans() {
    let limits = Limits { cpu_mhz: 1, memory_hard_bytes: Some(64 << 20), memory_soft_bytes: Some(32 << 20), pids_max: 512 };
    assert_eq!(
        lines(v1::plan(&limits)),
        [
            "cpu.shares=2",
            "memory.memsw.limit_in_bytes=-1 ?",
            "memory.limit_in_bytes=67108864",
            "memory.memsw.limit_in_bytes=67108864 ?",
            "memory.soft_limit_in_bytes=33554432 ?",
            "memory.swappiness=0 ?",
            "pids.max=512",
        ]
    );
    assert_eq!(
        lines(v2::plan(&limits)),
        ["cpu.weight=1", "memory.max=67108864", "memory.low=33554432 ?", "memory.swap.max=0 ?", "pids.max=512"]
    );
    assert_eq!(lines(v2::plan(&Limits::default())), ["memory.max=max", "memory.low=0 ?", "memory.swap.max=0 ?"]);
}

/// A folder of this test alone, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cgroup-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("scratch folder");
        Self(path)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().expect("below scratch")).expect("folder");
        fs::write(path, text).expect("file");
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).expect("file")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const ALLOC: &str = "29fbd40e-dc6c-9f86-343d-95c29ddd20f9";

/// A v2 tree as the kernel would fill it: the groups exist, their files are plain files.
fn fake_v2(name: &str, controllers: &str) -> (Scratch, Tree, AllocId) {
    let scratch = Scratch::new(name);
    scratch.write("cgroup.controllers", controllers);
    let task = format!("nomad.slice/share.slice/{ALLOC}.web.scope");
    for folder in ["", "nomad.slice/", "nomad.slice/share.slice/"] {
        scratch.write(&format!("{folder}cgroup.subtree_control"), "");
    }
    for file in ["cpu.weight", "memory.max", "memory.low", "pids.max", "cgroup.procs", "memory.swap.max"] {
        scratch.write(&format!("{task}/{file}"), "");
    }
    let mountinfo = format!("30 24 0:26 / {} rw - cgroup2 cgroup2 rw\n", scratch.0.display());
    let tree = Tree::open(Layout::parse(&mountinfo, &scratch.0), "nomad.slice");
    (scratch, tree, AllocId::parse(ALLOC).expect("an id"))
}

#[test]
fn v2_limits_land_in_the_files_of_the_controllers_there_are() {
    let (scratch, tree, alloc) = fake_v2("limits", "cpuset cpu io pids\n");
    assert_eq!(tree.mode(), Mode::V2);
    assert_eq!(tree.parent(), "nomad.slice");
    assert_eq!((tree.has(Controller::Cpu), tree.has(Controller::Memory), tree.has(Controller::Pids)), (true, false, true));
    let limits = Limits { cpu_mhz: 100, memory_hard_bytes: Some(1 << 20), memory_soft_bytes: None, pids_max: 9 };
    let place = tree.create(alloc, "web", &limits).expect("created");
    assert_eq!(place.unified, Some(scratch.0.join(format!("nomad.slice/share.slice/{ALLOC}.web.scope"))));
    assert_eq!(tree.shims(), Some(scratch.0.join("nomad.slice/shims.slice")));
    let task = format!("nomad.slice/share.slice/{ALLOC}.web.scope");
    assert_eq!(scratch.read(&format!("{task}/cpu.weight")), "17");
    assert_eq!(scratch.read(&format!("{task}/pids.max")), "9");
    assert_eq!(scratch.read(&format!("{task}/memory.max")), "", "no memory controller, nothing written");
    assert_eq!(tree.oom_file(&place), None);
    assert_eq!(tree.tasks(), [(alloc, "web".to_owned())]);
}

#[test]
fn a_limit_that_cannot_be_set_is_an_error_that_names_the_file() {
    let (scratch, tree, alloc) = fake_v2("refused", "memory");
    let file = format!("nomad.slice/share.slice/{ALLOC}.web.scope/memory.max");
    fs::remove_file(scratch.0.join(&file)).expect("there");
    let error = tree.create(alloc, "web", &Limits::default()).expect_err("no such file");
    assert_eq!(error.path, scratch.0.join(&file));
    // An optional one is not.
    scratch.write(&file, "");
    fs::remove_file(scratch.0.join(format!("nomad.slice/share.slice/{ALLOC}.web.scope/memory.low"))).expect("there");
    tree.create(alloc, "web", &Limits::default()).expect("created");
}

#[test]
fn v2_samples() {
    let (scratch, tree, alloc) = fake_v2("sample", "cpu memory pids");
    let task = format!("nomad.slice/share.slice/{ALLOC}.web.scope");
    scratch.write(&format!("{task}/memory.stat"), "anon 100\nfile 200\nfile_mapped 50\n");
    scratch.write(&format!("{task}/memory.current"), "400\n");
    scratch.write(&format!("{task}/memory.events"), "low 0\noom 2\noom_kill 3\noom_group_kill 0\n");
    scratch.write(&format!("{task}/cpu.stat"), "usage_usec 30\nuser_usec 20\nsystem_usec 10\n");
    let Sample { memory, cpu, pids } = tree.sample(alloc, "web", 0).expect("sample");
    assert_eq!((memory.rss, memory.cache, memory.mapped_file, memory.usage, memory.max_usage), (100, 200, 50, 400, 0));
    assert_eq!(memory.measured, ["RSS", "Cache", "Swap", "Usage"]);
    assert_eq!((cpu.total_ns, cpu.user_ns, cpu.system_ns), (30_000, 20_000, 10_000));
    assert!(pids.is_empty());
    assert_eq!(tree.oom_kills(alloc, "web"), Some(3));
}

#[test]
fn v1_texts() {
    let memory: BTreeMap<&str, &str> = BTreeMap::from([
        ("memory.stat", "cache 10\nrss 20\nrss_huge 99\nmapped_file 30\nswap 40\ntotal_rss 77\n"),
        ("memory.usage_in_bytes", "50\n"),
        ("memory.max_usage_in_bytes", "60\n"),
        ("memory.kmem.usage_in_bytes", "70\n"),
        ("memory.kmem.max_usage_in_bytes", "80\n"),
    ]);
    let read = |file: &str| memory.get(file).map(ToString::to_string);
    let want = Memory {
        rss: 20,
        cache: 10,
        swap: 40,
        mapped_file: 30,
        usage: 50,
        max_usage: 60,
        kernel_usage: 70,
        kernel_max_usage: 80,
        measured: &["RSS", "Cache", "Swap", "Usage", "Max Usage", "Kernel Usage", "Kernel Max Usage"],
    };
    assert_eq!(memory_v1(read), Some(want));
    assert_eq!(memory_v1(|_| None), None);
    assert_eq!(memory_v2(|_| None), None);

    let cpuacct = |file: &str| match file {
        "cpuacct.stat" => Some("user 3\nsystem 4\n".to_owned()),
        "cpuacct.usage" => Some("75000000\n".to_owned()),
        _ => None,
    };
    let cpu = |file: &str| (file == "cpu.stat").then(|| "nr_periods 9\nnr_throttled 5\nthrottled_time 6\n".to_owned());
    let want = Cpu {
        user_ns: 30_000_000,
        system_ns: 40_000_000,
        total_ns: 75_000_000,
        throttled_periods: 5,
        throttled_ns: 6,
        measured: &["System Mode", "User Mode", "Throttled Periods", "Throttled Time", "Percent"],
    };
    assert_eq!(cpu_v1(cpuacct, cpu), Some(want));
    assert_eq!(cpu_v2(|_| Some("nothing useful\n".to_owned())), None);
}

#[test]
fn lines_and_percentages() {
    for (text, key, want) in [
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "oom_kill", Some(2)),
        ("oom_kill 2", "oom_kill", Some(2)),
        ("oom_kill x\n", "oom_kill", None),
        ("", "oom_kill", None),
    ] {
        assert_eq!(value_of(text, key), want, "{text}");
    }
    for (before, after, elapsed, want) in [(0, 5, 0, 0.0), (10, 35, 100, 25.0), (10, 410, 100, 400.0), (10, 5, 100, 0.0)] {
        assert!((percent(before, after, elapsed) - want).abs() < 1e-9);
    }
}

#[test]
fn long_member_lists_are_read_whole() {
    let scratch = Scratch::new("members");
    let want: Vec<u32> = (1..=5_000).map(|n| n * 7).collect();
    scratch.write("cgroup.procs", &want.iter().map(|pid| format!("{pid}\n")).chain(["0\n".to_owned()]).collect::<String>());
    let dir = open_folder(&scratch.0).expect("open").expect("there");
    let mut got = Vec::new();
    for_each_member(dir.as_fd(), |pid| got.push(pid)).expect("read");
    assert_eq!(got, want);
    scratch.write("cgroup.procs", "12");
    got.clear();
    for_each_member(dir.as_fd(), |pid| got.push(pid)).expect("read");
    assert_eq!(got, [12]);
}

#[test]
fn no_groups_is_a_mode() {
    let tree = Tree::none();
    let alloc = AllocId([1; 16]);
    assert_eq!((tree.mode(), tree.mode().version(), tree.parent().as_str()), (Mode::None, None, ""));
    assert_eq!(tree.create(alloc, "t", &Limits::default()).expect("nothing to do"), Place::default());
    assert_eq!(tree.kill(alloc, "t").expect("nothing to kill"), 0);
    assert_eq!(tree.remove(alloc, "t").expect("nothing to remove"), Removed::Gone);
    let sample = tree.sample(alloc, "t", std::process::id()).expect("own children");
    assert_eq!(sample.memory.measured, ["RSS", "Swap"]);
    assert_eq!(sample.cpu.measured, ["System Mode", "User Mode", "Percent"]);
    assert_eq!(tree.oom_kills(alloc, "t"), None);
}
