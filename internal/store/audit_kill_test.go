package store_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

const killedEnv = "Z4J_TEST_APPEND_UNTIL_KILLED"

// TestAppendUntilKilled is what TestKilledBrainLosesNothing runs as another process: it says each change that was answered.
func TestAppendUntilKilled(t *testing.T) {
	url := os.Getenv(killedEnv)
	if url == "" {
		t.Skip("runs in the process that TestKilledBrainLosesNothing starts")
	}
	s := storetest.Open(t, url)
	round := time.Now().UnixNano()
	for i := 0; ; i++ {
		name := fmt.Sprint(round, "-", i)
		err := s.Update(t.Context(), func(tx *store.Tx) error {
			tx.Record(note(name))
			_, err := tx.ExecContext(t.Context(), `INSERT INTO meta (key, value, updated_at) VALUES ($1, 'x', $2)`, name, tx.Now())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("answered", name)
	}
}

// TestKilledBrainLosesNothing kills a process with SIGKILL in the middle of its changes: what was answered is there, each
// change has its entry and each entry its change, and the chain is whole.
func TestKilledBrainLosesNothing(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		storetest.Open(t, url)
		var answered []string
		for round := range 4 {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAppendUntilKilled$", "-test.count=1")
			cmd.Env = append(os.Environ(), killedEnv+"="+url)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for n := 0; lines.Scan(); {
				name, ok := strings.CutPrefix(lines.Text(), "answered ")
				if !ok {
					continue
				}
				answered = append(answered, name)
				if n++; n == 10+7*round {
					_ = cmd.Process.Kill()
				}
			}
			_ = cmd.Wait() // it was killed
		}
		s := storetest.Open(t, url)
		mustRecord(t, s, 1)
		if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != 0 {
			t.Errorf("exit %d, want 0; %+v", r.Exit(), r.First)
		}
		if len(answered) < 4*10 {
			t.Fatalf("%d changes were answered, want at least 40", len(answered))
		}
		entries := map[string]bool{}
		f := store.AuditFilter{Action: string(audit.AuthLogin)}
		for {
			page, err := s.AuditLog(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page.Items {
				name, _ := strconv.Unquote(strings.TrimSuffix(strings.TrimPrefix(string(e.Details), `{"reason":`), "}"))
				if name == "" { // the change after the last kill
					continue
				}
				entries[name] = true
				if _, err := s.Meta(t.Context(), name); err != nil {
					t.Errorf("entry %d without its change: %v", e.Seq, err)
				}
			}
			if page.Next == nil {
				break
			}
			f.Cursor = *page.Next
		}
		for _, name := range answered {
			if !entries[name] {
				t.Errorf("change %s was answered and has no entry", name)
			}
		}
	})
}

// TestLessonL9HealthTriesWhatWritesNeed: a log that takes no entry is noticed without a change, and a try leaves nothing.
func TestLessonL9HealthTriesWhatWritesNeed(t *testing.T) {
	storetest.EachURL(t, func(t *testing.T, url string) {
		s := storetest.Open(t, url)
		mustRecord(t, s, 1)
		for range 3 {
			if err := s.TryAudit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		mustRecord(t, s, 1)
		if r := verifyStore(t, s, store.VerifyOptions{}); r.Exit() != 0 || r.Exist != 3 {
			t.Errorf("after three tries: exit %d, %d rows; want 0, 3", r.Exit(), r.Exist)
		}
		db := attack(t, url)
		mustExec(t, db, `ALTER TABLE audit_personal RENAME TO elsewhere`)
		if err := s.TryAudit(t.Context()); !errors.Is(err, store.ErrAuditFailed) {
			t.Errorf("a log that takes nothing: %v, want ErrAuditFailed", err)
		}
		mustExec(t, db, `ALTER TABLE elsewhere RENAME TO audit_personal`)
		cut(t, db, 2)
		if err := s.TryAudit(t.Context()); !errors.Is(err, store.ErrHistoryInDoubt) {
			t.Errorf("a cut tail: %v, want ErrHistoryInDoubt", err)
		}
	})
}
