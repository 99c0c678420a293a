//! Jobs as the scenario draws them: a shape that can be changed a little, and the JSON that is posted.

use dunlin_tests::world::dice::Dice;

/// A job.
#[derive(Clone, Debug)]
pub struct Job {
    /// `service`, `batch`, `system`, `sysbatch`.
    pub kind: &'static str,
    /// 1..=100.
    pub priority: u64,
    /// Its groups.
    pub groups: Vec<Group>,
    /// Further members of the job.
    pub more: &'static str,
}

/// A group.
#[derive(Clone, Debug)]
pub struct Group {
    name: &'static str,
    /// How many.
    pub count: u64,
    attempts: u64,
    interval_s: u64,
    delay_ms: u64,
    mode: &'static str,
    dynamic_ports: u64,
    static_port: Option<u64>,
    /// `Update` and `ReschedulePolicy` as JSON members, or nothing.
    update: String,
    reschedule: String,
    tasks: Vec<Task>,
}

#[derive(Clone, Debug)]
struct Task {
    name: &'static str,
    /// Empty = a main task.
    hook: &'static str,
    is_sidecar: bool,
    is_leader: bool,
    temper: String,
    revision: u64,
    cpu: u64,
    memory_mb: u64,
    kill_timeout_ms: u64,
    shutdown_delay_ms: u64,
}

const KINDS: [&str; 7] = ["service", "service", "service", "batch", "batch", "batch", "system"];

impl Job {
    /// A new job.
    pub fn draw(dice: &mut Dice) -> Self {
        let kind = *dice.pick(&KINDS);
        Self::of(kind, dice)
    }

    /// Another job of a type.
    pub fn of(kind: &'static str, dice: &mut Dice) -> Self {
        let n = if dice.percent(75) { 1 } else { 2 };
        let groups = ["g", "h"].into_iter().take(n).map(|name| Group::draw(name, kind, dice)).collect();
        Self { kind, priority: dice.between(1, 100), groups, more: "" }
    }

    /// A job that a clock launches.
    pub fn periodic(dice: &mut Dice) -> Self {
        let more = *dice.pick(&[
            r#""Periodic":{"Enabled":true,"SpecType":"cron","Spec":"* * * * *"},"#,
            r#""Periodic":{"Enabled":true,"SpecType":"cron","Spec":"*/2 * * * *","ProhibitOverlap":true},"#,
        ]);
        Self { more, ..Self::of("batch", dice) }
    }

    /// A job that is dispatched.
    pub fn parameterized(dice: &mut Dice) -> Self {
        Self { more: r#""ParameterizedJob":{"Payload":"optional"},"#, ..Self::of("batch", dice) }
    }

    /// A deployment of it may take it back to an older version.
    pub fn may_go_back(&self) -> bool {
        self.groups.iter().any(|group| group.update.contains(r#""AutoRevert":true"#))
    }

    /// The same job with something changed: nothing a task notices, a count, a task, or anything.
    pub fn change(&mut self, dice: &mut Dice) {
        let at = dice.below(self.groups.len() as u64) as usize;
        match dice.below(10) {
            0..=1 => self.priority = dice.between(1, 100),
            2..=4 if self.kind == "service" || self.kind == "batch" => self.groups[at].count = dice.below(4),
            5..=7 => {
                let group = &mut self.groups[at];
                let task = dice.below(group.tasks.len() as u64) as usize;
                group.tasks[task].revision += 1;
                let (kind, hook, is_sidecar) = (self.kind, group.tasks[task].hook, group.tasks[task].is_sidecar);
                group.tasks[task].temper = temper(kind, hook, is_sidecar, dice);
            }
            8 => {
                if let Some(group) = self.groups.get_mut(at) {
                    group.restart(dice);
                }
            }
            _ => {
                let name = self.groups[at].name;
                self.groups[at] = Group::draw(name, self.kind, dice);
            }
        }
    }

    /// What is posted.
    pub fn json(&self, id: &str, tag: u64) -> String {
        let groups: Vec<String> = self.groups.iter().map(Group::json).collect();
        format!(
            r#"{{"Job":{{"ID":"{id}","Type":"{}","Priority":{},"Datacenters":["dc1"],{}"Meta":{{"write":"{tag}"}},"TaskGroups":[{}]}}}}"#,
            self.kind,
            self.priority,
            self.more,
            groups.join(",")
        )
    }
}

impl Group {
    fn draw(name: &'static str, kind: &str, dice: &mut Dice) -> Self {
        let count = match kind {
            "system" | "sysbatch" => 1,
            _ if dice.percent(10) => 0,
            _ => dice.between(1, 3),
        };
        let mut tasks = vec![Task::draw("main", kind, "", false, dice)];
        if dice.percent(15) {
            tasks.push(Task::draw("second", kind, "", false, dice));
        }
        if dice.percent(12) {
            tasks.push(Task::draw("prepare", kind, "prestart", false, dice));
        }
        if dice.percent(8) {
            tasks.push(Task::draw("beside", kind, "prestart", true, dice));
        }
        if dice.percent(6) {
            tasks.push(Task::draw("after", kind, "poststart", false, dice));
        }
        if dice.percent(8) {
            tasks.push(Task::draw("last", kind, "poststop", false, dice));
        }
        if tasks.len() > 1 && dice.percent(20) {
            tasks[0].is_leader = true;
        }
        let mut group = Self {
            name,
            count,
            attempts: 0,
            interval_s: 0,
            delay_ms: 0,
            mode: "",
            dynamic_ports: if dice.percent(30) { dice.between(1, 2) } else { 0 },
            static_port: dice.percent(10).then(|| 8_080 + dice.below(3)),
            update: if kind == "service" { update(count, dice) } else { String::new() },
            reschedule: if kind == "system" { String::new() } else { reschedule(dice) },
            tasks,
        };
        group.restart(dice);
        group
    }

    fn restart(&mut self, dice: &mut Dice) {
        self.attempts = dice.below(4);
        self.interval_s = dice.between(5, 60);
        self.delay_ms = *dice.pick(&[0, 50, 500, 1_500]);
        self.mode = if self.attempts > 0 && dice.percent(40) { "delay" } else { "fail" };
    }

    fn json(&self) -> String {
        let Self { name, count, attempts, interval_s, delay_ms, mode, .. } = self;
        let tasks: Vec<String> = self.tasks.iter().map(Task::json).collect();
        let dynamic: Vec<String> = (0..self.dynamic_ports).map(|n| format!(r#"{{"Label":"p{n}"}}"#)).collect();
        let fixed = self.static_port.map_or(String::new(), |port| format!(r#"{{"Label":"s","Value":{port}}}"#));
        let networks = if self.dynamic_ports > 0 || self.static_port.is_some() {
            format!(r#""Networks":[{{"Mode":"host","DynamicPorts":[{}],"ReservedPorts":[{fixed}]}}],"#, dynamic.join(","))
        } else {
            String::new()
        };
        format!(
            r#"{{"Name":"{name}","Count":{count},{networks}{}{}"RestartPolicy":{{"Attempts":{attempts},"Interval":{},"Delay":{},"Mode":"{mode}"}},"EphemeralDisk":{{"SizeMB":10}},"Tasks":[{}]}}"#,
            self.update,
            self.reschedule,
            interval_s * 1_000_000_000,
            delay_ms * 1_000_000,
            tasks.join(",")
        )
    }
}

/// How versions of a group follow each other.
fn update(count: u64, dice: &mut Dice) -> String {
    if dice.percent(35) {
        return r#""Update":{"MaxParallel":0},"#.to_owned();
    }
    let healthy_s = *dice.pick(&[0, 1, 10]);
    let deadline_s = *dice.pick(&[15, 60]);
    let progress_s = *dice.pick(&[0, 120, 600]);
    let canary = if dice.percent(20) { dice.between(1, count.max(1)) } else { 0 };
    let promotes = canary > 0 && dice.percent(60);
    format!(
        r#""Update":{{"MaxParallel":{},"MinHealthyTime":{},"HealthyDeadline":{},"ProgressDeadline":{},"AutoRevert":{},"AutoPromote":{promotes},"Canary":{canary}}},"#,
        dice.between(1, 3),
        healthy_s * 1_000_000_000u64,
        deadline_s * 1_000_000_000u64,
        progress_s * 1_000_000_000u64,
        dice.percent(25),
    )
}

/// What follows a failed allocation.
fn reschedule(dice: &mut Dice) -> String {
    match dice.below(4) {
        0 => String::new(),
        1 => r#""ReschedulePolicy":{"Attempts":0,"Unlimited":false},"#.to_owned(),
        2 => {
            r#""ReschedulePolicy":{"Attempts":2,"Interval":600000000000,"Delay":5000000000,"DelayFunction":"constant","Unlimited":false},"#
                .to_owned()
        }
        _ => {
            r#""ReschedulePolicy":{"Attempts":0,"Unlimited":true,"Delay":5000000000,"DelayFunction":"exponential","MaxDelay":60000000000},"#
                .to_owned()
        }
    }
}

impl Task {
    fn draw(name: &'static str, kind: &str, hook: &'static str, is_sidecar: bool, dice: &mut Dice) -> Self {
        Self {
            name,
            hook,
            is_sidecar,
            is_leader: false,
            temper: temper(kind, hook, is_sidecar, dice),
            revision: 0,
            cpu: *dice.pick(&[10, 50, 200, 900]),
            memory_mb: *dice.pick(&[10, 10, 16, 40, 90]),
            kill_timeout_ms: *dice.pick(&[100, 500, 2_000, 5_000]),
            shutdown_delay_ms: if dice.percent(10) { dice.between(100, 3_000) } else { 0 },
        }
    }

    fn json(&self) -> String {
        let Self { name, temper, revision, cpu, memory_mb, kill_timeout_ms, shutdown_delay_ms, .. } = self;
        let lifecycle = match self.hook {
            "" => String::new(),
            hook => format!(r#""Lifecycle":{{"Hook":"{hook}","Sidecar":{}}},"#, self.is_sidecar),
        };
        format!(
            r#"{{"Name":"{name}","Driver":"raw_exec",{lifecycle}"Leader":{},"Config":{{"command":"/bin/x"}},"Env":{{"TEMPER":"{temper}","REVISION":"{revision}"}},"KillTimeout":{},"ShutdownDelay":{},"LogConfig":{{"MaxFiles":1,"MaxFileSizeMB":1}},"Resources":{{"CPU":{cpu},"MemoryMB":{memory_mb}}}}}"#,
            self.is_leader,
            kill_timeout_ms * 1_000_000,
            shutdown_delay_ms * 1_000_000
        )
    }
}

/// What a task of this kind may be like.
fn temper(kind: &str, hook: &str, is_sidecar: bool, dice: &mut Dice) -> String {
    let is_finite = match hook {
        "" => kind == "batch" || kind == "sysbatch",
        _ => !is_sidecar,
    };
    let mut words = Vec::new();
    if is_finite {
        words.push("finite".to_owned());
    }
    if is_finite || dice.percent(35) {
        let after_ms = match dice.below(4) {
            0 => dice.below(20),
            1 => dice.between(20, 1_000),
            2 => dice.between(1_000, 20_000),
            _ => dice.between(20_000, 600_000),
        };
        let is_good = dice.percent(if is_finite { 75 } else { 30 });
        words.push(match dice.percent(60) {
            _ if is_good => format!("ends:{after_ms}:0"),
            true => format!("ends:{after_ms}:{}", dice.between(1, 255)),
            false => format!("dies:{after_ms}:{}", dice.pick(&[6, 9, 11])),
        });
    }
    if dice.percent(85) {
        words.push(format!("obeys:{}", *dice.pick(&[0, 1, 20, 300, 3_000])));
    }
    if dice.percent(4) {
        words.push(format!("noexec:{}", *dice.pick(&[2, 13, 11, 26])));
    }
    if dice.percent(6) {
        words.push("holds".to_owned());
    }
    if dice.percent(4) {
        words.push(format!("stuck:{}", *dice.pick(&[500, 5_000, 40_000])));
    }
    words.join(" ")
}
