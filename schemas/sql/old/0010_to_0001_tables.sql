-- Schema version 10: a database of version 9 gets the tables of 0001_tables.sql, in place; the statements of 0001_tables.sql follow and create what
-- is not there. Each statement may run again.

ALTER TABLE month_closed_page
    ADD COLUMN IF NOT EXISTS day_views Array(UInt64) CODEC(ZSTD(1));

ALTER TABLE project
    ADD COLUMN IF NOT EXISTS aliases Array(String);

-- The new key column has no default expression: ClickHouse allows none in a key. Rows that exist have the first value.
ALTER TABLE site_hourly
    ADD COLUMN IF NOT EXISTS source Enum8('headcount' = 0, 'plausible' = 1, 'umami' = 2, 'goatcounter' = 3, 'readthedocs' = 4, 'log' = 5,
        'import' = 6) CODEC(ZSTD(3)),
    MODIFY ORDER BY (project, hour, stream, window_start, source);

ALTER TABLE page_daily
    ADD COLUMN IF NOT EXISTS source Enum8('headcount' = 0, 'plausible' = 1, 'umami' = 2, 'goatcounter' = 3, 'readthedocs' = 4, 'log' = 5,
        'import' = 6) CODEC(ZSTD(3)),
    MODIFY ORDER BY (project, path, status, day, stream, window_start, source);

ALTER TABLE breakdown_daily
    ADD COLUMN IF NOT EXISTS source Enum8('headcount' = 0, 'plausible' = 1, 'umami' = 2, 'goatcounter' = 3, 'readthedocs' = 4, 'log' = 5,
        'import' = 6) CODEC(ZSTD(3)),
    MODIFY ORDER BY (project, stream, window_start, dimension, value, day, source);

ALTER TABLE not_found_daily
    ADD COLUMN IF NOT EXISTS source Enum8('headcount' = 0, 'plausible' = 1, 'umami' = 2, 'goatcounter' = 3, 'readthedocs' = 4, 'log' = 5,
        'import' = 6) CODEC(ZSTD(3)),
    MODIFY ORDER BY (project, day, path, referrer, stream, window_start, source);

ALTER TABLE month_closed
    ADD COLUMN IF NOT EXISTS source_names Array(String) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS source_views Array(UInt64) CODEC(ZSTD(1));
-- Robots: one row for each project, day and kind instead of six columns. The names stay in breakdown_daily and month_closed_breakdown, since it is
-- not known which kind they were counted as. The views of SQL read the columns, so they are created again afterwards.
DROP VIEW IF EXISTS monthly_traffic;
DROP VIEW IF EXISTS daily_traffic;
DROP VIEW IF EXISTS hour_not_closed;

CREATE TABLE IF NOT EXISTS robot_daily (
    project String CODEC(ZSTD(3)),
    day Date CODEC(ZSTD(3)),
    kind LowCardinality(String) CODEC(ZSTD(3)),
    name String CODEC(ZSTD(3)),
    views UInt64 CODEC(T64, ZSTD(3)),
    stream UInt64 CODEC(ZSTD(3)),
    window_start UInt64 CODEC(ZSTD(3)),
    next_offset UInt64 CODEC(ZSTD(3)),
    source Enum8('headcount' = 0, 'plausible' = 1, 'umami' = 2, 'goatcounter' = 3, 'readthedocs' = 4, 'log' = 5,
        'import' = 6) CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree(next_offset)
PARTITION BY toYYYYMM(day)
PRIMARY KEY (project, stream, window_start, kind, name, day)
ORDER BY (project, stream, window_start, kind, name, day, source)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576, min_bytes_for_wide_part = 1099511627776;

CREATE TABLE IF NOT EXISTS month_closed_robot (
    project String CODEC(ZSTD(1)),
    month Date CODEC(ZSTD(1)),
    run UInt64 CODEC(ZSTD(1)),
    kind LowCardinality(String),
    name String CODEC(ZSTD(1)),
    views UInt64 CODEC(T64, ZSTD(1))
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(month)
ORDER BY (project, month, kind, name, run)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576;

-- A run that was stopped after it had dropped the columns finds zeros in them, and copies nothing. One that was stopped before copies the same
-- rows once more, which replace each other.
ALTER TABLE site_hourly
    ADD COLUMN IF NOT EXISTS bots_search UInt64,
    ADD COLUMN IF NOT EXISTS bots_ai_crawler UInt64,
    ADD COLUMN IF NOT EXISTS bots_preview UInt64,
    ADD COLUMN IF NOT EXISTS bots_monitor UInt64,
    ADD COLUMN IF NOT EXISTS bots_automation UInt64,
    ADD COLUMN IF NOT EXISTS bots_other UInt64;

ALTER TABLE month_closed
    ADD COLUMN IF NOT EXISTS bots_search UInt64,
    ADD COLUMN IF NOT EXISTS bots_ai_crawler UInt64,
    ADD COLUMN IF NOT EXISTS bots_preview UInt64,
    ADD COLUMN IF NOT EXISTS bots_monitor UInt64,
    ADD COLUMN IF NOT EXISTS bots_automation UInt64,
    ADD COLUMN IF NOT EXISTS bots_other UInt64;

INSERT INTO robot_daily (project, day, kind, name, views, stream, window_start, next_offset)
SELECT project, toDate(hour) AS day, kind, '' AS name, sum(views_of_kind), stream, window_start, max(next_offset)
FROM (
    SELECT project, hour, stream, window_start, next_offset, pair.1 AS kind, pair.2 AS views_of_kind
    FROM site_hourly FINAL
    ARRAY JOIN arrayZip(
        ['search', 'ai_crawler', 'preview', 'monitor', 'automation', 'other_bot'],
        [bots_search, bots_ai_crawler, bots_preview, bots_monitor, bots_automation, bots_other]
    ) AS pair
    WHERE views_of_kind > 0
)
GROUP BY project, day, kind, stream, window_start
SETTINGS max_bytes_before_external_group_by = 268435456;

INSERT INTO month_closed_robot (project, month, run, kind, name, views)
SELECT project, month, run, pair.1 AS kind, '' AS name, pair.2 AS views_of_kind
FROM month_closed FINAL
ARRAY JOIN arrayZip(
    ['search', 'ai_crawler', 'preview', 'monitor', 'automation', 'other_bot'],
    [bots_search, bots_ai_crawler, bots_preview, bots_monitor, bots_automation, bots_other]
) AS pair
WHERE views_of_kind > 0;

ALTER TABLE site_hourly
    DROP COLUMN IF EXISTS bots_search,
    DROP COLUMN IF EXISTS bots_ai_crawler,
    DROP COLUMN IF EXISTS bots_preview,
    DROP COLUMN IF EXISTS bots_monitor,
    DROP COLUMN IF EXISTS bots_automation,
    DROP COLUMN IF EXISTS bots_other;

ALTER TABLE month_closed
    DROP COLUMN IF EXISTS bots_search,
    DROP COLUMN IF EXISTS bots_ai_crawler,
    DROP COLUMN IF EXISTS bots_preview,
    DROP COLUMN IF EXISTS bots_monitor,
    DROP COLUMN IF EXISTS bots_automation,
    DROP COLUMN IF EXISTS bots_other;
