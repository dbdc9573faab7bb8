-- Schema version 10: a database of version 9 gets the tables of 0001_tables.sql, in place. No row is copied; each statement may run again.

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
