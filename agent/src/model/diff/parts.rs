//! Which members of a job's JSON are blocks, and how each is named, matched and compared. Anything else is a plain field.

/// One member that is not a plain field.
pub(super) struct Part {
    /// Its key.
    pub member: &'static str,
    /// What the difference is called.
    pub name: &'static str,
    /// Fields that are not compared.
    pub skip: &'static [&'static str],
    /// How it is compared.
    pub how: How,
}

/// How a member is compared.
pub(super) enum How {
    /// A set of texts.
    Texts,
    /// A document nobody here looks into: all its leaves are fields.
    Leaves,
    /// Its lists as one text each.
    Joined,
    /// Blocks of plain fields: what became of one follows from what became of its fields.
    Plain(Match),
    /// Blocks with blocks inside: what became of one follows from where it is.
    Blocks(Match, &'static [Part]),
}

/// Which old block became which new one.
pub(super) enum Match {
    /// There is at most one.
    Only,
    /// Those with the same text in this member; where it is empty, those that are the same.
    Key(&'static str),
    /// Those with the same key in their map.
    Entry,
    /// Those at the same place.
    Place,
    /// The likest: points for each member that is the same (one more for the same place with `by_place`); 3 at least.
    Likest {
        /// A point for the same place.
        by_place: bool,
        /// Points for members.
        members: &'static [(&'static str, u8)],
    },
}

/// Members that are maps of texts.
pub(super) const MAPS: &[&str] = &["CanaryMeta", "Env", "GetterHeaders", "GetterOptions", "Meta"];

const fn plain(member: &'static str, name: &'static str) -> Part {
    Part { member, name, skip: &[], how: How::Plain(Match::Only) }
}

const fn set(member: &'static str, name: &'static str) -> Part {
    Part { member, name, skip: &[], how: How::Plain(Match::Key("")) }
}

const fn texts(member: &'static str) -> Part {
    Part { member, name: member, skip: &[], how: How::Texts }
}

const fn leaves(member: &'static str) -> Part {
    Part { member, name: member, skip: &[], how: How::Leaves }
}

const fn blocks(member: &'static str, name: &'static str, by: Match, parts: &'static [Part]) -> Part {
    Part { member, name, skip: &[], how: How::Blocks(by, parts) }
}

pub(super) const JOB_SKIP: &[&str] = &[
    "CreateIndex",
    "ID",
    "JobModifyIndex",
    "ModifyIndex",
    "NomadTokenID",
    "Payload",
    "Stable",
    "Status",
    "StatusDescription",
    "SubmitTime",
    "VaultToken",
    "Version",
];

pub(super) const JOB: &[Part] = &[
    texts("Datacenters"),
    set("Constraints", "Constraint"),
    set("Affinities", "Affinity"),
    blocks("Periodic", "Periodic", Match::Only, &[]),
    blocks("ParameterizedJob", "ParameterizedJob", Match::Only, &[texts("MetaOptional"), texts("MetaRequired")]),
];

pub(super) const GROUP_SKIP: &[&str] = &["MaxClientDisconnect", "Name", "StopAfterClientDisconnect"];

pub(super) const GROUP: &[Part] = &[
    set("Constraints", "Constraint"),
    set("Affinities", "Affinity"),
    plain("RestartPolicy", "RestartPolicy"),
    plain("Migrate", "Migrate"),
    plain("ReschedulePolicy", "ReschedulePolicy"),
    plain("EphemeralDisk", "EphemeralDisk"),
    plain("Consul", "Consul"),
    Part { skip: &["Stagger"], ..plain("Update", "Update") },
    NETWORKS,
    Part { skip: &["CreateIndex", "ID", "ModifyIndex", "Type"], ..blocks("Scaling", "Scaling", Match::Only, &[leaves("Policy")]) },
    SERVICES,
    blocks("Volumes", "Volume", Match::Entry, &[]),
];

pub(super) const TASK_SKIP: &[&str] = &["Name"];

pub(super) const TASK: &[Part] = &[
    set("Constraints", "Constraint"),
    set("Affinities", "Affinity"),
    leaves("Config"),
    blocks("Resources", "Resources", Match::Only, &[NETWORKS, blocks("Devices", "Device", Match::Key("Name"), &[])]),
    plain("LogConfig", "LogConfig"),
    plain("DispatchPayload", "DispatchPayload"),
    Part { how: How::Plain(Match::Key("RelativeDest")), ..set("Artifacts", "Artifact") },
    SERVICES,
    // Upstream calls what is inside a template a template, too.
    blocks(
        "Templates",
        "Template",
        Match::Likest { by_place: false, members: &[("DestPath", 3)] },
        &[blocks("Wait", "Template", Match::Only, &[])],
    ),
    blocks("VolumeMounts", "VolumeMount", Match::Place, &[]),
];

/// Never edited: networks are a set.
const NETWORKS: Part = Part {
    skip: &["CIDR", "Device", "IP", "MBits"],
    ..blocks(
        "Networks",
        "Network",
        Match::Key(""),
        &[
            Part { how: How::Plain(Match::Key("Label")), ..set("ReservedPorts", "Static Port") },
            Part { how: How::Plain(Match::Key("Label")), skip: &["Value"], ..set("DynamicPorts", "Dynamic Port") },
            Part { how: How::Joined, ..leaves("DNS") },
        ],
    )
};

const SERVICES: Part = blocks(
    "Services",
    "Service",
    Match::Likest { by_place: true, members: &[("PortLabel", 2), ("Name", 3)] },
    &[
        texts("CanaryTags"),
        texts("Tags"),
        blocks("Checks", "Check", Match::Key("Name"), &[leaves("Header"), blocks("CheckRestart", "CheckRestart", Match::Only, &[])]),
    ],
);
