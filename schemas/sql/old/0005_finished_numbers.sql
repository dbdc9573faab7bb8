-- Schema version 5: finished numbers for whoever asks with SQL (docs/sql.md). Two views have a project's days and months as plain
-- columns, and read no sketch; nobody who reads them needs to know of sketches, windows, runs or FINAL. They have totals of projects only.

-- Visitors of the days and months that are not closed, estimated from their sketches every few minutes. mark is of the rows that were
-- read: where those of now have another, the figure is made anew. Closed months have theirs in month_closed.
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

-- Bots of each day; empty in months that were closed before.
ALTER TABLE month_closed
    ADD COLUMN IF NOT EXISTS day_bots Array(UInt64) CODEC(ZSTD(1)) AFTER day_errors;

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
    bots_search + bots_ai_crawler + bots_preview + bots_monitor + bots_automation + bots_other AS bots,
    toUInt8(notEmpty(of_streams)) AS in_closed_month
FROM (
    SELECT project, hour, views, visits, bots_search, bots_ai_crawler, bots_preview, bots_monitor, bots_automation, bots_other,
        stream, window_start
    FROM site_hourly FINAL
) AS site
LEFT JOIN closed_month AS closes ON toStartOfMonth(site.hour) = closes.month
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
        toNullable(bots) AS some_bots,
        CAST(NULL, 'Nullable(UInt64)') AS of_visitors,
        CAST(NULL, 'Nullable(Float64)') AS of_error,
        in_closed_month AS is_closed
    FROM hour_not_closed
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
        bots AS some_bots,
        CAST(NULL, 'Nullable(UInt64)') AS of_visitors,
        CAST(NULL, 'Nullable(Float64)') AS of_error,
        if(in_closed_month = 1, views, 0) AS open_now,
        toUInt64(0) AS open_then,
        in_closed_month AS is_closed
    FROM hour_not_closed
    UNION ALL
    SELECT
        project,
        closed.month AS month,
        arraySum(hour_views) AS some_views,
        arraySum(hour_visits) AS some_visits,
        bots_search + bots_ai_crawler + bots_preview + bots_monitor + bots_automation + bots_other AS some_bots,
        toNullable(closed.visitors) AS of_visitors,
        toNullable(closed.visitors_error) AS of_error,
        toUInt64(0) AS open_now,
        open_views AS open_then,
        toUInt8(1) AS is_closed
    FROM (
        SELECT project, month, run, visitors, visitors_error, hour_views, hour_visits, open_views,
            bots_search, bots_ai_crawler, bots_preview, bots_monitor, bots_automation, bots_other
        FROM month_closed FINAL
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
