-- +goose Up

-- The audit chain: one for the whole installation, in the order of seq, which is dense. No column refers to another
-- table: what was signed never changes. An empty text is NULL.
CREATE TABLE audit_log (
    seq             bigint PRIMARY KEY,
    id              uuid NOT NULL,
    ts              timestamptz NOT NULL,           -- the database's clock
    actor_kind      text NOT NULL,
    actor_id        text,
    project_id      text,
    project_label   text,
    action          text NOT NULL,
    target_type     text,
    target_id       text,
    target_label    text,
    outcome         text NOT NULL,                  -- allow, deny, error
    details         text,                           -- JSON, as in body
    request_id      text,
    kid             text NOT NULL,
    actor_personal  text,                           -- SHA-256 of the actor's part of audit_personal
    target_personal text,
    body            bytea NOT NULL,                 -- the bytes that were signed
    prev_row_hmac   text,
    row_hmac        text NOT NULL
);
CREATE INDEX audit_log_project ON audit_log (project_id, seq) WHERE project_id IS NOT NULL;
CREATE INDEX audit_log_actor ON audit_log (actor_id, seq) WHERE actor_id IS NOT NULL;
CREATE INDEX audit_log_action ON audit_log (action COLLATE "C", seq);
CREATE INDEX audit_log_ts ON audit_log (ts, seq);

-- What entries say of persons, so that a person can be forgotten. Of an erased part seq, role and erased_by are left.
CREATE TABLE audit_personal (
    seq       bigint NOT NULL,
    role      text NOT NULL,                        -- actor, target
    subject   text,                                 -- whose: an account's id, else an address
    salt      bytea,
    json      text,
    erased_by bigint,                               -- seq of the audit.erased
    PRIMARY KEY (seq, role)
);
CREATE INDEX audit_personal_subject ON audit_personal (subject) WHERE subject IS NOT NULL;

-- Who appends locks this row. It is never updated: a row that every append updates grows dead versions as long as any
-- backup holds a snapshot.
CREATE TABLE audit_lock (
    id smallint PRIMARY KEY CHECK (id = 1)
);
INSERT INTO audit_lock (id) VALUES (1);

-- The tables below are for speed, and may stop something. What lets a check pass is the row of the chain behind each.

-- Rows up to here were exported and may be deleted.
CREATE TABLE audit_boundary (
    id        smallint PRIMARY KEY CHECK (id = 1),
    through   bigint NOT NULL,
    entry_seq bigint                                -- the audit.pruned
);
INSERT INTO audit_boundary (id, through) VALUES (1, 0);

CREATE TABLE audit_kids (
    kid        text PRIMARY KEY,
    public_key text NOT NULL,
    introduced bigint NOT NULL,                     -- seq of the entry
    retired    bigint
);

CREATE TABLE audit_generations (
    generation text PRIMARY KEY,
    started    bigint NOT NULL,                     -- seq of the entry
    previous   text,
    fork       bigint,                              -- the size up to which it and the one before agree
    cause      text NOT NULL
);

CREATE TABLE audit_hold (
    id            smallint PRIMARY KEY CHECK (id = 1),
    since         timestamptz NOT NULL,
    reason        text NOT NULL,
    entry_seq     bigint,                           -- the audit.history_in_doubt
    lost_seq      bigint,
    lost_row_hmac text,
    lost_ts       timestamptz
);

CREATE TABLE audit_place (
    id         smallint PRIMARY KEY CHECK (id = 1),
    identifier text NOT NULL,                       -- of the cluster and the database, or of the file
    location   text NOT NULL,                       -- host, port and name
    timeline   bigint NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE TABLE audit_frontier (
    id         smallint PRIMARY KEY CHECK (id = 1),
    generation text NOT NULL,
    size       bigint NOT NULL,
    peaks      bytea NOT NULL
);

CREATE TABLE audit_checkpoints (
    generation text NOT NULL,
    size       bigint NOT NULL,
    root       bytea NOT NULL,
    row_hmac   text NOT NULL,
    timeline   bigint NOT NULL,
    note       text NOT NULL,                       -- as signed
    created_at timestamptz NOT NULL,
    PRIMARY KEY (generation, size)
);

-- Guard rails against accidents, not against who may drop them.

-- +goose StatementBegin
CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION audit_refuse_delete() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF OLD.seq > coalesce((SELECT through FROM audit_boundary), 0) THEN
        RAISE EXCEPTION '% is append-only: DELETE of row % refused, which no prune exported', TG_TABLE_NAME, OLD.seq;
    END IF;
    RETURN OLD;
END $$;
-- +goose StatementEnd

CREATE TRIGGER audit_log_update BEFORE UPDATE ON audit_log FOR EACH ROW EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_log_truncate BEFORE TRUNCATE ON audit_log EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_log_delete BEFORE DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION audit_refuse_delete();
CREATE TRIGGER audit_personal_update BEFORE UPDATE ON audit_personal FOR EACH ROW
    WHEN (NEW.seq <> OLD.seq OR NEW.role <> OLD.role OR NEW.erased_by IS NULL OR NEW.json IS NOT NULL OR NEW.salt IS NOT NULL OR NEW.subject IS NOT NULL)
    EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_personal_truncate BEFORE TRUNCATE ON audit_personal EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_personal_delete BEFORE DELETE ON audit_personal FOR EACH ROW EXECUTE FUNCTION audit_refuse_delete();
