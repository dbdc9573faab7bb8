-- All tables of a new database. Frozen: a change is a new file. A database of schema versions 1 to 9 has these tables from the files in old/.
--
-- Summaries are absolute facts about a window of the log: (…, stream, window_start) is the key, next_offset the version. Read them with FINAL,
-- then add up views and merge sketches over streams and windows. Parts are fsynced before an insert is acknowledged, since the commit to the log
-- follows the acknowledgement.
--
-- source, the last column of their keys, is the tracker that sent the views: headcount's own script or pixel, the script of another counter, a
-- web server's log, an import. Refused beacons have none. Rows that are older than schema version 10 have the first. Views of sources are added up and their
-- sketches are merged, so a reader of two sources is one visitor.
--
-- A report reads one project, which has few rows in nearly all cases. So granules are smaller than the usual 8,192 rows, and parts are compact at
-- any size: all columns are in one file, and the blocks of a granule are stored side by side. A wide part has a file for each column, each to be
-- opened, and blocks of 64 KiB, each decompressed as a whole. Small blocks need ZSTD(3). Granules cannot be changed once a table exists.

CREATE TABLE IF NOT EXISTS schema_version (
    version UInt32,
    applied DateTime('UTC') DEFAULT now('UTC')
) ENGINE = ReplacingMergeTree ORDER BY version
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- A registered project; the row with the largest revision is active. removed: 1 removed, 2 erased.
-- mask, keep: patterns of paths whose wildcards are masked, and of paths that are kept as they are. query: parameters of the query string that
-- tell pages apart. time_zone: an IANA name for the hours of the week, empty for UTC. public: 1 if any client may read the report. recipients:
-- e-mail addresses that get the report. strip_trailing_slash, strip_html: 1 if paths are stored without them. ignore_networks: CIDR; their
-- views are not counted.
CREATE TABLE IF NOT EXISTS project (
    slug String,
    hosts Array(String),
    removed UInt8,
    revision UInt64,
    mask Array(String),
    keep Array(String),
    query Array(String),
    time_zone String,
    public UInt8,
    recipients Array(String),
    strip_trailing_slash UInt8,
    strip_html UInt8,
    ignore_networks Array(String),
    -- What other counters call the project, such as umami:UUID or plausible:DOMAIN.
    aliases Array(String)
) ENGINE = ReplacingMergeTree(revision) ORDER BY slug
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 256;

-- Tokens for reports. hash is of the secret half, which is shown once and stored nowhere.
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

-- Reports that were sent by mail, so that none is sent twice.
CREATE TABLE IF NOT EXISTS delivery (
    project String,
    month Date,
    recipient String,
    sent DateTime('UTC')
) ENGINE = ReplacingMergeTree(sent) ORDER BY (project, month, recipient)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Fingerprints of the visitor keys that endpoints use. They tell keys apart and nothing else: nodes with different keys would count visitors twice.
CREATE TABLE IF NOT EXISTS key_in_use (
    period String,
    number Int64,
    node UInt64,
    fingerprint UInt64,
    seen DateTime('UTC')
) ENGINE = ReplacingMergeTree(seen) ORDER BY (period, number, node)
TTL seen + INTERVAL 40 DAY;

-- One project's hour. views and visits are of people. An hour with views by robots alone has a row, too, so that every hour in which something
-- was counted has one.
CREATE TABLE IF NOT EXISTS site_hourly (
    project String CODEC(ZSTD(3)),
    hour DateTime('UTC') CODEC(Delta, ZSTD(3)),
    views UInt64 CODEC(T64, ZSTD(3)),
    visits UInt64 CODEC(T64, ZSTD(3)),
    sketch String CODEC(ZSTD(3)),
    stream UInt64 CODEC(ZSTD(3)),
    window_start UInt64 CODEC(Delta, ZSTD(3)),
    next_offset UInt64 CODEC(Delta, ZSTD(3)),
    source Enum8('headcount' = 0, 'plausible' = 1, 'umami' = 2, 'goatcounter' = 3, 'readthedocs' = 4, 'log' = 5,
        'import' = 6) CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree(next_offset)
PARTITION BY toYYYYMM(hour)
PRIMARY KEY (project, hour, stream, window_start)
ORDER BY (project, hour, stream, window_start, source)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576, min_bytes_for_wide_part = 1099511627776;

-- One path's day, by HTTP status. People only. The days of a path are stored side by side: paths are the longest values here, and a report
-- finds the listed ones without reading the others. No Delta: the few windows of a day come again on every path, and ZSTD finds only equal bytes.
CREATE TABLE IF NOT EXISTS page_daily (
    project String CODEC(ZSTD(3)),
    day Date CODEC(ZSTD(3)),
    path String CODEC(ZSTD(3)),
    status UInt16 CODEC(ZSTD(3)),
    views UInt64 CODEC(T64, ZSTD(3)),
    sketch String CODEC(ZSTD(3)),
    stream UInt64 CODEC(ZSTD(3)),
    window_start UInt64 CODEC(ZSTD(3)),
    next_offset UInt64 CODEC(ZSTD(3)),
    source Enum8('headcount' = 0, 'plausible' = 1, 'umami' = 2, 'goatcounter' = 3, 'readthedocs' = 4, 'log' = 5,
        'import' = 6) CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree(next_offset)
PARTITION BY toYYYYMM(day)
PRIMARY KEY (project, path, status, day, stream, window_start)
ORDER BY (project, path, status, day, stream, window_start, source)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576, min_bytes_for_wide_part = 1099511627776;

-- One value of one dimension on one day. Marginals only: no crossing of two dimensions is stored. A report reads all rows of a project in a
-- month, so rows are ordered as they arrive: within a window stream and window_start are equal in all rows and take no space, and merges
-- compare numbers before texts.
CREATE TABLE IF NOT EXISTS breakdown_daily (
    project String CODEC(ZSTD(3)),
    day Date CODEC(ZSTD(3)),
    dimension LowCardinality(String) CODEC(ZSTD(3)),
    value String CODEC(ZSTD(3)),
    views UInt64 CODEC(T64, ZSTD(3)),
    stream UInt64 CODEC(ZSTD(3)),
    window_start UInt64 CODEC(ZSTD(3)),
    next_offset UInt64 CODEC(ZSTD(3)),
    source Enum8('headcount' = 0, 'plausible' = 1, 'umami' = 2, 'goatcounter' = 3, 'readthedocs' = 4, 'log' = 5,
        'import' = 6) CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree(next_offset)
PARTITION BY toYYYYMM(day)
PRIMARY KEY (project, stream, window_start, dimension, value, day)
ORDER BY (project, stream, window_start, dimension, value, day, source)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 2048, index_granularity_bytes = 1048576, min_bytes_for_wide_part = 1099511627776;

-- Referrers of missing pages: a path answered 404, one day, one referrer. The referrer is another site's host, `:internal` for a page of the
-- same project, and empty if it is unknown. Of 404s only: for pages that exist, path and referrer are never stored together.
CREATE TABLE IF NOT EXISTS not_found_daily (
    project String CODEC(ZSTD(3)),
    day Date CODEC(ZSTD(3)),
    path String CODEC(ZSTD(3)),
    referrer String CODEC(ZSTD(3)),
    views UInt64 CODEC(T64, ZSTD(3)),
    stream UInt64 CODEC(ZSTD(3)),
    window_start UInt64 CODEC(ZSTD(3)),
    next_offset UInt64 CODEC(ZSTD(3)),
    source Enum8('headcount' = 0, 'plausible' = 1, 'umami' = 2, 'goatcounter' = 3, 'readthedocs' = 4, 'log' = 5,
        'import' = 6) CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree(next_offset)
PARTITION BY toYYYYMM(day)
PRIMARY KEY (project, day, path, referrer, stream, window_start)
ORDER BY (project, day, path, referrer, stream, window_start, source)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576, min_bytes_for_wide_part = 1099511627776;

-- Views by robots of one project on one day, by kind and name. Rows of schema versions before 10 have one of six kinds and no name: their days have
-- the names in breakdown_daily, dimension bot.
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

-- Views by robots of one path on one day, of every HTTP status, by group: search, ai_training, ai_assistant, other.
CREATE TABLE IF NOT EXISTS robot_page_daily (
    project String CODEC(ZSTD(3)),
    day Date CODEC(ZSTD(3)),
    path String CODEC(ZSTD(3)),
    robot_group LowCardinality(String) CODEC(ZSTD(3)),
    views UInt64 CODEC(T64, ZSTD(3)),
    stream UInt64 CODEC(ZSTD(3)),
    window_start UInt64 CODEC(ZSTD(3)),
    next_offset UInt64 CODEC(ZSTD(3)),
    source Enum8('headcount' = 0, 'plausible' = 1, 'umami' = 2, 'goatcounter' = 3, 'readthedocs' = 4, 'log' = 5,
        'import' = 6) CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree(next_offset)
PARTITION BY toYYYYMM(day)
PRIMARY KEY (project, path, robot_group, day, stream, window_start)
ORDER BY (project, path, robot_group, day, stream, window_start, source)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576, min_bytes_for_wide_part = 1099511627776;

-- Refused beacons, by project, day, reason and host. project is empty if the beacon named no known one. host is set only if the host is the
-- reason, and for the first few hosts.
CREATE TABLE IF NOT EXISTS rejection_daily (
    project String CODEC(ZSTD(1)),
    day Date CODEC(Delta, ZSTD(1)),
    reason LowCardinality(String),
    beacons UInt64 CODEC(T64, ZSTD(1)),
    stream UInt64 CODEC(ZSTD(1)),
    window_start UInt64 CODEC(Delta, ZSTD(1)),
    next_offset UInt64 CODEC(Delta, ZSTD(1)),
    host String CODEC(ZSTD(1))
) ENGINE = ReplacingMergeTree(next_offset)
PARTITION BY toYYYYMM(day)
PRIMARY KEY (project, day, reason, stream, window_start)
ORDER BY (project, day, reason, stream, window_start, host)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576;

-- The outcome of every record: seen = accepted + duplicate + tallies + undecodable, and seen + lost = next_offset - window_start. lost: offsets
-- whose records are lost, which a salvaged journal marks as holes.
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
    fold_version UInt32,
    lost UInt64
) ENGINE = ReplacingMergeTree(next_offset)
ORDER BY (stream, window_start)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Which partition of which topic a stream is. A partition has several streams if its topic was created again.
CREATE TABLE IF NOT EXISTS stream (
    stream UInt64,
    cluster String,
    topic String,
    partition Int32,
    born DateTime('UTC')
) ENGINE = ReplacingMergeTree ORDER BY (cluster, topic, partition, stream)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Of a month that is due to be closed: the live streams, and the offset after the last record of each when an aggregator first found the month
-- due. The newest row of a month is active.
CREATE TABLE IF NOT EXISTS month_due (
    month Date,
    noted DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC'),
    streams Array(UInt64),
    ends Array(UInt64)
) ENGINE = ReplacingMergeTree(noted)
ORDER BY month
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- A closed month is numbers only. A close is a run: it writes the month's figures under its own number and then, last, a row of month_close.
-- Of several runs the first that finished counts. Then what it counted is removed from the tables of open months, and the sketches of the
-- remaining rows are emptied.
--
-- (streams, windows): of each stream the first window that is not in the figures. Windows below it were closed, so their rows were final. Rows of
-- later windows stay, and reports add them.
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

-- One project's month. day_bots is empty in months that were closed before schema version 5. open_views are those of windows that are not in
-- the figures, as of the close: what exceeds them is late. source_views are the views of each of source_names; both are empty in months that were
-- closed before schema version 10, whose views are all of headcount's own script.
CREATE TABLE IF NOT EXISTS month_closed (
    project String CODEC(ZSTD(1)),
    month Date CODEC(ZSTD(1)),
    run UInt64 CODEC(ZSTD(1)),
    visitors UInt64 CODEC(ZSTD(1)),
    visitors_error Float64 CODEC(ZSTD(1)),
    hour_views Array(UInt64) CODEC(ZSTD(1)),
    hour_visits Array(UInt64) CODEC(ZSTD(1)),
    day_visitors Array(UInt64) CODEC(ZSTD(1)),
    day_errors Array(Float64) CODEC(ZSTD(1)),
    day_bots Array(UInt64) CODEC(ZSTD(1)),
    rejected_reasons Array(String) CODEC(ZSTD(1)),
    rejected_hosts Array(String) CODEC(ZSTD(1)),
    rejected_beacons Array(UInt64) CODEC(ZSTD(1)),
    open_views UInt64 CODEC(ZSTD(1)),
    source_names Array(String) CODEC(ZSTD(1)),
    source_views Array(UInt64) CODEC(ZSTD(1))
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(month)
ORDER BY (project, month, run)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 64, index_granularity_bytes = 131072;

-- One path's month, by status. day_views: views of each day of the month; empty in months that were closed before schema version 10.
CREATE TABLE IF NOT EXISTS month_closed_page (
    project String CODEC(ZSTD(1)),
    month Date CODEC(ZSTD(1)),
    run UInt64 CODEC(ZSTD(1)),
    path String CODEC(ZSTD(1)),
    status UInt16 CODEC(ZSTD(1)),
    views UInt64 CODEC(T64, ZSTD(1)),
    visitors UInt64 CODEC(T64, ZSTD(1)),
    visitors_error Float64 CODEC(ZSTD(1)),
    day_views Array(UInt64) CODEC(ZSTD(1))
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

-- Views by robots of one project's month, by kind and name; without a name in months that were closed before schema version 10, which have the
-- names in month_closed_breakdown, dimension bot.
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

CREATE TABLE IF NOT EXISTS month_closed_robot_page (
    project String CODEC(ZSTD(1)),
    month Date CODEC(ZSTD(1)),
    run UInt64 CODEC(ZSTD(1)),
    path String CODEC(ZSTD(1)),
    robot_group LowCardinality(String),
    views UInt64 CODEC(T64, ZSTD(1))
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(month)
ORDER BY (project, month, path, robot_group, run)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 1024, index_granularity_bytes = 1048576;

-- Visitor estimates for SQL (docs/sql.md): of days and months that are not closed, computed from their sketches every few minutes. mark is the
-- checksum of the rows that were read: if that of the present rows differs, the estimate is recomputed. Closed months have theirs in month_closed.
CREATE TABLE IF NOT EXISTS finished_day (
    project String CODEC(ZSTD(1)),
    day Date CODEC(Delta, ZSTD(1)),
    visitors UInt64 CODEC(T64, ZSTD(1)),
    visitors_error Float64 CODEC(ZSTD(1)),
    mark UInt64,
    updated DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
) ENGINE = ReplacingMergeTree(updated)
PARTITION BY toYYYYMM(day)
ORDER BY (project, day);

CREATE TABLE IF NOT EXISTS finished_month (
    project String CODEC(ZSTD(1)),
    month Date CODEC(ZSTD(1)),
    visitors UInt64 CODEC(T64, ZSTD(1)),
    visitors_error Float64 CODEC(ZSTD(1)),
    updated DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
) ENGINE = ReplacingMergeTree(updated)
PARTITION BY toYYYYMM(month)
ORDER BY (project, month);

-- Views for SQL (docs/sql.md): a project's days and months as plain columns. They read no sketch and hold totals of projects only.

-- Of several runs the one that finished first counts.
CREATE VIEW IF NOT EXISTS closed_month AS
SELECT
    month,
    argMin(run, (finished, run)) AS run_that_counts,
    argMin(streams, (finished, run)) AS of_streams,
    argMin(windows, (finished, run)) AS first_open
FROM month_close FINAL
GROUP BY month;

-- Hours that are in no closed month's figures. in_closed_month: 1 where they came late, after their month was closed.
CREATE VIEW IF NOT EXISTS hour_not_closed AS
SELECT
    project,
    hour,
    views,
    visits,
    toUInt8(notEmpty(of_streams)) AS in_closed_month
FROM (
    SELECT project, hour, views, visits, stream, window_start
    FROM site_hourly FINAL
) AS site
LEFT JOIN closed_month AS closes ON toStartOfMonth(site.hour) = closes.month
WHERE NOT (has(of_streams, stream) AND window_start < first_open[indexOf(of_streams, stream)]);

-- Views by robots on days, of the same windows.
CREATE VIEW IF NOT EXISTS robot_day_not_closed AS
SELECT
    project,
    day,
    kind,
    name,
    views,
    toUInt8(notEmpty(of_streams)) AS in_closed_month
FROM (
    SELECT project, day, kind, name, views, stream, window_start
    FROM robot_daily FINAL
) AS robot
LEFT JOIN closed_month AS closes ON toStartOfMonth(robot.day) = closes.month
WHERE NOT (has(of_streams, stream) AND window_start < first_open[indexOf(of_streams, stream)]);

CREATE VIEW IF NOT EXISTS daily_traffic AS
SELECT
    project,
    day,
    sum(some_views) AS views,
    sum(some_visits) AS visits,
    sum(some_bots) AS bots,
    max(of_visitors) AS visitors,
    max(of_error) AS visitors_error,
    max(is_closed) AS closed
FROM (
    SELECT
        project,
        toDate(hour) AS day,
        views AS some_views,
        visits AS some_visits,
        CAST(0, 'Nullable(UInt64)') AS some_bots,
        CAST(NULL, 'Nullable(UInt64)') AS of_visitors,
        CAST(NULL, 'Nullable(Float64)') AS of_error,
        in_closed_month AS is_closed
    FROM hour_not_closed
    UNION ALL
    SELECT
        project,
        day,
        toUInt64(0) AS some_views,
        toUInt64(0) AS some_visits,
        toNullable(views) AS some_bots,
        CAST(NULL, 'Nullable(UInt64)') AS of_visitors,
        CAST(NULL, 'Nullable(Float64)') AS of_error,
        in_closed_month AS is_closed
    FROM robot_day_not_closed
    UNION ALL
    SELECT
        project,
        addDays(closed.month, number - 1) AS day,
        arraySum(arraySlice(hour_views, number * 24 - 23, 24)) AS some_views,
        arraySum(arraySlice(hour_visits, number * 24 - 23, 24)) AS some_visits,
        if(empty(day_bots), NULL, day_bots[number]) AS some_bots,
        toNullable(day_visitors[number]) AS of_visitors,
        toNullable(day_errors[number]) AS of_error,
        toUInt8(1) AS is_closed
    FROM (
        SELECT project, month, run, hour_views, hour_visits, day_visitors, day_errors, day_bots
        FROM month_closed FINAL
    ) AS closed
    INNER JOIN closed_month AS closes ON closed.month = closes.month AND closed.run = closes.run_that_counts
    ARRAY JOIN arrayEnumerate(day_visitors) AS number
    UNION ALL
    SELECT
        project,
        day,
        toUInt64(0) AS some_views,
        toUInt64(0) AS some_visits,
        CAST(NULL, 'Nullable(UInt64)') AS some_bots,
        toNullable(visitors) AS of_visitors,
        toNullable(visitors_error) AS of_error,
        toUInt8(0) AS is_closed
    FROM finished_day FINAL
    WHERE toStartOfMonth(day) NOT IN (SELECT month FROM closed_month)
)
WHERE project NOT IN (SELECT slug FROM project FINAL WHERE removed = 2)
GROUP BY project, day
HAVING views > 0 OR bots > 0;

CREATE VIEW IF NOT EXISTS monthly_traffic AS
SELECT
    project,
    month,
    sum(some_views) AS views,
    sum(some_visits) AS visits,
    sum(some_bots) AS bots,
    max(of_visitors) AS visitors,
    max(of_error) AS visitors_error,
    toUInt64(greatest(toInt64(sum(open_now)) - toInt64(sum(open_then)), 0)) AS late_views,
    max(is_closed) AS closed
FROM (
    SELECT
        project,
        toStartOfMonth(hour) AS month,
        views AS some_views,
        visits AS some_visits,
        toUInt64(0) AS some_bots,
        CAST(NULL, 'Nullable(UInt64)') AS of_visitors,
        CAST(NULL, 'Nullable(Float64)') AS of_error,
        if(in_closed_month = 1, views, 0) AS open_now,
        toUInt64(0) AS open_then,
        in_closed_month AS is_closed
    FROM hour_not_closed
    UNION ALL
    SELECT
        project,
        toStartOfMonth(day) AS month,
        toUInt64(0) AS some_views,
        toUInt64(0) AS some_visits,
        views AS some_bots,
        CAST(NULL, 'Nullable(UInt64)') AS of_visitors,
        CAST(NULL, 'Nullable(Float64)') AS of_error,
        toUInt64(0) AS open_now,
        toUInt64(0) AS open_then,
        in_closed_month AS is_closed
    FROM robot_day_not_closed
    UNION ALL
    SELECT
        project,
        closed.month AS month,
        arraySum(hour_views) AS some_views,
        arraySum(hour_visits) AS some_visits,
        toUInt64(0) AS some_bots,
        toNullable(closed.visitors) AS of_visitors,
        toNullable(closed.visitors_error) AS of_error,
        toUInt64(0) AS open_now,
        open_views AS open_then,
        toUInt8(1) AS is_closed
    FROM (
        SELECT project, month, run, visitors, visitors_error, hour_views, hour_visits, open_views
        FROM month_closed FINAL
    ) AS closed
    INNER JOIN closed_month AS closes ON closed.month = closes.month AND closed.run = closes.run_that_counts
    UNION ALL
    SELECT
        project,
        closed.month AS month,
        toUInt64(0) AS some_views,
        toUInt64(0) AS some_visits,
        closed.views AS some_bots,
        CAST(NULL, 'Nullable(UInt64)') AS of_visitors,
        CAST(NULL, 'Nullable(Float64)') AS of_error,
        toUInt64(0) AS open_now,
        toUInt64(0) AS open_then,
        toUInt8(1) AS is_closed
    FROM (
        SELECT project, month, run, views
        FROM month_closed_robot FINAL
    ) AS closed
    INNER JOIN closed_month AS closes ON closed.month = closes.month AND closed.run = closes.run_that_counts
    UNION ALL
    SELECT
        project,
        month,
        toUInt64(0) AS some_views,
        toUInt64(0) AS some_visits,
        toUInt64(0) AS some_bots,
        toNullable(visitors) AS of_visitors,
        toNullable(visitors_error) AS of_error,
        toUInt64(0) AS open_now,
        toUInt64(0) AS open_then,
        toUInt8(0) AS is_closed
    FROM finished_month FINAL
    WHERE month NOT IN (SELECT month FROM closed_month)
)
WHERE project NOT IN (SELECT slug FROM project FINAL WHERE removed = 2)
GROUP BY project, month
HAVING views > 0 OR bots > 0;
