package config

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzList(f *testing.F) {
	for _, seed := range []string{"", "a,b", " a , ,b ", `["a","b, c"]`, `["a",7]`, `[`, `[]`, `[null]`, ",", "a]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseList(text)
		if err != nil {
			if len(err.Error()) > 100 {
				t.Errorf("error %q is long, want one that quotes nothing", err)
			}
			return
		}
		for _, one := range list {
			if one == "" || one != strings.TrimSpace(one) {
				t.Errorf("%q: element %q, want none that is empty or padded", text, one)
			}
		}
		written, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseList(string(written))
		if err != nil {
			t.Fatalf("%s: %v", written, err)
		}
		if diff := cmp.Diff(list, again); diff != "" && strings.ToValidUTF8(text, "") == text {
			t.Errorf("written as JSON and read again:\n%s", diff)
		}
	})
}

func FuzzPrefixes(f *testing.F) {
	for _, seed := range []string{
		"", "10.0.0.0/8", "10.0.0.1/8", "127.0.0.1, ::1", "fe80::1%eth0", "::ffff:10.0.0.1", "::ffff:10.0.0.0/104", `["192.0.2.0/24"]`, "0.0.0.0/0", "10.0.0.0/33", "*",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parsePrefixes(text)
		if err != nil {
			return
		}
		parts := make([]string, len(list))
		for i, p := range list {
			if !p.IsValid() || p != p.Masked() || p.Addr().Zone() != "" {
				t.Errorf("%q: network %v, want one without bits behind its mask and without a zone", text, p)
			}
			parts[i] = p.String()
		}
		again, err := parsePrefixes(strings.Join(parts, ","))
		if err != nil {
			t.Fatalf("%q: %v", parts, err)
		}
		if diff := cmp.Diff(list, again, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("written and read again:\n%s", diff)
		}
	})
}
