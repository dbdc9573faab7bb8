-- What other counters call a project, such as umami:UUID or plausible:DOMAIN.
ALTER TABLE project
    ADD COLUMN IF NOT EXISTS aliases Array(String);
