-- Schema version 4: what a monthly report tells beyond sums, who may read it, and who gets it by mail.

-- Where the readers of pages came from that are not there: a path answered 404, one day, one referrer. The referrer is another
-- site's host, `:internal` for a page of the same project, and empty where nothing is known. Only of 404s: of pages that exist,
-- path and referrer are never kept together.
CREATE TABLE IF NOT EXISTS not_found_daily (
    project String CODEC(ZSTD(3)),
    day Date CODEC(ZSTD(3)),
    path String CODEC(ZSTD(3)),
    referrer String CODEC(ZSTD(3)),
    views UInt64 CODEC(T64, ZSTD(3)),
    stream UInt64 CODEC(ZSTD(3)),
    window_start UInt64 CODEC(ZSTD(3)),
    next_offset UInt64 CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree(next_offset)
PARTITION BY toYYYYMM(day)
ORDER BY (project, day, path, referrer, stream, window_start)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576, min_bytes_for_wide_part = 1099511627776;

CREATE TABLE IF NOT EXISTS month_closed_not_found (
    project String CODEC(ZSTD(1)),
    month Date CODEC(ZSTD(1)),
    run UInt64 CODEC(ZSTD(1)),
    path String CODEC(ZSTD(1)),
    referrer String CODEC(ZSTD(1)),
    views UInt64 CODEC(T64, ZSTD(1))
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(month)
ORDER BY (project, month, path, referrer, run)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576;

-- The page's host, where a beacon was refused for it; empty for all other reasons, and for hosts beyond the first few.
ALTER TABLE rejection_daily
    ADD COLUMN IF NOT EXISTS host String CODEC(ZSTD(1)),
    MODIFY ORDER BY (project, day, reason, stream, window_start, host);

ALTER TABLE month_closed
    ADD COLUMN IF NOT EXISTS rejected_hosts Array(String) CODEC(ZSTD(1)) AFTER rejected_reasons;

-- time_zone: an IANA name for the hours of the week, empty for UTC. public: 1 where anybody may read the report. recipients: addresses
-- that get it by mail.
ALTER TABLE project
    ADD COLUMN IF NOT EXISTS time_zone String,
    ADD COLUMN IF NOT EXISTS public UInt8,
    ADD COLUMN IF NOT EXISTS recipients Array(String);

-- Who may read reports. hash is of the token, which is shown once and kept nowhere.
CREATE TABLE IF NOT EXISTS token (
    id String,
    project String,
    admin UInt8,
    hash String,
    label String,
    created DateTime('UTC'),
    revoked UInt8,
    revision UInt64
) ENGINE = ReplacingMergeTree(revision) ORDER BY id
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS token_use (
    id String,
    used DateTime('UTC')
) ENGINE = ReplacingMergeTree(used) ORDER BY id;

-- Reports that went out by mail, so that none goes out twice.
CREATE TABLE IF NOT EXISTS delivery (
    project String,
    month Date,
    recipient String,
    sent DateTime('UTC')
) ENGINE = ReplacingMergeTree(sent) ORDER BY (project, month, recipient)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
