-- Schema version 1.
--
-- Summaries are absolute facts about a window of the log: (…, stream, window_start) is the key, next_offset the
-- version. Read them with FINAL, then add up views and unite sketches over streams and windows. Parts are fsynced
-- before an insert is acknowledged, since the log's commit follows the acknowledgement.
--
-- A report reads one project, which is few rows for nearly all of them. So a granule is an eighth of the usual 8,192 rows (a quarter where that
-- saves room and loses no time), and parts are compact however large they are: all columns are in one file, and a granule's blocks lie beside one
-- another. A wide part has a file for each column, each to be opened, and blocks of 64 KiB, each unpacked as a whole. Small blocks need ZSTD(3).
-- Granules are decided when a table is made. One that was made before has larger ones and wide parts, from which reports are slower.

CREATE TABLE IF NOT EXISTS schema_version (
    version UInt32,
    applied DateTime('UTC') DEFAULT now('UTC')
) ENGINE = ReplacingMergeTree ORDER BY version
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS project (
    slug String,
    hosts Array(String),
    removed UInt8,
    revision UInt64
) ENGINE = ReplacingMergeTree(revision) ORDER BY slug
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 256;

-- One project's hour. views and visits are of people; bots_* are views by bots, by class.
CREATE TABLE IF NOT EXISTS site_hourly (
    project String CODEC(ZSTD(3)),
    hour DateTime('UTC') CODEC(Delta, ZSTD(3)),
    views UInt64 CODEC(T64, ZSTD(3)),
    visits UInt64 CODEC(T64, ZSTD(3)),
    bots_search UInt64 CODEC(T64, ZSTD(3)),
    bots_ai_crawler UInt64 CODEC(T64, ZSTD(3)),
    bots_preview UInt64 CODEC(T64, ZSTD(3)),
    bots_monitor UInt64 CODEC(T64, ZSTD(3)),
    bots_automation UInt64 CODEC(T64, ZSTD(3)),
    bots_other UInt64 CODEC(T64, ZSTD(3)),
    sketch String CODEC(ZSTD(3)),
    stream UInt64 CODEC(ZSTD(3)),
    window_start UInt64 CODEC(Delta, ZSTD(3)),
    next_offset UInt64 CODEC(Delta, ZSTD(3))
) ENGINE = ReplacingMergeTree(next_offset)
PARTITION BY toYYYYMM(hour)
ORDER BY (project, hour, stream, window_start)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576, min_bytes_for_wide_part = 1099511627776;

-- One path's day, by HTTP status. People only. A path's days lie together: paths are what is longest here, and the listed ones are found
-- without reading the others. No Delta: windows of a few days come again on every path, which ZSTD sees only in numbers as they are.
CREATE TABLE IF NOT EXISTS page_daily (
    project String CODEC(ZSTD(3)),
    day Date CODEC(ZSTD(3)),
    path String CODEC(ZSTD(3)),
    status UInt16 CODEC(ZSTD(3)),
    views UInt64 CODEC(T64, ZSTD(3)),
    sketch String CODEC(ZSTD(3)),
    stream UInt64 CODEC(ZSTD(3)),
    window_start UInt64 CODEC(ZSTD(3)),
    next_offset UInt64 CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree(next_offset)
PARTITION BY toYYYYMM(day)
ORDER BY (project, path, status, day, stream, window_start)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576, min_bytes_for_wide_part = 1099511627776;

-- One value of one dimension on one day. Marginals only: no crossing of two dimensions is stored. A report reads all of a project's rows
-- in a month, so their order is free to be that in which they come: within a window its number is the same in every row and takes no
-- room, and merges compare numbers where they would compare texts.
CREATE TABLE IF NOT EXISTS breakdown_daily (
    project String CODEC(ZSTD(3)),
    day Date CODEC(ZSTD(3)),
    dimension LowCardinality(String) CODEC(ZSTD(3)),
    value String CODEC(ZSTD(3)),
    views UInt64 CODEC(T64, ZSTD(3)),
    stream UInt64 CODEC(ZSTD(3)),
    window_start UInt64 CODEC(ZSTD(3)),
    next_offset UInt64 CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree(next_offset)
PARTITION BY toYYYYMM(day)
ORDER BY (project, stream, window_start, dimension, value, day)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 2048, index_granularity_bytes = 1048576, min_bytes_for_wide_part = 1099511627776;

-- Refused beacons, by project, day and reason; project is empty where the beacon named none that is known.
CREATE TABLE IF NOT EXISTS rejection_daily (
    project String CODEC(ZSTD(1)),
    day Date CODEC(Delta, ZSTD(1)),
    reason LowCardinality(String),
    beacons UInt64 CODEC(T64, ZSTD(1)),
    stream UInt64 CODEC(ZSTD(1)),
    window_start UInt64 CODEC(Delta, ZSTD(1)),
    next_offset UInt64 CODEC(Delta, ZSTD(1))
) ENGINE = ReplacingMergeTree(next_offset)
PARTITION BY toYYYYMM(day)
ORDER BY (project, day, reason, stream, window_start)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576;

-- What became of every record: seen = accepted + duplicate + tallies + undecodable = next_offset - window_start.
CREATE TABLE IF NOT EXISTS ledger (
    stream UInt64,
    window_start UInt64,
    next_offset UInt64,
    appended DateTime('UTC'),
    seen UInt64,
    accepted UInt64,
    duplicate UInt64,
    tallies UInt64,
    rejected_beacons UInt64,
    undecodable UInt64,
    fold_version UInt32
) ENGINE = ReplacingMergeTree(next_offset)
ORDER BY (stream, window_start)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
