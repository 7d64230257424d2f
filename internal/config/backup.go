package config

import "time"

// Backup says when and where backups are made.
type Backup struct {
	Schedule    string        `z4j:"BACKUP_SCHEDULE" help:"When the brain makes backups by itself, as a cron expression of five fields in UTC, such as 0 3 * * *; CRON_TZ=Europe/Berlin before it takes another zone. One that was missed is made up for. Empty: never. Of several brains one makes it."`
	Target      string        `z4j:"BACKUP_TARGET" help:"Where backups are kept: a directory or s3://bucket/prefix. Without it: backups in Z4J_HOME, which is no place that outlives the machine."`
	Recipients  []string      `z4j:"BACKUP_RECIPIENTS" help:"Public keys (age1…) to which backups are encrypted; whoever has the secret key of one can restore. Make a pair with age-keygen."`
	Passphrase  Secret        `z4j:"BACKUP_PASSPHRASE" min:"12" help:"Instead of recipients: a passphrase that encrypts backups and opens them again."`
	Keep        string        `z4j:"BACKUP_KEEP" help:"Which backups stay after a new one was made, such as daily=7,weekly=5,monthly=12 (also last, hourly, yearly). Empty: all."`
	Tmp         string        `z4j:"BACKUP_TMP" help:"SQLite: a directory for the copy of the database that a backup reads. Without it: the target if that is a directory, else Z4J_HOME, else beside the database; the first that has room."`
	MaxDuration time.Duration `z4j:"BACKUP_MAX_DURATION" unit:"s" default:"21600" min:"60" max:"604800" help:"A backup that takes longer is ended and has failed. Also written as 6h or 90m."`
	RPO         time.Duration `z4j:"RPO" unit:"s" default:"90000" min:"60" max:"31622400" help:"How much may be lost: with a schedule, health and the log complain when the newest good backup is older. Also written as 25h or 2d."`

	Identity      Secret        `z4j:"BACKUP_IDENTITY" min:"40" help:"A secret key of age (AGE-SECRET-KEY-1…) that opens backups; scheduled drills of encrypted ones need it, unless there is a passphrase. Whoever has it can read the backups: give it to no machine that only makes them."`
	DrillSchedule string        `z4j:"DRILL_SCHEDULE" help:"When the brain restores the newest backup into a scratch database and tries it, as Z4J_BACKUP_SCHEDULE is written, such as 0 4 1 */3 * for once in a quarter. Empty: never. Of several brains one does it."`
	RTO           time.Duration `z4j:"RTO" unit:"s" default:"14400" min:"1" max:"31622400" help:"How long a restore may take until the brain serves again: drills compare. Also written as 4h."`
}

// ObjectStore says how s3:// locations are reached.
type ObjectStore struct {
	Endpoint  string `z4j:"S3_ENDPOINT" help:"https://host:port of an S3 server; http:// is for one on a trusted network. Without it: AWS."`
	Region    string `z4j:"S3_REGION" help:"Region of the buckets. Without it the server is asked."`
	KeyID     Secret `z4j:"S3_ACCESS_KEY_ID" min:"1" help:"Access key id. Without it: AWS_ACCESS_KEY_ID, ~/.aws/credentials, or the role of the machine."`
	SecretKey Secret `z4j:"S3_SECRET_ACCESS_KEY" min:"1" help:"Secret access key."`
}
