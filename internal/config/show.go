package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Shown is a setting as `config show` prints it.
type Shown struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	Source  string `json:"source"`
	Secret  bool   `json:"is_secret"`
	Section string `json:"section"`
}

func (s *Setting) show(v any) string {
	switch v := v.(type) {
	case Secret:
		return v.String()
	case Secrets:
		if len(v) == 0 {
			return ""
		}
		return fmt.Sprintf("%s (%d)", redacted, len(v))
	case DatabaseURL:
		return v.String()
	case []string:
		return strings.Join(v, ",")
	case []netip.Prefix:
		var parts []string
		for _, p := range v {
			parts = append(parts, p.String())
		}
		return strings.Join(parts, ",")
	case time.Duration:
		if s.Unit == "ms" {
			return strconv.FormatFloat(float64(v)/float64(time.Millisecond), 'f', -1, 64)
		}
		return strconv.FormatFloat(v.Seconds(), 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

// Documentation is docs/configuration.md.
func Documentation() string {
	var b strings.Builder
	b.WriteString(`# Settings

<!-- Made from internal/config; ` + "`go test ./internal/config -update`" + ` makes it anew. -->

The brain runs without any. Sources, highest first:

1. flags of ` + "`z4j-brain serve`" + ` (` + "`--bind-port 7701`" + ` for ` + "`Z4J_BIND_PORT`" + `; secrets have no flag: arguments of a process can be read by others),
2. the process's environment,
3. ` + "`$Z4J_HOME/config.env`" + `,
4. ` + "`$Z4J_HOME/secret.env`" + `, which ` + "`serve`" + ` makes, readable by its owner only, on an empty home whose database is empty too,
5. the default.

A ` + "`.env`" + ` in the working directory is not read: what a command does must not depend on where it is called. Files hold ` + "`NAME=value`" + ` lines, ` + "`#`" + ` begins a remark, quotes are taken off, nothing is expanded. Names may be written in either case. An empty value is no value. Lists are separated by commas or are JSON. Booleans are true or false (also 1, 0, yes, no, on, off).

Settings marked *secret* can also be read from a file that ` + "`NAME_FILE`" + ` names; a line end at its end is no part of the secret. They are never printed, ` + "`config show`" + ` and error messages included. Settings are read once: restart the brain to change them.

` + "`z4j-brain config show`" + ` prints every setting with its source, ` + "`z4j-brain config validate`" + ` says what is wrong. A name that nobody reads is warned about with the nearest one that somebody does; names of the reference implementation that have no effect here are accepted, with a warning that says why.
`)
	section := ""
	for _, s := range Settings() {
		if s.Section != section {
			section = s.Section
			fmt.Fprintf(&b, "\n## %s\n\n| setting | default | values | meaning |\n|---|---|---|---|\n", section)
		}
		names := []string{"`" + s.Var() + "`"}
		if s.Secret {
			names[0] += " *secret*"
		}
		for _, alias := range s.Aliases {
			names = append(names, "also `"+Prefix+alias+"`")
		}
		def := ""
		if s.Default != "" {
			def = "`" + s.Default + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", strings.Join(names, ", "), def, s.values(), strings.ReplaceAll(s.Help, "|", `\|`))
	}
	return b.String()
}

// values says in the documentation what a setting may be.
func (s *Setting) values() string {
	unit := map[string]string{"s": " seconds", "ms": " milliseconds", "KiB": " KiB"}[s.Unit]
	switch {
	case s.Secret && s.Min != "":
		return "at least " + s.Min + " bytes"
	case s.Bool:
		return "true, false"
	case s.List:
		return "list"
	case len(s.OneOf) > 0:
		return strings.Join(s.OneOf, ", ")
	case s.Min != "":
		return s.Min + " to " + s.Max + unit
	}
	return ""
}
