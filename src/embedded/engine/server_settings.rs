//! The engine's configuration files: ClickHouse made small, quiet and local.
//!
//! What is absent matters as much. There is no `logger`, because its console output cannot be limited below trace level, which prints every query.
//! There is no `*_log` section, so no system log table ever exists (privacy contract, item 2).

use std::path::{Path, PathBuf};

use super::{EngineError, replace};

/// The only directory below the engine's that `BACKUP` writes to and `RESTORE` reads from.
pub(super) const BACKUPS: &str = "backups";

/// Writes the server and the user configuration below `dir` and returns the former's path.
pub(super) fn write(dir: &Path, secret: &str) -> Result<PathBuf, EngineError> {
    let server = dir.join("engine.xml");
    let users = dir.join("engine-users.xml");
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(1, 4));
    replace(&users, USERS.replace("{threads}", &threads.to_string()).as_bytes())?;
    let backups = dir.join(BACKUPS);
    let content = SERVER
        .replace("{users}", &escape(&users.to_string_lossy()))
        .replace("{backups}", &escape(&backups.to_string_lossy()))
        .replace("{secret}", secret);
    replace(&server, content.as_bytes())?;
    Ok(server)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The rules of `http_handlers` replace ClickHouse's defaults: a client that does not know the path gets a 404.
///
/// Memory is bounded by the smaller of an absolute figure and half of the machine's. Rows carry sketches of up to 16 KiB, which is why merge blocks
/// are small. Merges yield to reports, but not to inserts: otherwise parts would pile up, and reports read every part.
///
/// Connections beyond `max_connections` wait unanswered. The limit is therefore above what a careless program on this machine holds open; each
/// connection takes a quarter of a MiB.
///
/// Tables inherit the fsyncs that make an acknowledged insert survive power loss. They refuse rows while less than 16 MiB of the disk are free: on a
/// full disk ClickHouse has left parts with empty files, which it cannot read.
const SERVER: &str = r#"<?xml version="1.0"?>
<!-- Written by headcount at every start; changes are lost. -->
<clickhouse>
    <users_config>{users}</users_config>
    <keep_alive_timeout>60</keep_alive_timeout>
    <max_connections>512</max_connections>
    <max_concurrent_queries>64</max_concurrent_queries>
    <max_server_memory_usage>1610612736</max_server_memory_usage>
    <max_server_memory_usage_to_ram_ratio>0.5</max_server_memory_usage_to_ram_ratio>
    <mark_cache_size>33554432</mark_cache_size>
    <primary_index_cache_size>33554432</primary_index_cache_size>
    <index_mark_cache_size>8388608</index_mark_cache_size>
    <uncompressed_cache_size>0</uncompressed_cache_size>
    <index_uncompressed_cache_size>0</index_uncompressed_cache_size>
    <mmap_cache_size>64</mmap_cache_size>
    <compiled_expression_cache_size>16777216</compiled_expression_cache_size>
    <background_pool_size>2</background_pool_size>
    <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
    <os_threads_nice_value_merge_mutate>10</os_threads_nice_value_merge_mutate>
    <background_move_pool_size>1</background_move_pool_size>
    <background_fetches_pool_size>1</background_fetches_pool_size>
    <background_common_pool_size>2</background_common_pool_size>
    <background_schedule_pool_size>4</background_schedule_pool_size>
    <tables_loader_foreground_pool_size>1</tables_loader_foreground_pool_size>
    <tables_loader_background_pool_size>1</tables_loader_background_pool_size>
    <max_thread_pool_size>512</max_thread_pool_size>
    <max_thread_pool_free_size>16</max_thread_pool_free_size>
    <asynchronous_metrics_update_period_s>60</asynchronous_metrics_update_period_s>
    <asynchronous_heavy_metrics_update_period_s>3600</asynchronous_heavy_metrics_update_period_s>
    <dictionaries_lazy_load>true</dictionaries_lazy_load>
    <shutdown_wait_unfinished>1</shutdown_wait_unfinished>
    <backups><allowed_path>{backups}</allowed_path></backups>
    <http_handlers>
        <rule>
            <url>/ping</url>
            <methods>GET</methods>
            <handler><type>static</type><status>200</status><response_content>Ok.</response_content></handler>
        </rule>
        <rule>
            <url>/{secret}</url>
            <handler><type>dynamic_query_handler</type><query_param_name>query</query_param_name></handler>
        </rule>
    </http_handlers>
    <merge_tree>
        <merge_max_block_size>1024</merge_max_block_size>
        <number_of_free_entries_in_pool_to_lower_max_size_of_merge>2</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
        <number_of_free_entries_in_pool_to_execute_mutation>1</number_of_free_entries_in_pool_to_execute_mutation>
        <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>1</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
        <fsync_after_insert>1</fsync_after_insert>
        <fsync_part_directory>1</fsync_part_directory>
        <min_free_disk_bytes_to_perform_insert>16777216</min_free_disk_bytes_to_perform_insert>
    </merge_tree>
</clickhouse>
"#;

const USERS: &str = r#"<?xml version="1.0"?>
<!-- Written by headcount at every start; changes are lost. -->
<clickhouse>
    <profiles>
        <default>
            <max_threads>{threads}</max_threads>
            <max_memory_usage>1073741824</max_memory_usage>
            <async_insert>0</async_insert>
            <log_queries>0</log_queries>
        </default>
    </profiles>
    <users>
        <default>
            <password></password>
            <networks><ip>127.0.0.1</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
        </default>
    </users>
    <quotas><default></default></quotas>
</clickhouse>
"#;
