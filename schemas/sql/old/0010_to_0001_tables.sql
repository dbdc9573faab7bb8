-- Schema version 10: a database of version 9 gets the tables of 0001_tables.sql, in place. No row is copied; each statement may run again.

ALTER TABLE month_closed_page
    ADD COLUMN IF NOT EXISTS day_views Array(UInt64) CODEC(ZSTD(1));

ALTER TABLE project
    ADD COLUMN IF NOT EXISTS aliases Array(String);
