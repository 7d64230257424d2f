package id_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/id"
)

func TestNewKeepsTimeAndOrder(t *testing.T) {
	at := time.Date(2026, 3, 14, 9, 26, 53, 589793000, time.UTC)
	a, b := id.New(at), id.New(at.Add(time.Microsecond))
	if got := a.Micros(); got != at.UnixMicro() {
		t.Errorf("time of the id: %d, want %d", got, at.UnixMicro())
	}
	if bytes.Compare(a[:], b[:]) >= 0 {
		t.Errorf("%s is not before %s, a microsecond later", a, b)
	}
	if a[6]>>4 != 7 || a[8]>>6 != 2 {
		t.Errorf("%s is not a UUIDv7", a)
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, in, want string
	}{
		{"lower case", "6f1c0f1e-aaaa-4bbb-8ccc-0123456789ab", "6f1c0f1e-aaaa-4bbb-8ccc-0123456789ab"},
		{"upper case", "6F1C0F1E-AAAA-4BBB-8CCC-0123456789AB", "6f1c0f1e-aaaa-4bbb-8ccc-0123456789ab"},
		{"no hyphens", "6f1c0f1eaaaa4bbb8ccc0123456789ab", ""},
		{"short", "6f1c", ""},
		{"not hex", "6f1c0f1e-aaaa-4bbb-8ccc-0123456789ag", ""},
	} {
		u, err := id.Parse(tt.in)
		if tt.want == "" {
			if err == nil {
				t.Errorf("%s: %s, want an error", tt.name, u)
			}
			continue
		}
		if err != nil || u.String() != tt.want {
			t.Errorf("%s: %s, %v; want %s", tt.name, u, err, tt.want)
		}
	}
}

func TestNamedIsRFC9562Version5(t *testing.T) {
	dns, _ := id.Parse("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
	if got, want := id.Named(dns, []byte("www.example.com")).String(), "2ed6657d-e927-568b-95e1-2665a8aea6a2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("6f1c0f1e-aaaa-4bbb-8ccc-0123456789ab")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := id.Parse(s)
		if err != nil {
			return
		}
		if again, err := id.Parse(u.String()); err != nil || again != u {
			t.Errorf("%q: %s does not come back", s, u)
		}
	})
}
