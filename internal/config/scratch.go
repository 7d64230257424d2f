package config

// Scratch is c for a brain that a drill starts on a restored database: the same secrets and limits, a home and a database
// of its own, a free port of 127.0.0.1, and nothing that reaches beyond this machine.
func (c *Config) Scratch(home string, database DatabaseURL) *Config {
	const bind = "127.0.0.1"
	out := *c
	out.General = General{Home: home, Environment: Dev, LogLevel: c.General.LogLevel, LogFormat: c.General.LogFormat}
	out.Network = Network{BindHost: bind, PublicURL: derivedURL(bind, "", 0), AllowedHosts: derivedHosts(bind, Input{}), MaxPayload: c.Network.MaxPayload}
	out.Database = Database{URL: database, AutoMigrate: true}
	out.FirstBoot = FirstBoot{TokenTTL: c.FirstBoot.TokenTTL, AttemptsPerIP: c.FirstBoot.AttemptsPerIP}
	out.Audit.Anchors = nil
	out.Backup = Backup{MaxDuration: c.Backup.MaxDuration, RPO: c.Backup.RPO, RTO: c.Backup.RTO}
	out.ObjectStore = ObjectStore{}
	out.Observe = Observe{OpenAPIVisibility: "public"}
	out.Warnings, out.origins, out.unknown = nil, map[string]Origin{}, nil
	return &out
}
