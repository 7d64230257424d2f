package config

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// ErrNotRotatable says that a secret does not stand in secret.env alone, so that no command can change it.
var ErrNotRotatable = errors.New("this secret can't be changed here")

// Rotating are the secrets that can be rotated, by the word for each.
func Rotating() []string { return []string{"audit", "session", "master"} }

// rotating is a secret that can be rotated, and the setting with its earlier values.
type rotating struct {
	name, previous string // settings
	secret         *Secret
	list           *Secrets
}

func (c *Config) rotating(word string) (rotating, error) {
	k := &c.Secrets
	switch word {
	case "audit":
		return rotating{"AUDIT_SECRET", "AUDIT_SECRETS_PREVIOUS", &k.Audit, &k.PreviousAudit}, nil
	case "session":
		return rotating{"SESSION_SECRET", "PREVIOUS_SESSION_SECRETS", &k.Session, &k.PreviousSession}, nil
	case "master":
		return rotating{"SECRET", "PREVIOUS_SECRETS", &k.Master, &k.PreviousMaster}, nil
	}
	return rotating{}, fmt.Errorf("no secret is called %q", word)
}

// RotationNames are the settings that hold a secret and its earlier values.
func (c *Config) RotationNames(word string) (secret, previous string) {
	r, err := c.rotating(word)
	if err != nil {
		return "", ""
	}
	return Prefix + r.name, Prefix + r.previous
}

// Rotatable returns nil if the secret of a word and its earlier values stand in secret.env and nowhere else.
func (c *Config) Rotatable(word string) error {
	r, err := c.rotating(word)
	if err != nil {
		return err
	}
	for _, name := range []string{r.name, r.previous} {
		o := c.origins[name]
		if name == r.previous && o.Kind == FromDefault || o.Kind == FromSecretFile && o.File == "" {
			continue
		}
		return fmt.Errorf("%w: %s%s comes from %s", ErrNotRotatable, Prefix, name, o)
	}
	return nil
}

// Rotation is a change of secret.env that is on the disk beside it. Commit makes it take hold.
type Rotation struct {
	c       *Config
	apply   func()
	path    string
	temp    string
	release func() error
}

// Rotate prepares a new value for the secret of a word; the present one goes before the earlier values.
func (c *Config) Rotate(word string) (*Rotation, error) {
	r, err := c.rotating(word)
	if err != nil {
		return nil, err
	}
	made := randomSecret()
	earlier := Secrets{*r.secret}
	for _, s := range *r.list {
		if !s.Equal(*r.secret) {
			earlier = append(earlier, s)
		}
	}
	value, list := string(made.Reveal()), secretList(earlier)
	if back, err := parseList(list); err != nil || len(back) != len(earlier) || back[0] != string(r.secret.Reveal()) {
		return nil, fmt.Errorf("%w: the present value begins or ends with space, which a list of earlier values can't keep", ErrNotRotatable)
	}
	return c.prepare(word, &value, &list, func() { *r.secret, *r.list = made, earlier })
}

// EndRotation prepares that the earlier values of the secret of a word are given up.
func (c *Config) EndRotation(word string) (*Rotation, error) {
	r, err := c.rotating(word)
	if err != nil {
		return nil, err
	}
	return c.prepare(word, nil, nil, func() { *r.list = nil })
}

// prepare writes what secret.env is to be beside it: with value for the secret unless that is nil, and with list, or
// without it if that is nil. Nobody else prepares one until the Rotation is over.
func (c *Config) prepare(word string, value, list *string, apply func()) (_ *Rotation, err error) {
	if err := c.Rotatable(word); err != nil {
		return nil, err
	}
	r, err := c.rotating(word)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(c.General.Home, FromSecretFile)
	release, err := lockDir(c.General.Home)
	if err != nil {
		return nil, fmt.Errorf("change %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("change %s: %w", path, err), release())
		}
	}()
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file; change what it stands for, by hand: docs/operations/secrets.md")
	}
	text, err := os.ReadFile(path) //nolint:gosec // the operator says which directory is ours.
	if err != nil {
		return nil, err
	}
	next, err := r.edit(string(text), value, list)
	if err != nil {
		return nil, err
	}
	if err := removeTemps(path); err != nil {
		return nil, err
	}
	temp, err := writeBeside(path, next, info)
	if err != nil {
		return nil, err
	}
	return &Rotation{c: c, apply: apply, path: path, temp: temp, release: release}, nil
}

// Commit puts the new secret.env in the place of the old one, whole and on the disk, and takes it over into the Config.
func (r *Rotation) Commit() error {
	err := os.Rename(r.temp, r.path)
	if err == nil {
		err = syncDir(filepath.Dir(r.path))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("change %s: %w", r.path, err), r.Close())
	}
	r.apply()
	return r.Close()
}

// Close gives up what was not committed.
func (r *Rotation) Close() error {
	if r.release == nil {
		return nil
	}
	err := os.Remove(r.temp)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, r.release())
	r.release = nil
	return err
}

// edit changes the two settings in the text of an environment file and leaves every other line as it is.
func (r rotating) edit(text string, value, list *string) (string, error) {
	have, err := parseEnvFile(text)
	if err != nil {
		return "", err
	}
	rows := strings.SplitAfter(text, "\n")
	secretAt, listAt := -1, -1
	for _, l := range have {
		switch {
		case r.is(l.name, r.name):
			secretAt = l.number - 1
			if l.value != string(r.secret.Reveal()) {
				return "", errors.New("it was changed meanwhile; try again")
			}
		case r.is(l.name, r.previous):
			listAt = l.number - 1
		}
	}
	if secretAt < 0 {
		return "", fmt.Errorf("it does not set %s%s", Prefix, r.name)
	}
	if value != nil {
		rows[secretAt] = assign(nameIn(rows[secretAt]), *value)
	}
	switch {
	case list == nil && listAt >= 0:
		rows[listAt] = ""
	case list != nil && listAt >= 0:
		rows[listAt] = assign(nameIn(rows[listAt]), *list)
	case list != nil:
		if !strings.HasSuffix(rows[secretAt], "\n") {
			rows[secretAt] += "\n"
		}
		rows[secretAt] += assign(Prefix+r.previous, *list)
	}
	out := strings.Join(rows, "")
	return out, r.check(out, value, list)
}

// check reads what was written as it will be read.
func (r rotating) check(text string, value, list *string) error {
	lines, err := parseEnvFile(text)
	if err != nil {
		return fmt.Errorf("the new text can't be read: %w", err)
	}
	got := map[string]string{}
	for _, l := range lines {
		for _, name := range []string{r.name, r.previous} {
			if r.is(l.name, name) {
				got[name] = l.value
			}
		}
	}
	want := string(r.secret.Reveal())
	if value != nil {
		want = *value
	}
	earlier, has := got[r.previous]
	if got[r.name] != want || has != (list != nil) || has && earlier != *list {
		return errors.New("the new text does not read as what was written")
	}
	return nil
}

// is reports whether a name in a file is one of a setting's.
func (r rotating) is(written, setting string) bool {
	upper := strings.ToUpper(written)
	for _, s := range Settings() {
		if s.Name == setting {
			return upper == Prefix+setting || slices.ContainsFunc(s.Aliases, func(a string) bool { return upper == Prefix+a })
		}
	}
	return false
}

// nameIn is what stands before the value in a row.
func nameIn(row string) string {
	name, _, _ := strings.Cut(row, "=")
	return strings.TrimSpace(name)
}

// assign makes a row that reads as value.
func assign(name, value string) string {
	plain := func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_./+=-,", r))
	}
	switch {
	case !strings.ContainsFunc(value, plain):
	case !strings.ContainsAny(value, "'\r\n"):
		value = "'" + value + "'"
	default:
		value = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(value) + `"`
	}
	return name + "=" + value + "\n"
}

// secretList writes a list as it is read again: with commas between, as JSON where a value has one itself.
func secretList(list Secrets) string {
	texts := make([]string, len(list))
	simple := true
	for i, s := range list {
		texts[i] = string(s.Reveal())
		simple = simple && !strings.Contains(texts[i], ",") && texts[i] == strings.TrimSpace(texts[i]) && texts[i][0] != '['
	}
	if simple {
		return strings.Join(texts, ",")
	}
	text, err := json.Marshal(texts)
	if err != nil {
		panic(err) // texts always marshal
	}
	return string(text)
}

// writeBeside writes text next to path, for the same owner alone, whole and on the disk.
func writeBeside(path, text string, like fs.FileInfo) (temp string, err error) {
	temp = path + "." + strings.ToLower(rand.Text()) + ".tmp"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600) //nolint:gosec // the operator says which directory is ours.
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp))
		}
	}()
	if owner, ok := like.Sys().(*syscall.Stat_t); ok && (int(owner.Uid) != os.Getuid() || int(owner.Gid) != os.Getgid()) {
		if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return "", errors.Join(fmt.Errorf("it belongs to another account, run this as that one: %w", err), f.Close())
		}
	}
	_, err = f.WriteString(text)
	return temp, errors.Join(err, f.Sync(), f.Close())
}

// removeTemps takes away what a rotation that was killed left beside path.
func removeTemps(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+".") && strings.HasSuffix(e.Name(), ".tmp") {
			err = errors.Join(err, os.Remove(filepath.Join(filepath.Dir(path), e.Name())))
		}
	}
	return err
}

// lockDir keeps other rotations out of a directory until release, or the end of the process.
func lockDir(dir string) (release func() error, err error) {
	d, err := os.Open(dir) //nolint:gosec // the operator says which directory is ours.
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another command changes it: %w", err), d.Close())
	}
	return d.Close, nil
}
