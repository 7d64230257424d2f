package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Setting is what the tags of one field say.
type Setting struct {
	Name    string // without Z4J_
	Section string
	Aliases []string
	Flags   []string // names of the flag of serve; none for secrets
	Default string
	Min     string
	Max     string
	Unit    string
	OneOf   []string
	Help    string
	Secret  bool // never shown; also read from a file that NAME_FILE names
	Bool    bool
	List    bool

	processOnly bool
	index       []int
	kind        reflect.Type
}

// Var is the environment variable.
func (s *Setting) Var() string { return Prefix + s.Name }

// Settings lists every setting in the order of the documentation.
func Settings() []Setting {
	var out []Setting
	root := reflect.TypeFor[Config]()
	for i := range root.NumField() {
		section := root.Field(i)
		title := section.Tag.Get("title")
		if title == "" {
			continue
		}
		for j := range section.Type.NumField() {
			f := section.Type.Field(j)
			out = append(out, settingOf(f, title, []int{i, j}))
		}
	}
	return out
}

func settingOf(f reflect.StructField, section string, index []int) Setting {
	tag := f.Tag
	s := Setting{
		Name: tag.Get("z4j"), Section: section, Default: tag.Get("default"), Min: tag.Get("min"), Max: tag.Get("max"),
		Unit: tag.Get("unit"), Help: tag.Get("help"), Aliases: splitTag(tag.Get("alias")), OneOf: splitTag(tag.Get("oneof")),
		processOnly: tag.Get("from") == "process", index: index, kind: f.Type,
	}
	switch f.Type {
	case reflect.TypeFor[Secret](), reflect.TypeFor[Secrets](), reflect.TypeFor[DatabaseURL]():
		s.Secret = true
	case reflect.TypeFor[[]string](), reflect.TypeFor[[]netip.Prefix]():
		s.List = true
	}
	s.Bool = f.Type.Kind() == reflect.Bool
	if !s.Secret {
		s.Flags = append([]string{strings.ToLower(strings.ReplaceAll(s.Name, "_", "-"))}, splitTag(tag.Get("flag"))...)
	}
	return s
}

func splitTag(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// set parses text into the field of c.
func (s *Setting) set(c *Config, text, dir string) error {
	field := reflect.ValueOf(c).Elem().FieldByIndex(s.index)
	var v any
	var err error
	switch s.kind {
	case reflect.TypeFor[Secret]():
		v, err = s.secret(text)
	case reflect.TypeFor[Secrets]():
		v, err = s.secrets(text)
	case reflect.TypeFor[DatabaseURL]():
		v, err = ParseDatabaseURL(text, dir)
	case reflect.TypeFor[[]string]():
		v, err = parseList(text)
	case reflect.TypeFor[[]netip.Prefix]():
		v, err = parsePrefixes(text)
	case reflect.TypeFor[time.Duration]():
		v, err = s.duration(text)
	case reflect.TypeFor[int]():
		v, err = s.number(text)
	case reflect.TypeFor[bool]():
		v, err = parseBool(text)
	case reflect.TypeFor[string]():
		v, err = s.word(text)
	default:
		err = fmt.Errorf("has a type that no one reads: %s", s.kind)
	}
	if err != nil {
		return err
	}
	field.Set(reflect.ValueOf(v))
	return nil
}

func (s *Setting) secret(text string) (Secret, error) {
	v := NewSecret(text)
	least, err := strconv.Atoi(s.Min)
	if err != nil {
		return Secret{}, err
	}
	if n := len(v.Reveal()); n < least {
		return Secret{}, fmt.Errorf("has %d bytes and needs at least %d; `openssl rand -base64 48` makes one", n, least)
	}
	return v, nil
}

func (s *Setting) secrets(text string) (Secrets, error) {
	parts, err := parseList(strings.NewReplacer("\r\n", ",", "\n", ",").Replace(strings.TrimSpace(text)))
	if err != nil {
		return nil, errors.New("begins with [ and is not a JSON list of strings") // parseList's error could quote it
	}
	var out Secrets
	for i, part := range parts {
		v, err := s.secret(part)
		if err != nil {
			return nil, fmt.Errorf("number %d of the list %w", i+1, err)
		}
		out = append(out, v)
	}
	return out, nil
}

// parseList reads a JSON list of strings or a comma list.
func parseList(text string) ([]string, error) {
	text = strings.TrimSpace(text)
	var parts []string
	if strings.HasPrefix(text, "[") {
		if err := json.Unmarshal([]byte(text), &parts); err != nil {
			return nil, errors.New("begins with [ and is not a JSON list of strings; a comma list does as well")
		}
	} else {
		parts = strings.Split(text, ",")
	}
	out := []string{}
	for _, p := range parts {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return out, nil
}

func parsePrefixes(text string) ([]netip.Prefix, error) {
	parts, err := parseList(text)
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, part := range parts {
		p, err := parsePrefix(part)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if strings.Contains(text, "%") {
		return netip.Prefix{}, fmt.Errorf("%s names a zone; write the network without", quote(text))
	}
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%s is neither an address nor a network like 10.0.0.0/8", quote(text))
	}
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("%s has bits behind its mask; the network is %s", quote(text), p.Masked())
	}
	return p, nil
}

func (s *Setting) number(text string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return 0, fmt.Errorf("%s is not a whole number", quote(text))
	}
	return n, s.inRange(float64(n), quote(text))
}

func (s *Setting) duration(text string) (time.Duration, error) {
	unit, word := time.Second, "seconds"
	if s.Unit == "ms" {
		unit, word = time.Millisecond, "milliseconds"
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if d, ok := spelled(strings.TrimSpace(text)); ok && err != nil {
		n, err = float64(d)/float64(unit), nil
	}
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		return 0, fmt.Errorf("%s is not a number of %s", quote(text), word)
	}
	if err := s.inRange(n, quote(text)); err != nil {
		return 0, err
	}
	return time.Duration(n * float64(unit)), nil
}

// spelled reads 6h, 90m or 2d.
func spelled(text string) (time.Duration, bool) {
	if days, is := strings.CutSuffix(text, "d"); is {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err == nil
	}
	d, err := time.ParseDuration(text)
	return d, err == nil
}

func (s *Setting) inRange(n float64, shown string) error {
	least, err := strconv.ParseFloat(s.Min, 64)
	if err != nil {
		return err
	}
	most, err := strconv.ParseFloat(s.Max, 64)
	if err != nil {
		return err
	}
	if n < least || n > most {
		return fmt.Errorf("%s is not between %s and %s", shown, s.Min, s.Max)
	}
	return nil
}

func parseBool(text string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "1", "true", "yes", "on":
		return true, nil
	case "0", "false", "no", "off":
		return false, nil
	}
	return false, fmt.Errorf("%s is neither true nor false", quote(text))
}

func (s *Setting) word(text string) (string, error) {
	text = strings.TrimSpace(text)
	if len(s.OneOf) == 0 {
		return text, nil
	}
	low := strings.ToLower(text)
	switch { // names that the reference has for levels
	case s.Name == "LOG_LEVEL" && low == "warning":
		low = "warn"
	case s.Name == "LOG_LEVEL" && low == "critical":
		low = "error"
	}
	for _, one := range s.OneOf {
		if low == one {
			return one, nil
		}
	}
	return "", fmt.Errorf("%s is none of %s", quote(text), strings.Join(s.OneOf, ", "))
}

// quote shows a value that is no secret, cut.
func quote(text string) string {
	const most = 80 // bytes; enough to recognise it
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return strconv.Quote(text)
}
