-- Versions of the rules that decide which views are those of robots, and pages that readers' browsers reported as missing.

-- Views of one project on one day, by people and robots, by the version of the rules that classified them; 0 if the record names none.
CREATE TABLE IF NOT EXISTS rules_daily (
    project String CODEC(ZSTD(3)),
    day Date CODEC(ZSTD(3)),
    rules UInt32 CODEC(ZSTD(3)),
    views UInt64 CODEC(T64, ZSTD(3)),
    stream UInt64 CODEC(ZSTD(3)),
    window_start UInt64 CODEC(ZSTD(3)),
    next_offset UInt64 CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree(next_offset)
PARTITION BY toYYYYMM(day)
ORDER BY (project, stream, window_start, day, rules)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576, min_bytes_for_wide_part = 1099511627776;

-- Reports that one path is missing, on one day: Plausible's event 404. A report is no view; the page's view has its own status.
CREATE TABLE IF NOT EXISTS reported_missing_daily (
    project String CODEC(ZSTD(3)),
    day Date CODEC(ZSTD(3)),
    path String CODEC(ZSTD(3)),
    reports UInt64 CODEC(T64, ZSTD(3)),
    stream UInt64 CODEC(ZSTD(3)),
    window_start UInt64 CODEC(ZSTD(3)),
    next_offset UInt64 CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree(next_offset)
PARTITION BY toYYYYMM(day)
ORDER BY (project, stream, window_start, path, day)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576, min_bytes_for_wide_part = 1099511627776;

-- The same of closed months, by run.
CREATE TABLE IF NOT EXISTS month_closed_rules (
    project String CODEC(ZSTD(1)),
    month Date CODEC(ZSTD(1)),
    run UInt64 CODEC(ZSTD(1)),
    day Date CODEC(ZSTD(1)),
    rules UInt32 CODEC(ZSTD(1)),
    views UInt64 CODEC(T64, ZSTD(1))
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(month)
ORDER BY (project, month, day, rules, run)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576;

CREATE TABLE IF NOT EXISTS month_closed_reported_missing (
    project String CODEC(ZSTD(1)),
    month Date CODEC(ZSTD(1)),
    run UInt64 CODEC(ZSTD(1)),
    path String CODEC(ZSTD(1)),
    reports UInt64 CODEC(T64, ZSTD(1))
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(month)
ORDER BY (project, month, path, run)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576;
