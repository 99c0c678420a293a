//! Every key an agent's configuration may have, as data: block, form, whether it means something here, names.
//!
//! The set is the union of what Nomad 1.3.1, 1.10.5 and 2.0.5 read, plus our own block `edge`. A key of ours that Nomad
//! knows is spelled and nested as there. Matching ignores case, as Nomad's HCL reader does.
//! Source: `command/agent/config.go`, `client/config/*.go`, `nomad/structs/config/*.go` at those tags (names only).

/// What a value may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A string; a number stands for its digits.
    Text,
    /// A whole number, also as a string.
    Number,
    /// A number with or without fraction.
    Share,
    /// `true`, `false`, also as a string.
    Truth,
    /// A list of strings.
    Texts,
    /// An object whose keys are free and whose values are strings.
    Words,
    /// An object with keys of this table; also a list of such objects, which are read in order.
    Block,
    /// An object of blocks whose names are free (`plugin`, `host_volume`).
    Labels,
    /// Free-form.
    Any,
}

/// Whether a key does something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Read.
    Used,
    /// A key of Nomad without meaning here: accepted, and named in one warning.
    Idle,
}

/// One key of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// As Nomad spells it.
    pub name: &'static str,
    /// Form of the value.
    pub form: Form,
    /// Meaning here.
    pub used: Use,
}

use Form::{Any, Block, Labels, Number, Share, Text, Texts, Truth, Words};
use Use::{Idle, Used};

/// (block, form, use, names). `*` in a block stands for any label; the top level is the empty block.
#[rustfmt::skip]
pub(super) const ROWS: &[(&str, Form, Use, &str)] = &[
    ("", Text, Used, "region datacenter name data_dir log_level bind_addr"),
    ("", Truth, Used, "enable_debug"),
    ("", Words, Used, "http_api_response_headers"),
    ("", Block, Used, "ports addresses advertise client acl tls limits edge"),
    ("", Labels, Used, "plugin"),
    ("", Text, Idle, "plugin_dir log_file log_rotate_duration syslog_facility"),
    ("", Number, Idle, "log_rotate_bytes log_rotate_max_files"),
    ("", Truth, Idle, "log_json log_include_location leave_on_interrupt leave_on_terminate enable_syslog disable_update_check \
        disable_anonymous_signature"),
    ("", Block, Idle, "server telemetry consul vault ui autopilot audit rpc reporting eventlog sentinel"),
    ("", Any, Idle, "keyring"),

    ("ports", Number, Used, "http"),
    ("ports", Number, Idle, "rpc serf"),
    ("addresses", Text, Used, "http"),
    ("addresses", Text, Idle, "rpc serf"),
    ("advertise", Text, Used, "http"),
    ("advertise", Text, Idle, "rpc serf"),
    ("limits", Number, Used, "http_max_conns_per_client"),
    ("limits", Number, Idle, "rpc_max_conns_per_client"),
    ("limits", Text, Idle, "https_handshake_timeout rpc_handshake_timeout"),
    ("edge", Text, Used, "runtime_dir"),
    ("edge", Truth, Used, "boot_loop_damping"),
    ("edge", Block, Used, "reserve"),
    ("edge.reserve", Number, Used, "cpu_percent memory_mb disk_mb"),

    ("client", Truth, Used, "enabled"),
    ("client", Text, Used, "state_dir alloc_dir node_class node_pool network_interface reservable_cores max_kill_timeout gc_interval"),
    ("client", Number, Used, "network_speed cpu_total_compute memory_total_mb disk_total_mb disk_free_mb max_dynamic_port \
        min_dynamic_port gc_max_allocs"),
    ("client", Share, Used, "gc_disk_usage_threshold gc_inode_usage_threshold"),
    ("client", Texts, Used, "servers"),
    ("client", Words, Used, "options meta"),
    ("client", Block, Used, "reserved server_join"),
    ("client", Text, Idle, "alloc_mounts_dir host_volumes_dir host_volume_plugin_dir common_plugin_dir preferred_address_family \
        cni_path cni_config_dir bridge_network_name bridge_network_subnet bridge_network_subnet_ipv6 cgroup_parent log_file"),
    ("client", Number, Idle, "client_max_port client_min_port gc_parallel_destroys node_max_allocs"),
    ("client", Truth, Idle, "no_host_uuid disable_remote_exec bind_wildcard_default_host_network nomad_service_discovery \
        cpu_disable_dmidecode gc_volumes_on_node_gc bridge_network_hairpin_mode default_ineligible"),
    ("client", Words, Idle, "chroot_env"),
    ("client", Block, Idle, "template artifact drain_on_shutdown users"),
    ("client", Labels, Idle, "host_volume host_network fingerprint"),
    ("client", Any, Idle, "stats"),
    ("client.reserved", Number, Used, "cpu memory disk"),
    ("client.reserved", Text, Used, "reserved_ports cores"),
    ("client.server_join", Texts, Used, "start_join retry_join"),
    ("client.server_join", Number, Idle, "retry_max"),
    ("client.server_join", Text, Idle, "retry_interval"),
    ("client.host_volume.*", Text, Idle, "path"),
    ("client.host_volume.*", Truth, Idle, "read_only"),
    ("client.host_network.*", Text, Idle, "cidr interface reserved_ports"),
    ("client.fingerprint.*", Text, Idle, "retry_interval"),
    ("client.fingerprint.*", Number, Idle, "retry_attempts"),
    ("client.fingerprint.*", Truth, Idle, "exit_on_failure"),
    ("client.template", Texts, Idle, "function_denylist function_blacklist"),
    ("client.template", Truth, Idle, "disable_file_sandbox use_client_consul_token"),
    ("client.template", Text, Idle, "max_stale block_query_wait vault_default_lease_duration"),
    ("client.template", Block, Idle, "wait wait_bounds consul_retry vault_retry nomad_retry"),
    ("client.template.wait", Text, Idle, "min max"),
    ("client.template.wait_bounds", Text, Idle, "min max"),
    ("client.template.consul_retry", Text, Idle, "backoff max_backoff"),
    ("client.template.consul_retry", Number, Idle, "attempts"),
    ("client.template.vault_retry", Text, Idle, "backoff max_backoff"),
    ("client.template.vault_retry", Number, Idle, "attempts"),
    ("client.template.nomad_retry", Text, Idle, "backoff max_backoff"),
    ("client.template.nomad_retry", Number, Idle, "attempts"),
    ("client.artifact", Text, Idle, "http_read_timeout http_max_size gcs_timeout git_timeout hg_timeout s3_timeout \
        decompression_size_limit set_environment_variables"),
    ("client.artifact", Number, Idle, "decompression_file_count_limit"),
    ("client.artifact", Truth, Idle, "disable_artifact_inspection disable_filesystem_isolation"),
    ("client.artifact", Texts, Idle, "filesystem_isolation_extra_paths"),
    ("client.drain_on_shutdown", Text, Idle, "deadline"),
    ("client.drain_on_shutdown", Truth, Idle, "ignore_system_jobs force"),
    ("client.users", Number, Idle, "dynamic_user_min dynamic_user_max"),

    ("plugin.raw_exec", Block, Used, "config"),
    ("plugin.raw_exec", Texts, Idle, "args"),
    ("plugin.raw_exec.config", Truth, Used, "enabled"),
    ("plugin.raw_exec.config", Truth, Idle, "no_cgroups"),
    ("plugin.raw_exec.config", Text, Idle, "denied_host_uids denied_host_gids"),
    ("plugin.raw_exec.config", Texts, Idle, "denied_envvars"),
    ("plugin.*", Any, Idle, "config"),
    ("plugin.*", Texts, Idle, "args"),

    ("acl", Truth, Used, "enabled"),
    ("acl", Text, Idle, "token_ttl policy_ttl role_ttl replication_token token_min_expiration_ttl token_max_expiration_ttl"),
    ("tls", Truth, Used, "http verify_https_client"),
    ("tls", Text, Used, "ca_file cert_file key_file"),
    ("tls", Truth, Idle, "rpc verify_server_hostname rpc_upgrade_mode tls_prefer_server_cipher_suites"),
    ("tls", Text, Idle, "tls_cipher_suites tls_min_version"),

    ("server", Truth, Idle, "enabled rejoin_after_leave non_voting_server enable_event_broker non_production"),
    ("server", Text, Used, "job_gc_threshold eval_gc_threshold deployment_gc_threshold"),
    ("server", Text, Idle, "authoritative_region data_dir node_gc_threshold job_gc_interval \
        csi_volume_claim_gc_threshold csi_volume_claim_gc_interval csi_plugin_gc_threshold heartbeat_grace \
        min_heartbeat_ttl failover_heartbeat_ttl retry_interval redundancy_zone upgrade_version encrypt license_path \
        batch_eval_gc_threshold acl_token_gc_threshold root_key_gc_interval root_key_gc_threshold root_key_rotation_threshold \
        raft_snapshot_interval job_max_source_size oidc_issuer start_timeout log_file"),
    ("server", Number, Idle, "bootstrap_expect protocol_version raft_protocol raft_multiplier num_schedulers retry_max \
        event_buffer_size raft_snapshot_threshold raft_trailing_logs job_default_priority job_max_priority job_tracked_versions \
        job_max_count plan_apply_pipeline"),
    ("server", Share, Idle, "max_heartbeats_per_second deploy_query_rate_limit"),
    ("server", Texts, Idle, "enabled_schedulers start_join retry_join"),
    ("server", Block, Idle, "server_join search raft_boltdb plan_rejection_tracker client_introduction"),
    ("server", Any, Idle, "default_scheduler_config raft_logstore"),
    ("server.server_join", Texts, Idle, "start_join retry_join"),
    ("server.server_join", Number, Idle, "retry_max"),
    ("server.server_join", Text, Idle, "retry_interval"),
    ("server.search", Truth, Idle, "fuzzy_enabled"),
    ("server.search", Number, Idle, "limit_query limit_results min_term_length"),
    ("server.raft_boltdb", Truth, Idle, "no_freelist_sync"),
    ("server.plan_rejection_tracker", Truth, Idle, "enabled"),
    ("server.plan_rejection_tracker", Number, Idle, "node_threshold"),
    ("server.plan_rejection_tracker", Text, Idle, "node_window"),
    ("server.client_introduction", Text, Idle, "enforcement default_identity_ttl max_identity_ttl"),

    ("telemetry", Text, Idle, "statsite_address statsd_address datadog_address collection_interval in_memory_collection_interval \
        in_memory_retention_period circonus_api_token circonus_api_app circonus_api_url circonus_submission_interval \
        circonus_submission_url circonus_check_id circonus_check_force_metric_activation circonus_check_instance_id \
        circonus_check_search_tag circonus_check_tags circonus_check_display_name circonus_broker_id circonus_broker_select_tag"),
    ("telemetry", Truth, Idle, "prometheus_metrics disable_hostname use_node_name publish_allocation_metrics publish_node_metrics \
        filter_default disable_dispatched_job_summary_metrics include_alloc_metadata_in_metrics disable_quota_utilization_metrics \
        disable_rpc_rate_metrics_labels disable_allocation_hook_metrics"),
    ("telemetry", Texts, Idle, "datadog_tags prefix_filter allowed_metadata_keys_in_metrics"),

    ("consul", Text, Idle, "name server_service_name server_http_check_name server_serf_check_name server_rpc_check_name \
        client_service_name client_http_check_name address grpc_address timeout token auth grpc_ca_file ca_file cert_file key_file \
        namespace service_auth_method task_auth_method"),
    ("consul", Number, Idle, "server_failures_before_critical server_failures_before_warning client_failures_before_critical \
        client_failures_before_warning"),
    ("consul", Truth, Idle, "auto_advertise checks_use_advertise allow_unauthenticated ssl share_ssl verify_ssl server_auto_join \
        client_auto_join"),
    ("consul", Texts, Idle, "tags"),
    ("consul", Any, Idle, "service_identity task_identity"),
    ("vault", Text, Idle, "name token create_from_role namespace task_token_ttl address ca_file ca_path cert_file key_file \
        tls_server_name jwt_auth_backend_path"),
    ("vault", Truth, Idle, "enabled allow_unauthenticated tls_skip_verify"),
    ("vault", Any, Idle, "default_identity"),

    ("ui", Truth, Idle, "enabled show_cli_hints"),
    ("ui", Block, Idle, "consul vault label content_security_policy"),
    ("ui.consul", Text, Idle, "ui_url"),
    ("ui.vault", Text, Idle, "ui_url"),
    ("ui.label", Text, Idle, "text background_color text_color"),
    ("ui.content_security_policy", Texts, Idle, "connect_src default_src form_action frame_ancestors img_src script_src style_src"),
    ("autopilot", Truth, Idle, "cleanup_dead_servers enable_redundancy_zones disable_upgrade_migration enable_custom_upgrades"),
    ("autopilot", Text, Idle, "server_stabilization_time last_contact_threshold"),
    ("autopilot", Number, Idle, "max_trailing_logs min_quorum"),
    ("audit", Truth, Idle, "enabled"),
    ("audit", Any, Idle, "sink filter"),
    ("sentinel", Any, Idle, "import additional_enabled_modules"),
    ("rpc", Number, Idle, "accept_backlog"),
    ("rpc", Text, Idle, "keep_alive_interval connection_write_timeout stream_open_timeout stream_close_timeout dial_timeout"),
    ("reporting", Text, Idle, "address export_interval snapshot_retention_time"),
    ("reporting", Truth, Idle, "disable_product_usage_reporting"),
    ("reporting", Block, Idle, "license"),
    ("reporting.license", Truth, Idle, "enabled"),
    ("eventlog", Truth, Idle, "enabled"),
    ("eventlog", Text, Idle, "level"),
];

/// The keys of one block of the table.
pub fn keys(block: &str) -> impl Iterator<Item = Key> {
    let rows = ROWS.iter().filter(move |row| row.0 == block);
    rows.flat_map(|&(_, form, used, names)| names.split_ascii_whitespace().map(move |name| Key { name, form, used }))
}

/// The table's block for a label below `parent`: a block of its own (`plugin.raw_exec`), else that for any label.
pub fn labelled(parent: &str, label: &str) -> String {
    let own = format!("{parent}.{label}");
    if keys(&own).next().is_some() { own } else { format!("{parent}.*") }
}

/// Blocks that have a key of exactly this name, in the order of the table.
pub fn blocks_with(name: &str) -> impl Iterator<Item = &'static str> {
    ROWS.iter().filter(move |row| row.3.split_ascii_whitespace().any(|key| key.eq_ignore_ascii_case(name))).map(|row| row.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_twice_and_every_block_has_a_parent() {
        for row in ROWS {
            let mut names: Vec<_> = keys(row.0).map(|key| key.name).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "a key of {:?} stands twice", row.0);
            if let Some((parent, name)) = row.0.rsplit_once('.') {
                let labels = keys(parent).any(|key| key.name == name && key.form == Form::Block);
                let parent_labels = parent.rsplit_once('.').map_or(("", parent), |(block, name)| (block, name));
                let label = keys(parent_labels.0).any(|key| key.name == parent_labels.1 && key.form == Form::Labels);
                assert!(labels || label, "{}", row.0);
            } else if !row.0.is_empty() {
                assert!(keys("").any(|key| key.name == row.0 && key.form == Form::Block), "{}", row.0);
            }
        }
    }

    /// What an operator may set stands in the documentation, and nothing else does.
    #[test]
    fn documented() {
        let used = |row: &&(&str, Form, Use, &str)| row.2 == Use::Used && !matches!(row.1, Block | Labels);
        let path = |block: &str, name: &str| if block.is_empty() { name.to_owned() } else { format!("{block}.{name}") };
        let known: Vec<String> =
            ROWS.iter().filter(used).flat_map(|row| row.3.split_ascii_whitespace().map(|name| path(row.0, name))).collect();
        let text = include_str!("../../../docs/config.md");
        let told: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        let missing: Vec<_> = known.iter().filter(|key| !told.contains(&key.as_str())).collect();
        let unknown: Vec<_> = told.iter().filter(|key| !known.iter().any(|known| known == *key)).collect();
        assert!(missing.is_empty() && unknown.is_empty(), "docs/config.md lacks {missing:?}, and names {unknown:?}");
    }

    #[test]
    fn labels() {
        assert_eq!(labelled("plugin", "raw_exec"), "plugin.raw_exec");
        assert_eq!(labelled("plugin", "docker"), "plugin.*");
        assert_eq!(labelled("client.host_volume", "data"), "client.host_volume.*");
        assert_eq!(blocks_with("retry_join").collect::<Vec<_>>(), ["client.server_join", "server", "server.server_join"]);
    }
}
