-- Networks (CIDR) whose views a project does not count.
ALTER TABLE project
    ADD COLUMN IF NOT EXISTS ignore_networks Array(String);
