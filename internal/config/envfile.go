package config

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// line is one assignment of an environment file.
type line struct {
	name, value string
	number      int
}

// parseEnvFile reads NAME=value lines: blank lines and those that begin with # say nothing, `export ` before a name is
// skipped, a value may stand in '…' (as it is) or "…" (with \n, \r, \t, \", \\ and \$), and after a bare value " #"
// begins a remark. Nothing is expanded. Errors name the line and quote nothing.
func parseEnvFile(text string) ([]line, error) {
	if !utf8.ValidString(text) {
		return nil, fmt.Errorf("is not UTF-8")
	}
	text = strings.TrimPrefix(text, "\ufeff")
	var out []line
	number := 0
	for text != "" {
		var row string
		row, text, _ = strings.Cut(text, "\n")
		number++
		row = strings.TrimSpace(row)
		if row == "" || row[0] == '#' {
			continue
		}
		if rest, ok := strings.CutPrefix(row, "export"); ok && rest != strings.TrimLeft(rest, " \t") {
			row = strings.TrimLeft(rest, " \t")
		}
		name, value, ok := strings.Cut(row, "=")
		name = strings.TrimRight(name, " \t")
		if !ok || !isName(name) {
			return nil, fmt.Errorf("line %d is not NAME=value", number)
		}
		value, err := unquote(strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		out = append(out, line{name, value, number})
	}
	return out, nil
}

func isName(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

func unquote(s string) (string, error) {
	if s == "" || s[0] != '\'' && s[0] != '"' {
		if s != "" && s[0] == '#' {
			return "", nil
		}
		for _, mark := range []string{" #", "\t#"} {
			s, _, _ = strings.Cut(s, mark)
		}
		return strings.TrimRight(s, " \t"), nil
	}
	quote := s[0]
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		c := s[i]
		switch {
		case c == quote:
			rest := strings.TrimSpace(s[i+1:])
			if rest != "" && rest[0] != '#' {
				return "", fmt.Errorf("something follows the closing quote")
			}
			return b.String(), nil
		case c == '\\' && quote == '"':
			i++
			if i == len(s) {
				return "", fmt.Errorf("the quote is not closed")
			}
			switch s[i] {
			case 'n':
				b.WriteByte('\n')
			case 'r':
				b.WriteByte('\r')
			case 't':
				b.WriteByte('\t')
			case '"', '\\', '$', '\'':
				b.WriteByte(s[i])
			default:
				return "", fmt.Errorf("unknown escape after a backslash; in '…' a backslash is itself")
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", fmt.Errorf("the quote is not closed")
}
