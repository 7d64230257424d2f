package cli

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/z4j-go/z4j/internal/config"
)

// load reads the settings as serve does, whatever the command: what one shows or checks is what the other runs with.
// Warnings go to standard error unless quiet.
func (c *call) load(quiet bool) (*config.Config, error) {
	cfg, err := config.Load(input(c.flags))
	unsetPassword()
	if !quiet {
		for _, w := range cfg.Warnings {
			fmt.Fprintf(c.stderr, "z4j-brain: warning: %s\n", w)
		}
	}
	return cfg, err
}

func input(flags map[string]string) config.Input {
	in := config.Input{Flags: flags, Environ: os.Environ(), WorkDir: workDir()}
	if home, err := os.UserHomeDir(); err == nil {
		in.UserHome = home
	}
	if name, err := os.Hostname(); err == nil {
		in.Hostname = name
	}
	if list, err := net.InterfaceAddrs(); err == nil {
		for _, a := range list {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				in.Addresses = append(in.Addresses, p.Addr())
			}
		}
	}
	return in
}

// unsetPassword takes the bootstrap password out of the environment once it was read, so that no child and no dump of
// variables has it.
func unsetPassword() {
	const name = config.Prefix + "BOOTSTRAP_ADMIN_PASSWORD"
	for _, pair := range os.Environ() {
		if have, _, _ := strings.Cut(pair, "="); strings.EqualFold(have, name) {
			_ = os.Unsetenv(have) // fails for names that no environment can hold
		}
	}
}

// settingFlags makes a struct with a flag for every setting that may be one.
func settingFlags() reflect.Value {
	var fields []reflect.StructField
	for i, s := range config.Settings() {
		if len(s.Flags) == 0 || s.Name == "HOME" {
			continue
		}
		kind, holder := reflect.TypeFor[*string](), "TEXT"
		switch {
		case s.Bool:
			kind = reflect.TypeFor[*bool]()
		case s.List:
			kind, holder = reflect.TypeFor[[]string](), "LIST"
		case len(s.OneOf) > 0:
			holder = strings.Join(s.OneOf, "|")
		case s.Min != "":
			holder = "N"
		}
		help, _, _ := strings.Cut(s.Help, ". ")
		tag := fmt.Sprintf(`name:%q help:%q placeholder:%q group:"Settings"`, s.Flags[0], strings.TrimSuffix(help, ".")+".", holder)
		if len(s.Flags) > 1 {
			tag += fmt.Sprintf(` aliases:%q`, strings.Join(s.Flags[1:], ","))
		}
		if s.Bool {
			tag += ` negatable:""`
		}
		fields = append(fields, reflect.StructField{Name: "F" + strconv.Itoa(i), Type: kind, Tag: reflect.StructTag(tag)})
	}
	return reflect.New(reflect.StructOf(fields))
}

// given returns, by setting, what was given of the flags that settingFlags made.
func given(flags reflect.Value) map[string]string {
	out := map[string]string{}
	v := flags.Elem()
	settings := config.Settings()
	for i := range v.NumField() {
		at, err := strconv.Atoi(v.Type().Field(i).Name[1:])
		if err != nil {
			continue // every name is made above
		}
		name := settings[at].Name
		switch f := v.Field(i).Interface().(type) {
		case *string:
			if f != nil {
				out[name] = *f
			}
		case *bool:
			if f != nil {
				out[name] = strconv.FormatBool(*f)
			}
		case []string:
			if len(f) > 0 {
				out[name] = strings.Join(f, ",")
			}
		}
	}
	return out
}
