-- +goose Up

-- An API key: acts for its owner, within its scopes. Its text is nowhere, only the keyed hash.
CREATE TABLE api_keys (
    id             uuid PRIMARY KEY,
    user_id        uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    project_id     uuid REFERENCES projects (id) ON DELETE CASCADE, -- the one that it is bound to; null: its owner's all
    name           text NOT NULL,
    prefix         text NOT NULL,                   -- its first 8 characters
    token_hash     text NOT NULL UNIQUE,
    secret_id      text NOT NULL,                   -- of the master secret that token_hash is made with
    scopes         text NOT NULL,                   -- JSON list
    allowed_cidrs  text,                            -- JSON list; null: from everywhere
    expires_at     timestamptz,                     -- null: never
    revoked_at     timestamptz,
    revoked_reason text,
    suspended_at   timestamptz,                     -- by a restore, until it is released
    last_used_at   timestamptz,
    last_used_ip   text,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL
);
CREATE INDEX api_keys_user ON api_keys (user_id);
CREATE INDEX api_keys_project ON api_keys (project_id);

ALTER TABLE agents ADD COLUMN secret_id text;       -- of the master secret of token and signatures; null: not seen since this column is here
CREATE INDEX agents_revoked ON agents (revoked_at) WHERE revoked_at IS NOT NULL;
