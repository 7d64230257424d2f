-- +goose Up

CREATE TABLE meta (
    key        text PRIMARY KEY,
    value      text NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE TABLE leases (
    name   text PRIMARY KEY,
    holder text NOT NULL,
    until  timestamptz NOT NULL
);

CREATE TABLE users (
    id                   uuid PRIMARY KEY,
    email                text NOT NULL UNIQUE,      -- canonical form
    password_hash        text NOT NULL,             -- argon2id, PHC string
    display_name         text,
    first_name           text,
    last_name            text,
    is_admin             boolean NOT NULL DEFAULT false,
    is_active            boolean NOT NULL DEFAULT true,
    timezone             text NOT NULL DEFAULT 'UTC',
    last_login_at        timestamptz,
    failed_login_count   integer NOT NULL DEFAULT 0,
    last_failed_login_at timestamptz,
    locked_until         timestamptz,
    password_changed_at  timestamptz,
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL
);

CREATE TABLE sessions (
    id                uuid PRIMARY KEY,
    user_id           uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    csrf_token        text NOT NULL,
    remembered        boolean NOT NULL,
    issued_at         timestamptz NOT NULL,
    expires_at        timestamptz NOT NULL,
    last_seen_at      timestamptz NOT NULL,
    revoked_at        timestamptz,
    revocation_reason text,
    ip                text,
    user_agent        text
);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE first_boot_tokens (
    token_hash text PRIMARY KEY,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE projects (
    id                      uuid PRIMARY KEY,
    slug                    text NOT NULL UNIQUE,
    name                    text NOT NULL,
    description             text,
    environment             text NOT NULL DEFAULT 'production',
    timezone                text NOT NULL DEFAULT 'UTC',
    is_active               boolean NOT NULL DEFAULT true,
    default_scheduler_owner text NOT NULL DEFAULT 'z4j-scheduler',
    allowed_schedulers      text,                   -- JSON list; null: any
    created_at              timestamptz NOT NULL,
    updated_at              timestamptz NOT NULL
);

CREATE TABLE memberships (
    id         uuid PRIMARY KEY,
    project_id uuid NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    user_id    uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role       text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    UNIQUE (project_id, user_id)
);
CREATE INDEX memberships_user ON memberships (user_id);

-- One enrolled token. A revoked agent keeps its row: its events name it.
CREATE TABLE agents (
    id                 uuid PRIMARY KEY,
    project_id         uuid NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name               text NOT NULL,
    token_hash         text NOT NULL UNIQUE,
    protocol_version   text NOT NULL DEFAULT '0',
    framework_adapter  text NOT NULL DEFAULT 'unknown',
    engine_adapters    text NOT NULL DEFAULT '[]',  -- JSON list
    scheduler_adapters text NOT NULL DEFAULT '[]',  -- JSON list
    capabilities       text NOT NULL DEFAULT '{}',  -- JSON object: adapter to list
    host_name          text,
    agent_version      text,
    last_seen_at       timestamptz,                 -- receive time
    last_connect_at    timestamptz,
    created_at         timestamptz NOT NULL,
    revoked_at         timestamptz
);
CREATE UNIQUE INDEX agents_name ON agents (project_id, name) WHERE revoked_at IS NULL;

-- One process of an agent: the slot of its connection. worker_id '' is the slot of agents that name none.
CREATE TABLE agent_workers (
    project_id      uuid NOT NULL,
    agent_id        uuid NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    worker_id       text NOT NULL,
    has_worker_id   boolean NOT NULL,
    id              uuid NOT NULL,
    session_id      text NOT NULL,                  -- of the newest connection; an older one's end changes nothing
    role            text,
    framework       text,
    pid             bigint,
    started_at      timestamptz,
    state           text NOT NULL,                  -- online, offline
    last_seen_at    timestamptz NOT NULL,           -- receive time
    last_connect_at timestamptz NOT NULL,
    status          text,                           -- newest agent_status, JSON
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    PRIMARY KEY (project_id, agent_id, has_worker_id, worker_id)
) WITH (fillfactor = 80);

-- A task: the fold of its marks (docs/decisions). What an attempt knows stands in attempts only.
CREATE TABLE tasks (
    project_id     uuid NOT NULL,
    task_key       uuid NOT NULL,                   -- the task id if it is a UUID, else 16 bytes of its hash
    id             uuid NOT NULL,                   -- UUIDv7 of the first mark: lists go by it
    created_at     timestamptz NOT NULL,            -- receive time of the first mark
    updated_at     timestamptz NOT NULL,
    last_at        timestamptz NOT NULL,            -- order time of the newest mark: retention goes by it
    received_at    timestamptz,
    started_at     timestamptz,
    finished_at    timestamptz,
    eta            timestamptz,
    wait_us        bigint,
    runtime_us     bigint,
    state          smallint NOT NULL,
    rare_state     smallint,                        -- state where it is a rare one: its index leaves the common path HOT
    deciding       integer NOT NULL DEFAULT 0,      -- number of the attempt that decides; 0: none
    attempts       integer NOT NULL DEFAULT 0,
    retry_count    integer NOT NULL DEFAULT 0,
    deliveries     integer NOT NULL DEFAULT 0,
    truncated      boolean NOT NULL DEFAULT false,  -- marks beyond the bound: counts say "at least"
    engine         text NOT NULL,
    task_id        text NOT NULL,
    name           text,
    queue          text,
    worker         text,
    priority       text,
    parent_task_id text,
    root_task_id   text,
    reason         text,                            -- why revoked or lost
    args           text,                            -- JSON
    kwargs         text,                            -- JSON
    tags           text,                            -- JSON
    marks          bytea NOT NULL,                  -- package fold
    PRIMARY KEY (project_id, engine, task_key)
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX tasks_list ON tasks (project_id, id);
CREATE INDEX tasks_name ON tasks (project_id, name, id);
CREATE INDEX tasks_rare ON tasks (project_id, rare_state, id) WHERE rare_state IS NOT NULL;

CREATE TABLE attempts (
    project_id        uuid NOT NULL,
    task_key          uuid NOT NULL,
    number            integer NOT NULL,
    state             smallint NOT NULL,
    started_at        timestamptz,
    finished_at       timestamptz,
    wait_us           bigint,
    runtime_us        bigint,
    retries           integer,
    engine            text NOT NULL,
    worker            text,
    result            text,                         -- JSON
    exception         text,
    exception_message text,
    traceback         text,
    reason            text,
    PRIMARY KEY (project_id, engine, task_key, number)
) WITH (fillfactor = 80);

-- What an end carried that closes no attempt now: a late start may still give it one.
CREATE TABLE task_payloads (
    project_id uuid NOT NULL,
    task_key   uuid NOT NULL,
    mark       bytea NOT NULL,                      -- package fold: the mark's key
    engine     text NOT NULL,
    payload    text NOT NULL,                       -- JSON
    PRIMARY KEY (project_id, engine, task_key, mark)
);

CREATE TABLE events (
    project_id  uuid NOT NULL,
    id          uuid NOT NULL,                      -- UUIDv5 of the event's identity
    agent_id    uuid NOT NULL,
    task_key    uuid,                               -- null: not about a task
    occurred_at timestamptz NOT NULL,               -- as sent
    received_at timestamptz NOT NULL,
    engine      text NOT NULL,
    task_id     text NOT NULL,
    kind        text NOT NULL,
    worker      text,
    payload     text NOT NULL,                      -- JSON, redacted
    PRIMARY KEY (project_id, occurred_at, id)
) PARTITION BY RANGE (occurred_at);
CREATE INDEX events_task ON events (project_id, task_key, occurred_at);

CREATE TABLE dead_letters (
    project_id  uuid NOT NULL,
    id          uuid NOT NULL,                      -- UUIDv7 of the receive time
    agent_id    uuid NOT NULL,
    received_at timestamptz NOT NULL,
    frame_id    text NOT NULL,
    reason      text NOT NULL,
    detail      text NOT NULL,
    size        integer NOT NULL,                   -- bytes as received
    body        text NOT NULL,                      -- redacted, cut
    PRIMARY KEY (project_id, id)
);

CREATE TABLE workers (
    project_id   uuid NOT NULL,
    engine       text NOT NULL,
    name         text NOT NULL,
    id           uuid NOT NULL,
    agent_id     uuid,                              -- whose heartbeat reported it
    hostname     text,
    pid          bigint,
    concurrency  bigint,
    queues       text NOT NULL DEFAULT '[]',        -- JSON list
    stopped_at   timestamptz,                       -- it said goodbye; null since its next sign of life
    last_seen_at timestamptz NOT NULL,              -- receive time
    offset_us    bigint,                            -- its clock against ours
    load_average text,                              -- JSON list
    active_tasks bigint,
    metadata     text NOT NULL DEFAULT '{}',        -- JSON
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (project_id, engine, name)
);
CREATE UNIQUE INDEX workers_id ON workers (project_id, id);
CREATE INDEX workers_seen ON workers (project_id, last_seen_at);

CREATE TABLE queues (
    project_id    uuid NOT NULL,
    engine        text NOT NULL,
    name          text NOT NULL,
    id            uuid NOT NULL,
    broker_type   text,
    pending_count bigint,                           -- null: unknown
    pending_at    timestamptz,
    last_seen_at  timestamptz NOT NULL,
    created_at    timestamptz NOT NULL,
    PRIMARY KEY (project_id, engine, name)
);
CREATE UNIQUE INDEX queues_id ON queues (project_id, id);

-- Differences that the fold made, by minute and by hour; measure is package fold's.
CREATE TABLE rollup_minutes (
    project_id uuid NOT NULL,
    bucket     timestamptz NOT NULL,
    measure    smallint NOT NULL,
    name       text NOT NULL,
    queue      text NOT NULL,
    count      bigint NOT NULL,
    sum        bigint NOT NULL,
    PRIMARY KEY (project_id, bucket, measure, name, queue)
) WITH (fillfactor = 80);
CREATE TABLE rollup_hours (
    project_id uuid NOT NULL,
    bucket     timestamptz NOT NULL,
    measure    smallint NOT NULL,
    name       text NOT NULL,
    queue      text NOT NULL,
    count      bigint NOT NULL,
    sum        bigint NOT NULL,
    PRIMARY KEY (project_id, bucket, measure, name, queue)
) WITH (fillfactor = 80);
-- What is counted, without the histograms: no update of a count touches it.
CREATE INDEX rollup_hours_counts ON rollup_hours (project_id, measure, bucket) WHERE measure < 128;
