-- +goose Up

-- The time of an entry never goes back but where its body says that the clock did: between two such entries the numbers are
-- in the order of times, so that a time is found by its number, and times need no index of their own.
CREATE INDEX audit_log_clock_step ON audit_log (seq) WHERE position('\x22636c6f636b5f73746570223a6e756c6c2c2264657461696c73223a'::bytea in body) = 0; -- "clock_step":null,"details":
DROP INDEX audit_log_ts;

-- Personal parts behind the newest entry belong to none: they may go, so that they do not stand in the way of the next one's.

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit_refuse_delete() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF OLD.seq > coalesce((SELECT through FROM audit_boundary), 0)
        AND (TG_TABLE_NAME <> 'audit_personal' OR OLD.seq <= coalesce((SELECT max(seq) FROM audit_log), 0)) THEN
        RAISE EXCEPTION '% is append-only: DELETE of row % refused, which no prune exported', TG_TABLE_NAME, OLD.seq;
    END IF;
    RETURN OLD;
END $$;
-- +goose StatementEnd
