-- 1 where a project stores paths without the trailing slash, or without .html at their end.
ALTER TABLE project
    ADD COLUMN IF NOT EXISTS strip_trailing_slash UInt8,
    ADD COLUMN IF NOT EXISTS strip_html UInt8;
