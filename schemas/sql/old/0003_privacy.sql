-- Schema version 3.
--
-- A closed month is numbers only. Whoever closes one is a run: it writes the month's figures under its own number and
-- then, as its last word, a row of month_close. Of several runs the one that finished first counts; then what it counted
-- is removed from the tables of the open months, and the sketches of what is left there are emptied.
--
-- (streams, windows): of each stream the first window that is not in the figures. Windows below it had ended, so their
-- rows were final. Rows of windows from there on stay where they are, and reports add them.

CREATE TABLE IF NOT EXISTS month_close (
    month Date,
    run UInt64,
    finished DateTime64(6, 'UTC'),
    streams Array(UInt64),
    windows Array(UInt64),
    projects UInt64,
    views UInt64
) ENGINE = ReplacingMergeTree ORDER BY (month, run)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- One project's month. open_views are those of windows that are not in the figures, as of the close: what is more is late.
CREATE TABLE IF NOT EXISTS month_closed (
    project String CODEC(ZSTD(1)),
    month Date CODEC(ZSTD(1)),
    run UInt64 CODEC(ZSTD(1)),
    visitors UInt64 CODEC(ZSTD(1)),
    visitors_error Float64 CODEC(ZSTD(1)),
    bots_search UInt64 CODEC(ZSTD(1)),
    bots_ai_crawler UInt64 CODEC(ZSTD(1)),
    bots_preview UInt64 CODEC(ZSTD(1)),
    bots_monitor UInt64 CODEC(ZSTD(1)),
    bots_automation UInt64 CODEC(ZSTD(1)),
    bots_other UInt64 CODEC(ZSTD(1)),
    hour_views Array(UInt64) CODEC(ZSTD(1)),
    hour_visits Array(UInt64) CODEC(ZSTD(1)),
    day_visitors Array(UInt64) CODEC(ZSTD(1)),
    day_errors Array(Float64) CODEC(ZSTD(1)),
    rejected_reasons Array(String) CODEC(ZSTD(1)),
    rejected_beacons Array(UInt64) CODEC(ZSTD(1)),
    open_views UInt64 CODEC(ZSTD(1))
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(month)
ORDER BY (project, month, run)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 64, index_granularity_bytes = 131072;

CREATE TABLE IF NOT EXISTS month_closed_page (
    project String CODEC(ZSTD(1)),
    month Date CODEC(ZSTD(1)),
    run UInt64 CODEC(ZSTD(1)),
    path String CODEC(ZSTD(1)),
    status UInt16 CODEC(ZSTD(1)),
    views UInt64 CODEC(T64, ZSTD(1)),
    visitors UInt64 CODEC(T64, ZSTD(1)),
    visitors_error Float64 CODEC(ZSTD(1))
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(month)
ORDER BY (project, month, path, status, run)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576;

CREATE TABLE IF NOT EXISTS month_closed_breakdown (
    project String CODEC(ZSTD(1)),
    month Date CODEC(ZSTD(1)),
    run UInt64 CODEC(ZSTD(1)),
    dimension LowCardinality(String),
    value String CODEC(ZSTD(1)),
    views UInt64 CODEC(T64, ZSTD(1))
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(month)
ORDER BY (project, month, dimension, value, run)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576;

-- Which visitor key an endpoint uses: a fingerprint, which tells keys apart and nothing else. Nodes with another one would count
-- visitors a second time.
CREATE TABLE IF NOT EXISTS key_in_use (
    period String,
    number Int64,
    node UInt64,
    fingerprint UInt64,
    seen DateTime('UTC')
) ENGINE = ReplacingMergeTree(seen) ORDER BY (period, number, node)
TTL seen + INTERVAL 40 DAY;

-- What a project says of its own paths: patterns whose wildcards are masked, patterns that are kept as they are, and
-- parameters of the query that tell pages apart.
ALTER TABLE project
    ADD COLUMN IF NOT EXISTS mask Array(String),
    ADD COLUMN IF NOT EXISTS keep Array(String),
    ADD COLUMN IF NOT EXISTS query Array(String);
