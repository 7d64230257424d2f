-- +goose Up

-- How long a project's work is kept; null: as the installation says.
ALTER TABLE projects ADD COLUMN task_retention_days smallint;
ALTER TABLE projects ADD COLUMN failed_retention_days smallint;
ALTER TABLE projects ADD COLUMN event_retention_days smallint;
-- A legal hold: nothing of the project is deleted while it stands. One of the whole installation stands in meta.
ALTER TABLE projects ADD COLUMN hold_since timestamptz;
ALTER TABLE projects ADD COLUMN hold_reason text;

-- What the sweep deleted and has not yet recorded in the audit log: a sweep that was killed is recorded by the next one.
CREATE TABLE retention_counts (
    project_id uuid NOT NULL,                       -- zero: of the whole installation
    name       text NOT NULL,                       -- of the table
    rows       bigint NOT NULL,
    partitions bigint NOT NULL,
    estimated  boolean NOT NULL,                    -- rows of whole partitions are not counted one by one
    PRIMARY KEY (project_id, name)
);
