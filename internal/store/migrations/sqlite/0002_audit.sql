-- +goose Up

-- The audit chain: one for the whole installation, in the order of seq, which is dense. No column refers to another
-- table: what was signed never changes. An empty text is NULL.
CREATE TABLE audit_log (
    seq             integer PRIMARY KEY NOT NULL,
    id              blob NOT NULL,
    ts              integer NOT NULL,           -- the host's clock
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
    body            blob NOT NULL,                 -- the bytes that were signed
    prev_row_hmac   text,
    row_hmac        text NOT NULL
);
CREATE INDEX audit_log_project ON audit_log (project_id, seq) WHERE project_id IS NOT NULL;
CREATE INDEX audit_log_actor ON audit_log (actor_id, seq) WHERE actor_id IS NOT NULL;
CREATE INDEX audit_log_action ON audit_log (action, seq);
CREATE INDEX audit_log_ts ON audit_log (ts, seq);

-- What entries say of persons, so that a person can be forgotten. Of an erased part seq, role and erased_by are left.
CREATE TABLE audit_personal (
    seq       integer NOT NULL,
    role      text NOT NULL,                        -- actor, target
    subject   text,                                 -- whose: an account's id, else an address
    salt      blob,
    json      text,
    erased_by integer,                               -- seq of the audit.erased
    PRIMARY KEY (seq, role)
);
CREATE INDEX audit_personal_subject ON audit_personal (subject) WHERE subject IS NOT NULL;

-- Who appends locks this row. It is never updated: a row that every append updates grows dead versions as long as any
-- backup holds a snapshot.
CREATE TABLE audit_lock (
    id integer PRIMARY KEY CHECK (id = 1)
);
INSERT INTO audit_lock (id) VALUES (1);

-- The tables below are for speed, and may stop something. What lets a check pass is the row of the chain behind each.

-- Rows up to here were exported and may be deleted.
CREATE TABLE audit_boundary (
    id        integer PRIMARY KEY CHECK (id = 1),
    through   integer NOT NULL,
    entry_seq integer                                -- the audit.pruned
);
INSERT INTO audit_boundary (id, through) VALUES (1, 0);

CREATE TABLE audit_kids (
    kid        text PRIMARY KEY,
    public_key text NOT NULL,
    introduced integer NOT NULL,                     -- seq of the entry
    retired    integer
);

CREATE TABLE audit_generations (
    generation text PRIMARY KEY,
    started    integer NOT NULL,                     -- seq of the entry
    previous   text,
    fork       integer,                              -- the size up to which it and the one before agree
    cause      text NOT NULL
);

CREATE TABLE audit_hold (
    id            integer PRIMARY KEY CHECK (id = 1),
    since         integer NOT NULL,
    reason        text NOT NULL,
    entry_seq     integer,                           -- the audit.history_in_doubt
    lost_seq      integer,
    lost_row_hmac text,
    lost_ts       integer
);

CREATE TABLE audit_place (
    id         integer PRIMARY KEY CHECK (id = 1),
    identifier text NOT NULL,                       -- of the cluster and the database, or of the file
    location   text NOT NULL,                       -- host, port and name
    timeline   integer NOT NULL,
    updated_at integer NOT NULL
);

CREATE TABLE audit_frontier (
    id         integer PRIMARY KEY CHECK (id = 1),
    generation text NOT NULL,
    size       integer NOT NULL,
    peaks      blob NOT NULL
);

CREATE TABLE audit_checkpoints (
    generation text NOT NULL,
    size       integer NOT NULL,
    root       blob NOT NULL,
    row_hmac   text NOT NULL,
    timeline   integer NOT NULL,
    note       text NOT NULL,                       -- as signed
    created_at integer NOT NULL,
    PRIMARY KEY (generation, size)
);

-- Guard rails against accidents, not against who may drop them. The one before INSERT is for INSERT OR REPLACE, which
-- deletes without asking a trigger.

-- +goose StatementBegin
CREATE TRIGGER audit_log_update BEFORE UPDATE ON audit_log
BEGIN SELECT RAISE(ABORT, 'audit_log is append-only: UPDATE refused'); END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_log_insert BEFORE INSERT ON audit_log WHEN EXISTS (SELECT 1 FROM audit_log WHERE seq = NEW.seq)
BEGIN SELECT RAISE(ABORT, 'audit_log is append-only: the row is there already'); END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_log_delete BEFORE DELETE ON audit_log WHEN OLD.seq > coalesce((SELECT through FROM audit_boundary), 0)
BEGIN SELECT RAISE(ABORT, 'audit_log is append-only: DELETE refused of a row that no prune exported'); END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_personal_update BEFORE UPDATE ON audit_personal
WHEN NEW.seq <> OLD.seq OR NEW.role <> OLD.role OR NEW.erased_by IS NULL OR NEW.json IS NOT NULL OR NEW.salt IS NOT NULL OR NEW.subject IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'audit_personal is append-only: UPDATE refused'); END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_personal_insert BEFORE INSERT ON audit_personal WHEN EXISTS (SELECT 1 FROM audit_personal WHERE seq = NEW.seq AND role = NEW.role)
BEGIN SELECT RAISE(ABORT, 'audit_personal is append-only: the row is there already'); END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_personal_delete BEFORE DELETE ON audit_personal WHEN OLD.seq > coalesce((SELECT through FROM audit_boundary), 0)
BEGIN SELECT RAISE(ABORT, 'audit_personal is append-only: DELETE refused of a row that no prune exported'); END;
-- +goose StatementEnd
