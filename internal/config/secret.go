package config

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const redacted = "[redacted]"

// Secret is a value that prints as [redacted] in every way that Go has. The zero Secret is none.
type Secret struct {
	// A function, because fmt can't ask a Secret in an unexported field how to print, and of functions it shows the
	// address whatever the verb.
	value func() string
}

// NewSecret makes a secret of value, whose line end is no part of it.
func NewSecret(value string) Secret {
	value = strings.TrimRight(value, "\r\n")
	if value == "" {
		return Secret{}
	}
	return Secret{func() string { return value }}
}

// Reveal returns the value itself; nil for none.
func (s Secret) Reveal() []byte {
	if s.value == nil {
		return nil
	}
	return []byte(s.value())
}

// IsZero reports whether there is none.
func (s Secret) IsZero() bool { return s.value == nil }

// Equal reports whether two secrets are the same.
func (s Secret) Equal(other Secret) bool { return string(s.Reveal()) == string(other.Reveal()) }

// String hides the value.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return redacted
}

// GoString hides the value.
func (s Secret) GoString() string { return s.String() }

// Format hides the value from every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalJSON hides the value.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// MarshalText hides the value.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue hides the value.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Secrets is a list of secrets.
type Secrets []Secret

// Reveal returns the values themselves.
func (l Secrets) Reveal() [][]byte {
	var out [][]byte
	for _, s := range l {
		out = append(out, s.Reveal())
	}
	return out
}
