-- Imports of access logs (docs/decisions/imports.md). An import is a log of its own: its rows in the summaries' tables have its stream.
--
-- state: running, staged (all rows are written, in a database of the import's own), published (they are in the tables), complete, removing; the
-- row with the largest revision is active. file_key: fingerprint of the key of file_blocks, which is in no table. file_blocks: keyed hashes of
-- blocks of at least 1 MiB of a file's text; of a shorter file, the hash of all of it. file_bytes: bytes of the text.
CREATE TABLE IF NOT EXISTS import (
    stream UInt64,
    revision UInt8,
    state LowCardinality(String),
    started DateTime('UTC'),
    finished DateTime('UTC'),
    file_key UInt64,
    lines UInt64,
    not_counted UInt64,
    not_read UInt64,
    file_names Array(String),
    file_bytes Array(UInt64),
    file_blocks Array(Array(UInt64))
) ENGINE = ReplacingMergeTree(revision)
ORDER BY stream
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- What an import has of a project's month: views of people, and of robots. has_visitors: 1 if it had the month's first figures.
CREATE TABLE IF NOT EXISTS import_month (
    stream UInt64,
    project String,
    month Date,
    views UInt64,
    robots UInt64,
    has_visitors UInt8
) ENGINE = ReplacingMergeTree
ORDER BY (stream, project, month)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
