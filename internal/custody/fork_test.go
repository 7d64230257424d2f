package custody_test

import (
	"errors"
	"testing"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/custody"
	"github.com/z4j-go/z4j/internal/store"
	"github.com/z4j-go/z4j/internal/store/storetest"
)

var acknowledged = custody.Acknowledgement{By: audit.Actor{Kind: audit.CLI, ID: "root"}, Reason: "a test"}

// interleaved is a brain whose log was cut behind entry 5, after a command wrote entry 6, which is signed, and it 7.
func (l *lab) interleaved(t testing.TB) brain {
	t.Helper()
	b := l.run(t, 4)
	command := brain{Store: storetest.Open(t, l.url)}
	command.change(t, 1)
	b.sign(t)
	b.change(t, 1)
	l.cut(t, 5)
	l.exec(t, `DELETE FROM audit_checkpoints WHERE size > 5`)
	return b
}

// TestForkOfWhatAnotherWrote: the first entry that is gone and that this process saw is not the first that is gone.
func TestForkOfWhatAnotherWrote(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		b := l.interleaved(t)
		if err := b.try(t); !errors.Is(err, store.ErrHistoryInDoubt) {
			t.Fatalf("a change: %v, want ErrHistoryInDoubt", err)
		}
		done, err := b.Acknowledge(t.Context(), acknowledged)
		if err != nil || done.Fork != 5 {
			t.Fatalf("acknowledged: %+v, %v; want fork 5", done, err)
		}
		b.sign(t)
		b.mustHold(t, "acknowledged, and a checkpoint", "")
		b.mustProve(t, "acknowledged", 0)
		l.start(t).mustHold(t, "after a restart", "")
	})
}

// TestForkThatWasTooHighIsCorrected: a history that was acknowledged is said to agree with a checkpoint of the one before,
// of which it has another entry. Who acknowledges what follows from that ends it.
func TestForkThatWasTooHighIsCorrected(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		b := l.interleaved(t)
		if err := b.try(t); !errors.Is(err, store.ErrHistoryInDoubt) {
			t.Fatalf("a change: %v, want ErrHistoryInDoubt", err)
		}
		if _, err := b.StartGeneration(t.Context(), store.NewGeneration{Cause: "acknowledged", Reason: "an old release", Fork: 6}); err != nil {
			t.Fatal(err)
		}
		b.mustProve(t, "the fork is too high", 4)
		_ = b.Checkpoint(t.Context())
		b.mustHold(t, "the fork is too high", "entry 6 is another one")
		done, err := b.Acknowledge(t.Context(), acknowledged)
		if err != nil || done.Fork != 5 {
			t.Fatalf("acknowledged again: %+v, %v; want fork 5", done, err)
		}
		b.sign(t)
		b.mustHold(t, "corrected, and a checkpoint", "")
		b.mustProve(t, "corrected", 0)
		list, err := b.Generations(t.Context())
		if err != nil || len(list) != 3 {
			t.Fatalf("generations %+v, %v; want three", list, err)
		}
		from, err := b.AuditLeaf(t.Context(), list[1].Started)
		if err != nil || done.Gap == nil || done.Gap.From != store.TimeAt(from.TS) {
			t.Errorf("data gap %+v, %v; want it from the entry that began the history before, %s", done.Gap, err, store.TimeAt(from.TS))
		}
		again := l.start(t)
		again.mustHold(t, "after a restart", "")
		again.mustProve(t, "after a restart", 0)
	})
}

// TestForkLiesBehindTheBeginningOfTheHistory that it comes out of, however old the newest checkpoint that agrees is.
func TestForkLiesBehindTheBeginningOfTheHistory(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		b := l.run(t, 4)
		if err := b.PutHold(t.Context(), store.Doubt{Cause: "rolled_back", Reason: "a test", Fork: 3}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Acknowledge(t.Context(), acknowledged); err != nil {
			t.Fatal(err)
		}
		list, err := b.Generations(t.Context())
		if err != nil || len(list) != 2 || list[1].Fork != 3 {
			t.Fatalf("generations %+v, %v; want a second one that forks at 3", list, err)
		}
		b.change(t, 4)
		b.sign(t)
		b.stop(t)
		l.cut(t, int(list[1].Started)+1)
		b = l.start(t)
		done, err := b.Acknowledge(t.Context(), acknowledged)
		if err != nil || done.Fork < list[1].Started {
			t.Errorf("acknowledged: %+v, %v; want a fork not before entry %d", done, err, list[1].Started)
		}
		b.sign(t)
		b.mustHold(t, "acknowledged", "")
		b.mustProve(t, "acknowledged", 0)
	})
}

// TestForkThatWasTooHighIsCorrectedByABrainThatSawMore: no checkpoint tells of the entry that is gone, and another brain
// remembers it.
func TestForkThatWasTooHighIsCorrectedByABrainThatSawMore(t *testing.T) {
	each(t, func(t *testing.T, l *lab) {
		b := l.run(t, 4)
		other, third := brain{Store: storetest.Open(t, l.url)}, brain{Store: storetest.Open(t, l.url)}
		other.change(t, 1) // entry 6
		third.change(t, 1)
		l.cut(t, 5)
		if err := b.PutHold(t.Context(), store.Doubt{Cause: "rolled_back", Reason: "a test", Fork: 5}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.StartGeneration(t.Context(), store.NewGeneration{Cause: "acknowledged", Reason: "an old release", Fork: 6}); err != nil {
			t.Fatal(err)
		}
		b.change(t, 2)
		b.sign(t)
		_ = other.try(t) // which notices
		other.mustHold(t, "who saw the entry that the fork counts in", "does not hold entry 6")
		done, err := b.Acknowledge(t.Context(), acknowledged)
		if err != nil || done.Fork != 5 {
			t.Fatalf("acknowledged: %+v, %v; want fork 5", done, err)
		}
		for name, one := range map[string]brain{"who acknowledged": b, "who noticed": other, "who saw entry 7": third} {
			one.mustHold(t, name, "")
		}
		b.sign(t)
		b.mustProve(t, "corrected", 0)
		l.start(t).mustHold(t, "after a restart", "")
	})
}
