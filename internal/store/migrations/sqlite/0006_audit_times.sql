-- +goose Up

-- The time of an entry never goes back but where its body says that the clock did: between two such entries the numbers are
-- in the order of times, so that a time is found by its number, and times need no index of their own.
CREATE INDEX audit_log_clock_step ON audit_log (seq) WHERE instr(body, x'22636c6f636b5f73746570223a6e756c6c2c2264657461696c73223a') = 0; -- "clock_step":null,"details":
DROP INDEX audit_log_ts;

-- Personal parts behind the newest entry belong to none: they may go, so that they do not stand in the way of the next one's.

DROP TRIGGER audit_personal_delete;

-- +goose StatementBegin
CREATE TRIGGER audit_personal_delete BEFORE DELETE ON audit_personal
WHEN OLD.seq > coalesce((SELECT through FROM audit_boundary), 0) AND OLD.seq <= coalesce((SELECT max(seq) FROM audit_log), 0)
BEGIN SELECT RAISE(ABORT, 'audit_personal is append-only: DELETE refused of a row that no prune exported'); END;
-- +goose StatementEnd
