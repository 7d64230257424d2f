-- +goose Up

-- The size up to which the history that is in doubt and the one that is lost agree; NULL is unknown.
ALTER TABLE audit_hold ADD COLUMN fork integer;
