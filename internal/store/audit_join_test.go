package store_test

import (
	"bytes"
	"testing"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

func join(t testing.TB, s *store.Store, data []byte) store.FileJoin {
	t.Helper()
	j, err := s.JoinFile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := audit.VerifyFile(bytes.NewReader(data), []audit.Key{auditKey(t)}, func(r *audit.FileRecord) error { return j.Take(t.Context(), r) })
	if err != nil {
		t.Fatal(err)
	}
	out, err := j.Finish(t.Context(), r.Exported)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestFileBesideTheLog: a file that agrees row by row, one of another history, and one that the log lost the end of.
func TestFileBesideTheLog(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		mustRecord(t, s, 10)
		data := exportOf(t, s, audit.NDJSON, store.ExportFilter{})
		if got := join(t, s, data); got.First != nil || got.Compared != 12 || got.Exit() != 0 {
			t.Errorf("a file of this log: %+v, want 12 rows that agree", got)
		}
		var other string
		if s.Dialect() == "sqlite" {
			other = storetest.SQLite(t)
		} else {
			other = storetest.Postgres(t)
		}
		o := storetest.Open(t, other)
		mustRecord(t, o, 20)
		if got := join(t, o, data); got.First == nil || got.First.Seq != 1 || got.First.Class != audit.Against || got.Exit() != audit.ExitBehind {
			t.Errorf("a file of another log: %+v, want a fault of row 1 and exit 4", got)
		}
		db := attack(t, url)
		cut(t, db, 8)
		if got := join(t, s, data); got.First == nil || got.First.Seq != 8 && got.First.Seq != 9 || got.First.Class != audit.CutTail || got.Exit() != audit.ExitBehind {
			t.Errorf("a file beyond the end of the log: %+v, want a cut tail and exit 4", got)
		}
		mustExec(t, db, `DELETE FROM audit_personal WHERE seq = 4`)
		mustExec(t, db, `DELETE FROM audit_log WHERE seq = 4`)
		if got := join(t, s, data); got.First == nil || got.First.Seq != 4 || got.First.Class != audit.MissingInside || got.Exit() != audit.ExitTampered {
			t.Errorf("a row that the log lost: %+v, want row 4 missing and exit 1", got)
		}
	})
}
