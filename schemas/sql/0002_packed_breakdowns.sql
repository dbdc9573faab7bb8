-- Breakdowns, packed: one row for each project, day, source and window, with its values in arrays. Before, each value had a row of breakdown_daily,
-- and most bytes of a row were those of its key. Marginals only, as before: no crossing of two dimensions is stored.
--
-- dimensions, values and views have the same length: element n of each is one value of one dimension. A flush writes the whole row if one of
-- its values has changed, so a row is an absolute fact, like all others. marks is for the marks of each value; it is empty until they are
-- counted. Dimension bot: names of robots, in rows of schema versions before 10.
--
-- A report reads all rows of a project in a month, so rows are ordered as they arrive: by window.
CREATE TABLE IF NOT EXISTS breakdown_window (
    project String CODEC(ZSTD(3)),
    day Date CODEC(ZSTD(3)),
    dimensions Array(Enum8('referrer' = 0, 'country' = 1, 'device' = 2, 'browser' = 3, 'os' = 4, 'version' = 5, 'language' = 6,
        'bot' = 7)) CODEC(ZSTD(3)),
    values Array(String) CODEC(ZSTD(3)),
    views Array(UInt64) CODEC(T64, ZSTD(3)),
    marks Array(UInt16) DEFAULT [] CODEC(ZSTD(3)),
    stream UInt64 CODEC(ZSTD(3)),
    window_start UInt64 CODEC(ZSTD(3)),
    next_offset UInt64 CODEC(ZSTD(3)),
    source Enum8('headcount' = 0, 'plausible' = 1, 'umami' = 2, 'goatcounter' = 3, 'readthedocs' = 4, 'log' = 5,
        'import' = 6) CODEC(ZSTD(3))
) ENGINE = ReplacingMergeTree(next_offset)
PARTITION BY toYYYYMM(day)
ORDER BY (project, stream, window_start, day, source)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1,
    index_granularity = 256, index_granularity_bytes = 1048576, min_bytes_for_wide_part = 1099511627776;

-- The rows of open months. breakdown_daily is a table here, or the view below if this file is applied again, which then copies rows onto
-- themselves. Values that did not change in the last flush have an earlier next_offset, and are facts of the last flush, too: the row has the
-- largest. A flush that did not end may lack some values, so no row claims more than the ledger: the aggregator folds the window again and
-- writes these rows with a larger next_offset.
INSERT INTO breakdown_window (project, day, dimensions, values, views, stream, window_start, next_offset, source)
SELECT
    project,
    day,
    packed.1,
    packed.2,
    packed.3,
    stream,
    window_start,
    least(newest_offset, greatest(counted_offset, window_start)),
    source
FROM (
    SELECT
        project,
        day,
        arraySort(groupArray((dimension, value, views))) AS packed,
        stream,
        window_start,
        max(next_offset) AS newest_offset,
        source
    FROM breakdown_daily FINAL
    GROUP BY project, stream, window_start, day, source
) AS of_window
LEFT JOIN (
    SELECT stream, window_start, max(next_offset) AS counted_offset
    FROM ledger
    GROUP BY stream, window_start
) AS counted USING (stream, window_start)
SETTINGS optimize_aggregation_in_order = 1, max_partitions_per_insert_block = 0;

-- The old name and its columns, for one release. This replaces the table atomically, so the name exists at any time.
CREATE OR REPLACE VIEW breakdown_daily AS
SELECT
    project,
    day,
    toLowCardinality(toString(dimension)) AS dimension,
    value,
    value_views AS views,
    stream,
    window_start,
    next_offset,
    source
FROM breakdown_window FINAL
ARRAY JOIN dimensions AS dimension, values AS value, views AS value_views;
