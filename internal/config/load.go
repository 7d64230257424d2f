package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// Input is everything that settings are made of. The zero value reads no environment and knows no machine.
type Input struct {
	Flags       map[string]string // by setting name without Z4J_
	Environ     []string          // as os.Environ gives it
	WorkDir     string            // where relative paths begin
	UserHome    string            // what ~ stands for
	Hostname    string            // of the machine
	Addresses   []netip.Addr      // of the machine's interfaces
	ConfigFile  string            // read in place of $Z4J_HOME/config.env; it has to be there
	IgnoreFiles bool              // config.env and secret.env are not read
}

// Where a value comes from.
const (
	FromFlag       = "flag"
	FromEnv        = "env"
	FromConfigFile = "config.env"
	FromSecretFile = "secret.env"
	FromDefault    = "default"
	Derived        = "derived"
)

// Origin says where a value comes from.
type Origin struct {
	Kind string // one of the words above
	Name string // the flag or variable, as it was written
	File string // the file that a …_FILE named
}

// String is what `config show` says.
func (o Origin) String() string {
	s := o.Kind
	switch {
	case o.Kind == FromFlag:
		s = o.Name
	case o.Name != "" && o.Kind == FromEnv:
		s = "env " + o.Name
	case o.Name != "":
		s = o.Kind + " " + o.Name
	}
	if o.File != "" {
		s += ": " + o.File
	}
	return s
}

// Problem is one thing that is wrong. It never holds a value of a secret.
type Problem struct {
	Setting string // Z4J_…, or the file
	Origin  string
	Reason  string // with the way out
}

func (p Problem) String() string {
	if p.Origin == "" || p.Origin == FromDefault || p.Origin == Derived {
		return p.Setting + ": " + p.Reason
	}
	return p.Setting + " (" + p.Origin + "): " + p.Reason
}

// Invalid is the error of Load: everything that is wrong.
type Invalid struct{ Problems []Problem }

func (e *Invalid) Error() string {
	if len(e.Problems) == 1 {
		return "configuration: " + e.Problems[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "configuration has %d faults:", len(e.Problems))
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.String())
	}
	return b.String()
}

// layer is one source of values.
type layer struct {
	kind   string
	values map[string]given // by upper-case name with Z4J_
}

type given struct {
	name  string // as written
	value string
}

// loader reads one Config.
type loader struct {
	in       Input
	c        *Config
	settings []Setting
	layers   []layer
	problems []Problem
}

// Load reads the settings and checks them. With an error of type *Invalid the Config holds what could be read, so that
// it can be shown.
func Load(in Input) (*Config, error) {
	l := &loader{in: in, c: &Config{origins: map[string]Origin{}}, settings: Settings()}
	l.addFlags()
	l.addEnviron()
	l.takeHome()
	if !in.IgnoreFiles {
		l.addFile(FromConfigFile)
		l.addFile(FromSecretFile)
		l.warnDotEnv()
	}
	for i := range l.settings {
		if !l.settings[i].processOnly {
			l.take(&l.settings[i])
		}
	}
	l.warnUnknown()
	l.derive()
	l.check()
	if len(l.problems) > 0 {
		return l.c, &Invalid{l.problems}
	}
	return l.c, nil
}

func (l *loader) problem(setting string, o Origin, format string, args ...any) {
	l.problems = append(l.problems, Problem{setting, o.String(), fmt.Sprintf(format, args...)})
}

func (l *loader) warn(format string, args ...any) {
	l.c.Warnings = append(l.c.Warnings, fmt.Sprintf(format, args...))
}

func (l *loader) addFlags() {
	values := map[string]given{}
	for name, value := range l.in.Flags {
		values[Prefix+name] = given{"--" + strings.ToLower(strings.ReplaceAll(name, "_", "-")), value}
	}
	l.layers = append(l.layers, layer{FromFlag, values})
}

func (l *loader) addEnviron() {
	values := map[string]given{}
	for _, pair := range l.in.Environ {
		name, value, _ := strings.Cut(pair, "=")
		upper := strings.ToUpper(name)
		if !strings.HasPrefix(upper, Prefix) || value == "" {
			continue
		}
		if other, twice := values[upper]; twice && other.value != value {
			if name != upper && other.name == upper {
				l.warn("%s is ignored: %s is set too", name, upper)
				continue
			}
			l.warn("%s is ignored: %s is set too", other.name, name)
		}
		values[upper] = given{name, value}
	}
	l.layers = append(l.layers, layer{FromEnv, values})
}

// takeHome settles where the state is, which says where the files are.
func (l *loader) takeHome() {
	for i := range l.settings {
		if s := &l.settings[i]; s.Name == "HOME" {
			l.take(s)
		}
	}
	home := l.c.General.Home
	if home == "~" || strings.HasPrefix(home, "~/") {
		if l.in.UserHome == "" {
			l.problem("Z4J_HOME", Origin{}, "the user has no home directory; set Z4J_HOME")
		}
		home = filepath.Join(l.in.UserHome, strings.TrimPrefix(home, "~"))
	}
	if !filepath.IsAbs(home) {
		home = filepath.Join(l.in.WorkDir, home)
	}
	l.c.General.Home = filepath.Clean(home)
}

// addFile reads config.env or secret.env. That there is none is no fault.
func (l *loader) addFile(kind string) {
	path := filepath.Join(l.c.General.Home, kind)
	other := kind == FromConfigFile && l.in.ConfigFile != ""
	if other {
		path = l.in.ConfigFile
	}
	values := map[string]given{}
	defer func() { l.layers = append(l.layers, layer{kind, values}) }()
	text, err := os.ReadFile(path) //nolint:gosec // the operator says which directory is ours.
	if errors.Is(err, fs.ErrNotExist) && !other {
		return
	}
	if err != nil {
		l.problem(path, Origin{}, "%s", reason(err))
		return
	}
	lines, err := parseEnvFile(string(text))
	if err != nil {
		l.problem(path, Origin{}, "%s", err)
		return
	}
	first := map[string]int{}
	for _, one := range lines {
		upper := strings.ToUpper(one.name)
		if !strings.HasPrefix(upper, Prefix) {
			l.warn("%s line %d: %s is no setting of z4j; it is ignored", path, one.number, one.name)
			continue
		}
		if before, twice := first[upper]; twice {
			l.problem(path, Origin{}, "line %d sets %s again, which line %d sets; remove one", one.number, upper, before)
			continue
		}
		first[upper] = one.number
		if upper == Prefix+"HOME" {
			l.warn("%s line %d: Z4J_HOME is ignored here: it says where this file is", path, one.number)
			continue
		}
		if one.value != "" {
			values[upper] = given{one.name, one.value}
		}
	}
	if kind == FromSecretFile {
		l.warnReadable(path)
	}
}

func (l *loader) warnReadable(path string) {
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		l.warn("%s can be read by others; `chmod 600 %s`", path, path)
	}
}

// warnDotEnv tells who moves from the reference, which reads ./.env, that its settings are not taken from there: what a
// command does must not depend on the directory in which it is called.
func (l *loader) warnDotEnv() {
	path := filepath.Join(l.in.WorkDir, ".env")
	text, err := os.ReadFile(path) //nolint:gosec // only looked at for names.
	if err != nil {
		return
	}
	lines, err := parseEnvFile(string(text))
	if err != nil {
		return
	}
	for _, one := range lines {
		if strings.HasPrefix(strings.ToUpper(one.name), Prefix) {
			l.warn("%s holds settings of z4j and is not read; they belong into %s", path, filepath.Join(l.c.General.Home, FromConfigFile))
			return
		}
	}
}

// take finds the value of s in the highest source that has one.
func (l *loader) take(s *Setting) {
	for _, layer := range l.layers {
		found, o, ok := l.find(layer, s)
		if !ok {
			continue
		}
		if o.File != "" {
			text, err := os.ReadFile(o.File)
			if err != nil {
				l.problem(s.Var(), o, "%s", reason(err))
				l.setDefault(s)
				return
			}
			found = strings.TrimRight(string(text), "\r\n")
		}
		if err := s.set(l.c, found, l.in.WorkDir); err != nil {
			l.problem(s.Var(), o, "%s", err)
			l.setDefault(s)
			l.c.origins[s.Name] = o
			return
		}
		l.c.origins[s.Name] = o
		return
	}
	l.setDefault(s)
}

func (l *loader) setDefault(s *Setting) {
	l.c.origins[s.Name] = Origin{Kind: FromDefault}
	if s.Default == "" {
		return
	}
	if err := s.set(l.c, s.Default, l.in.WorkDir); err != nil {
		l.problem(s.Var(), Origin{Kind: FromDefault}, "%s", err)
	}
}

// find looks for s in one source, under all its names.
func (l *loader) find(from layer, s *Setting) (value string, o Origin, ok bool) {
	for _, name := range append([]string{s.Name}, s.Aliases...) {
		for _, suffix := range []string{"", "_FILE"} {
			if suffix != "" && (!s.Secret || from.kind == FromFlag) {
				continue
			}
			g, has := from.values[Prefix+name+suffix]
			if !has {
				continue
			}
			this := Origin{Kind: from.kind, Name: g.name}
			if suffix != "" {
				this.File = l.path(g.value)
			}
			if ok && this.File == "" && o.File == "" && g.value == value {
				continue
			}
			if ok {
				l.problem(s.Var(), this, "%s is given too; remove one of them", o.Name)
				return value, o, true
			}
			value, o, ok = g.value, this, true
		}
	}
	return value, o, ok
}

func (l *loader) path(p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(l.in.WorkDir, p)
}

// warnUnknown names what nobody reads, with the nearest name that somebody does.
func (l *loader) warnUnknown() {
	known := map[string]bool{}
	for _, s := range l.settings {
		for _, name := range append([]string{s.Name}, s.Aliases...) {
			known[Prefix+name] = true
			if s.Secret {
				known[Prefix+name+"_FILE"] = true
			}
		}
	}
	gone := retired()
	for _, layer := range l.layers {
		for _, upper := range slices.Sorted(maps.Keys(layer.values)) {
			name := layer.values[upper].name
			if known[upper] || strings.HasPrefix(upper, Prefix+"TEST_") {
				continue
			}
			if why, is := gone[upper]; is {
				l.warn("%s (%s) is accepted and ignored: %s", name, layer.kind, why)
				continue
			}
			why := "is no setting of z4j; it is ignored"
			if near := nearest(upper, slices.Sorted(maps.Keys(known))); near != "" {
				why += ". Is " + near + " meant?"
			}
			l.warn("%s (%s) %s", name, layer.kind, why)
			if layer.kind == FromConfigFile || layer.kind == FromSecretFile {
				l.c.unknown = append(l.c.unknown, Problem{name, layer.kind, why})
			}
		}
	}
}

// Show returns every setting with its value, secrets hidden, and its origin.
func (c *Config) Show() []Shown {
	var out []Shown
	for _, s := range Settings() {
		v := reflect.ValueOf(c).Elem().FieldByIndex(s.index)
		out = append(out, Shown{Name: s.Var(), Value: s.show(v.Interface()), Source: c.origins[s.Name].String(), Secret: s.Secret, Section: s.Section})
	}
	return out
}

// reason is the part of a file's error that does not repeat its name.
func reason(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return "can't be read: " + p.Err.Error()
	}
	return err.Error()
}
