-- Schema version 2.
--
-- Which partition of which topic a stream is. A partition has several streams where its topic was made anew.

CREATE TABLE IF NOT EXISTS stream (
    stream UInt64,
    cluster String,
    topic String,
    partition Int32,
    born DateTime('UTC')
) ENGINE = ReplacingMergeTree ORDER BY (cluster, topic, partition, stream)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
