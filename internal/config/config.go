// Package config reads the brain's settings.
//
// The struct Config is the one list of them: its tags are the environment variable, the flag of serve, the default, the
// range and the documentation (docs/configuration.md is generated from it), and its types say what is secret. Sources,
// highest first: flags of serve, the process's environment, $Z4J_HOME/config.env, $Z4J_HOME/secret.env, the default.
// Each value remembers where it came from. Nothing secret is ever printed, in errors neither.
package config

import (
	"net/netip"
	"time"
)

// Prefix begins the name of every setting.
const Prefix = "Z4J_"

// Dev is the only environment that relaxes anything.
const Dev = "dev"

// Config is every setting of the brain.
//
// Tags of a field: z4j is the name without Z4J_; unit what a number counts (of a duration); default, min, max and oneof
// what they say; alias other names; flag other names of its flag; from:"process" one that can't stand in a file; help
// what docs and `config show` say.
type Config struct {
	General     General     `title:"General"`
	Network     Network     `title:"Network"`
	Database    Database    `title:"Database"`
	Secrets     Keys        `title:"Secrets"`
	FirstBoot   FirstBoot   `title:"First account"`
	Accounts    Accounts    `title:"Passwords and sessions"`
	Agents      Agents      `title:"Agents"`
	Retention   Retention   `title:"Retention"`
	Audit       Audit       `title:"Audit log"`
	Backup      Backup      `title:"Backups"`
	ObjectStore ObjectStore `title:"Object store"`
	Observe     Observe     `title:"Observability"`

	// Warnings tell what is odd and not wrong. They hold no values of secrets.
	Warnings []string

	origins map[string]Origin
	unknown []Problem
}

// General is where the brain lives and how it talks.
type General struct {
	Home        string `z4j:"HOME" default:"~/.z4j" from:"process" help:"State directory: secret.env, config.env and, on SQLite, z4j.db. Only serve makes it."`
	Environment string `z4j:"ENVIRONMENT" flag:"env" help:"Only the exact word dev relaxes anything (cookies without Secure, no HSTS, short cookie names), and only on a loopback address. Without it a loopback bind is dev and any other production."`
	LogLevel    string `z4j:"LOG_LEVEL" default:"info" oneof:"debug,info,warn,error" help:"Least severe log line that is written."`
	LogFormat   string `z4j:"LOG_FORMAT" default:"text" oneof:"json,text" help:"Form of the log on standard error. Outside dev the default is json."`
}

// Network is where the brain listens and what it is called there.
type Network struct {
	BindHost        string         `z4j:"BIND_HOST" default:"127.0.0.1" flag:"host" help:"Address to listen on. 0.0.0.0 or :: is every one."`
	BindPort        int            `z4j:"BIND_PORT" default:"7700" min:"0" max:"65535" flag:"port" help:"Port to listen on; 0 takes a free one."`
	PublicURL       string         `z4j:"PUBLIC_URL" help:"Base of links, as browsers reach the brain. Without it: http, the bind address (the host's name if it is every one) and the port."`
	AllowHTTPPublic bool           `z4j:"ALLOW_HTTP_PUBLIC_URL" default:"false" help:"Permits an http:// public URL to a host that is not loopback, outside dev. Session cookies are marked Secure there: browsers send them over https and to localhost only."`
	AllowedHosts    []string       `z4j:"ALLOWED_HOSTS" flag:"allowed-host" help:"Host names that requests may name, without port. Without it: the host of the public URL and the bind address; for 127.0.0.1 and the like also localhost; for every address also the machine's names and addresses. The host of the public URL is always one."`
	TrustedProxies  []netip.Prefix `z4j:"TRUSTED_PROXIES" help:"Networks (CIDR) whose X-Forwarded-For is believed."`
	HSTSMaxAge      time.Duration  `z4j:"HSTS_MAX_AGE_SECONDS" unit:"s" default:"31536000" min:"0" max:"315360000" help:"Strict-Transport-Security of answers, outside dev with an https public URL. 0 leaves it out."`
	HSTSSubdomains  bool           `z4j:"HSTS_INCLUDE_SUBDOMAINS" default:"true" help:"Whether Strict-Transport-Security speaks for subdomains too."`
	MaxPayload      int            `z4j:"MAX_PAYLOAD_SIZE_BYTES" default:"1048576" min:"1024" max:"67108864" help:"Largest body of an API request."`
}

// Database is where the data is.
type Database struct {
	URL         DatabaseURL `z4j:"DATABASE_URL" help:"sqlite:///absolute/path, sqlite:relative/path, or postgres://user:password@host:5432/name?sslmode=verify-full. Without it: z4j.db in Z4J_HOME. The forms postgresql://, postgresql+asyncpg:// and sqlite+aiosqlite:// (there three slashes begin a relative path and four an absolute one) are read too."`
	RequireTLS  bool        `z4j:"REQUIRE_DB_SSL" default:"true" help:"Outside dev, refuse a Postgres that is neither loopback nor a socket when its URL does not say sslmode=require, verify-ca or verify-full."`
	AutoMigrate bool        `z4j:"AUTO_MIGRATE" default:"true" help:"Bring the schema up to date at start. With false, serve refuses an older schema and z4j-brain migrate upgrade is yours to run."`
}

// Keys are the secrets. The three of the set are given all or none.
type Keys struct {
	Master          Secret  `z4j:"SECRET" min:"32" help:"Master secret: hashes tokens, derives agents' signing secrets. The database knows its fingerprint and refuses another."`
	Session         Secret  `z4j:"SESSION_SECRET" min:"32" help:"Signs session cookies. A new one logs everybody out."`
	Audit           Secret  `z4j:"AUDIT_SECRET" alias:"AUDIT_CHAIN_SECRET" min:"32" help:"Signs the audit log."`
	PreviousMaster  Secrets `z4j:"PREVIOUS_SECRETS" min:"32" help:"Old values of Z4J_SECRET that are still accepted for verification; needed to change it."`
	PreviousSession Secrets `z4j:"PREVIOUS_SESSION_SECRETS" min:"32" help:"Old values of Z4J_SESSION_SECRET whose cookies go on being accepted."`
	PreviousAudit   Secrets `z4j:"AUDIT_SECRETS_PREVIOUS" alias:"AUDIT_CHAIN_PREVIOUS_SECRETS" min:"32" help:"Old values of Z4J_AUDIT_SECRET; needed to verify the rows that they signed and to change it."`
	Metrics         Secret  `z4j:"METRICS_AUTH_TOKEN" min:"16" help:"Bearer token for /metrics. Without it and without Z4J_METRICS_PUBLIC nobody may read them. Minted together with the other three."`
}

// FirstBoot makes the first account.
type FirstBoot struct {
	Email         string        `z4j:"BOOTSTRAP_ADMIN_EMAIL" flag:"admin-email" help:"With Z4J_BOOTSTRAP_ADMIN_PASSWORD: makes the first account when there is none."`
	Password      Secret        `z4j:"BOOTSTRAP_ADMIN_PASSWORD" min:"1" help:"Password of that account. Taken out of the process's environment after reading; the _FILE form keeps it out of it altogether."`
	DisplayName   string        `z4j:"BOOTSTRAP_ADMIN_DISPLAY_NAME" help:"Name of that account."`
	TokenTTL      time.Duration `z4j:"FIRST_BOOT_TOKEN_TTL_SECONDS" unit:"s" default:"900" min:"60" max:"86400" help:"Life of the one-time set-up token that serve prints while there is no account. A restart prints a new one."`
	AttemptsPerIP int           `z4j:"FIRST_BOOT_ATTEMPTS_PER_IP" default:"30" min:"1" max:"100" help:"Failed set-up tries in 15 minutes from one address; all addresses together have eight times as many."`
}

// Accounts rules passwords, log-ins and sessions.
type Accounts struct {
	PasswordMin      int           `z4j:"PASSWORD_MIN_LENGTH" default:"12" min:"8" max:"128" help:"Shortest password."`
	LockoutThreshold int           `z4j:"LOGIN_LOCKOUT_THRESHOLD" default:"10" min:"3" max:"100" help:"Failed log-ins that lock an account."`
	LockoutDuration  time.Duration `z4j:"LOGIN_LOCKOUT_DURATION_SECONDS" unit:"s" default:"900" min:"60" max:"86400" help:"For how long."`
	LoginMin         time.Duration `z4j:"LOGIN_MIN_DURATION_MS" unit:"ms" default:"300" min:"0" max:"2000" help:"Least time that a log-in takes, so that it doesn't tell which accounts exist."`
	SessionLifetime  time.Duration `z4j:"SESSION_ABSOLUTE_LIFETIME_SECONDS" unit:"s" default:"604800" min:"60" max:"315360000" help:"Life of a session."`
	SessionIdle      time.Duration `z4j:"SESSION_IDLE_TIMEOUT_SECONDS" unit:"s" default:"1800" min:"60" max:"315360000" help:"A session that is not used ends after it."`
	SessionRemember  time.Duration `z4j:"SESSION_REMEMBER_ME_LIFETIME_SECONDS" unit:"s" default:"2592000" min:"60" max:"315360000" help:"Life of a session that is remembered; it has no idle time-out."`
	CookieSameSite   string        `z4j:"SESSION_COOKIE_SAMESITE" default:"lax" oneof:"lax,strict" help:"SameSite of the session cookie."`
	ArgonTime        int           `z4j:"ARGON2_TIME_COST" default:"3" min:"1" max:"10" help:"Passes of argon2id. A change takes hold of a password at its next log-in."`
	ArgonMemory      int           `z4j:"ARGON2_MEMORY_COST" unit:"KiB" default:"65536" min:"8192" max:"1048576" help:"Memory of argon2id."`
	ArgonParallel    int           `z4j:"ARGON2_PARALLELISM" default:"4" min:"1" max:"16" help:"Lanes of argon2id."`
}

// Agents bounds agents' connections.
type Agents struct {
	MaxFrame    int           `z4j:"WS_MAX_FRAME_BYTES" default:"1048576" min:"1048576" max:"33554432" help:"Largest frame of an agent; told in hello_ack. Less than 1 MiB would make agents drop events."`
	SlotCap     int           `z4j:"WS_PER_AGENT_CONCURRENCY_CAP" default:"64" min:"0" max:"10000" help:"Processes that may be connected with one agent's token; 0 is any number."`
	IdleTimeout time.Duration `z4j:"WS_IDLE_TIMEOUT_SECONDS" unit:"s" default:"90" min:"15" max:"3600" help:"A connection without a frame ends after it."`
}

// Retention says how far back data is kept.
type Retention struct {
	TaskDays       int    `z4j:"TASK_RETENTION_DAYS" default:"90" min:"1" max:"3650" help:"Tasks and events that are older are deleted by a daily sweep. Events that arrive when they are older go to the dead letters. A project may say otherwise."`
	FailedDays     int    `z4j:"FAILED_TASK_RETENTION_DAYS" default:"0" min:"0" max:"3650" help:"Keeps failed, rejected and lost tasks for longer than others; 0 is as long. A project may say otherwise."`
	UnfinishedDays int    `z4j:"UNFINISHED_TASK_RETENTION_DAYS" default:"365" min:"0" max:"3650" help:"Keeps tasks whose end was never heard of for longer than others, counted from their last sign of life; 0 is for ever."`
	EventDays      int    `z4j:"EVENT_RETENTION_DAYS" default:"0" min:"0" max:"3650" help:"Keeps events for less time than tasks; 0 is as long. Whole days go. A project may say otherwise."`
	SweepTime      string `z4j:"RETENTION_TIME" default:"03:30" help:"Time of day, in UTC, of the sweep that deletes. A brain that was down then sweeps when it is back."`
}

// Audit is about the audit log.
type Audit struct {
	Anchors            []string      `z4j:"AUDIT_ANCHORS" help:"Places beside Z4J_HOME/anchors that keep the signed checkpoints of the audit log, so that a log which was cut or set back is noticed: directories, best on another machine, and s3://bucket/prefix. One that can't be reached holds nothing up."`
	CheckpointInterval time.Duration `z4j:"AUDIT_CHECKPOINT_INTERVAL" unit:"s" default:"60" min:"1" max:"86400" help:"How often a checkpoint is signed when something is new; after grave actions it is at once. What was not signed yet can be lost unnoticed while no brain runs."`
	FailoverGrace      time.Duration `z4j:"AUDIT_FAILOVER_GRACE" unit:"s" default:"60" min:"0" max:"86400" help:"When a standby of Postgres takes over and the entries that it lacks span no more than this, and are no more than 1,000, changes go on by themselves, on record. Any other loss holds changes until somebody says what happened; 0 makes every one."`
	VerifyInterval     time.Duration `z4j:"AUDIT_VERIFY_INTERVAL" unit:"s" default:"3600" min:"0" max:"604800" help:"How often the brain verifies what was added to the audit log since the newest checkpoint; every row daily, from ten million on weekly. Health, metrics and the log tell what it finds. 0 is never."`
}

// Observe is what the brain shows about itself.
type Observe struct {
	MetricsPublic     bool   `z4j:"METRICS_PUBLIC" default:"false" help:"Lets everybody read /metrics."`
	OpenAPIVisibility string `z4j:"OPENAPI_VISIBILITY" default:"public" oneof:"public,private,disabled" help:"Who may read /api/v1/openapi.json and /docs: everybody, who is logged in, or nobody."`
}

// SweepAt is the time of the daily sweep, since midnight UTC.
func (r *Retention) SweepAt() time.Duration {
	at, err := time.Parse("15:04", r.SweepTime)
	if err != nil {
		return 0 // Load refused it
	}
	return time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute
}

// IsDev reports whether the environment is dev, which relaxes what the help of Z4J_ENVIRONMENT says.
func (c *Config) IsDev() bool { return c.General.Environment == Dev }

// Given reports whether a setting (BIND_HOST) was given and not left to its default or derived.
func (c *Config) Given(name string) bool {
	k := c.origins[name].Kind
	return k != FromDefault && k != Derived && k != ""
}

// Origin says where a setting's value came from.
func (c *Config) Origin(name string) Origin { return c.origins[name] }

// Complete reports whether the set of the three secrets that every brain needs is there.
func (k *Keys) Complete() bool { return len(k.missing()) == 0 }

// None reports whether not one of the three secrets is there.
func (k *Keys) None() bool { return len(k.missing()) == 3 }

// missing names the secrets of the set that are not there.
func (k *Keys) missing() []string {
	var out []string
	for _, s := range []struct {
		name string
		is   Secret
	}{{"Z4J_SECRET", k.Master}, {"Z4J_SESSION_SECRET", k.Session}, {"Z4J_AUDIT_SECRET", k.Audit}} {
		if s.is.IsZero() {
			out = append(out, s.name)
		}
	}
	return out
}
