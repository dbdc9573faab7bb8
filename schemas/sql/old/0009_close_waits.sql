-- Schema version 9: a month is closed when all that the logs had accepted by the time at which it was due is counted.

-- Of a month that is due: the live streams, and the offset after the last record of each when an aggregator first saw that the month
-- was due. The newest row of a month holds.
CREATE TABLE IF NOT EXISTS month_due (
    month Date,
    noted DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC'),
    streams Array(UInt64),
    ends Array(UInt64)
) ENGINE = ReplacingMergeTree(noted)
ORDER BY month
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
