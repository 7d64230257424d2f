package fold_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/z4j-go/z4j/internal/fold"
)

func TestStoredNumbersNeverChange(t *testing.T) {
	for _, tt := range []struct{ name, got, want string }{
		{"kinds", fmt.Sprint(fold.Sent, fold.Received, fold.Started, fold.Failed, fold.Retried, fold.Rejected, fold.Succeeded, fold.Revoked), "task.sent task.received task.started task.failed task.retried task.rejected task.succeeded task.revoked"},
		{"kinds' numbers", fmt.Sprintf("%d %d %d %d %d %d %d %d", fold.Sent, fold.Received, fold.Started, fold.Failed, fold.Retried, fold.Rejected, fold.Succeeded, fold.Revoked), "1 2 3 4 5 6 7 8"},
		{"states", fmt.Sprint(fold.State(0), fold.State(1), fold.State(2), fold.State(3), fold.State(4), fold.State(5), fold.State(6), fold.State(7), fold.State(8), fold.State(9)), "unknown pending received started success failure retry revoked rejected lost"},
		{"reasons", strings.Join([]string{fold.Reason(1).String(), fold.Reason(2).String(), fold.Reason(3).String(), fold.Reason(4).String(), fold.Reason(5).String(), fold.Reason(6).String(), fold.Reason(7).String(), fold.Reason(8).String(), fold.Reason(9).String(), fold.Reason(10).String()}, ", "), "revoked, terminated, expired, worker stopped, worker restarted, worker silent, not running, later attempt ended, later attempt succeeded, too many events"},
		{"measures", fmt.Sprint(fold.MeasureDeliveries, fold.MeasureStarted, fold.MeasureRevoked, fold.MeasureExpired, fold.MeasureTask, fold.MeasureOutcome, fold.MeasureWait, fold.MeasureRun, fold.Slots), "1 2 3 4 16 32 128 256 65"},
	} {
		want(t, tt.name, tt.got, tt.want)
	}
	for s := fold.StateUnknown; s <= fold.StateLost; s++ {
		if got, ok := fold.ParseState(s.String()); !ok || got != s {
			t.Errorf("ParseState(%q): got %v %v, want %v", s.String(), got, ok, s)
		}
	}
	for k := fold.Sent; k <= fold.Revoked; k++ {
		if got, ok := fold.ParseKind(k.String()); !ok || got != k {
			t.Errorf("ParseKind(%q): got %v %v, want %v", k.String(), got, ok, k)
		}
	}
	for _, name := range []string{"", "task.", "worker.online", "task.done"} {
		if got, ok := fold.ParseKind(name); ok {
			t.Errorf("ParseKind(%q): got %v, want none", name, got)
		}
	}
}

// TestTheStoredFormNeverChanges decodes a history that an earlier build wrote, and writes it again.
func TestTheStoredFormNeverChanges(t *testing.T) {
	const stored = "010c80d3dc8ebf81a6060401770176017504676f6e65030000000000000007ffcdd2590000000000000006ffbbde570000000000000008" +
		"ffc4d858070000a08d06912880ade204a08d06000180897a9a8080897aa08d060001020002ec1080897aa08d06009c33ad18c0843d02ab" +
		"0480897aa08d0601c595ec12870380897aa08d06ae4080897a0002c92147ae01090000000000000000000000000000ff010b73686f707f" +
		"2d7619010764656661756c74010468696768010170010172020a5b312c20f7529da102027b7d02055b2261225d02030680b4c7c44a0013" +
		"80c8d007030680b4c7c44a"
	blob, err := hex.DecodeString(stored)
	if err != nil {
		t.Fatal(err)
	}
	var h fold.History
	guesses, err := h.Decode("celery", taskID, blob)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "again", hex.EncodeToString(h.Append(nil, guesses)), stored)
	b := whole(t, "celery", taskID, everything(), everyGuess())
	want(t, "made anew", hex.EncodeToString(b.blob), stored)
}

// everything is a history in which each part of the stored form occurs.
func everything() []fold.Mark {
	return []fold.Mark{
		mark(fold.Sent, "", s(-5), about(fold.Fields{Name: "shop.charge", Queue: "default", Priority: "high", Parent: "p", Root: "r"})),
		received("", 0, by(7, s(-99)), retries(1), eta(s(1)), about(fold.Fields{Args: []byte(`[1, "two"]`), Kwargs: []byte(`{}`), Tags: []byte(`["a"]`)})),
		started("w", 1, by(7, s(-99))), started("w", 1, by(8, s(-98))), started("w", 1, by(6, s(-97))),
		retried("w", 2, retryCount(2), runtime(sec), carries(fold.Payload{Reason: "why"})),
		failed("v", 3, func(m *fold.Mark) { m.WillRetry = true }, exception("E")),
		revoked("", 4, expired, terminated),
		mark(fold.Succeeded, "u", s(5), timeless(9), result("null")),
	}
}

func everyGuess() []fold.Guess { return []fold.Guess{lost("w", 1), lost("gone", 3)} }

func TestDecodeRefuses(t *testing.T) {
	good := whole(t, "celery", taskID, everything(), everyGuess()).blob
	with := func(i int, b byte) []byte {
		bad := slices.Clone(good)
		bad[i] = b
		return bad
	}
	for _, tt := range []struct {
		name string
		blob []byte
	}{
		{"a newer version", with(0, 2)},
		{"version 0", with(0, 0)},
		{"flags of a newer version", with(1, good[1]|0x10)},
		{"the version alone", good[:1]},
		{"a byte too much", append(slices.Clone(good), 0)},
		{"half of it", good[:len(good)/2]},
	} {
		var h fold.History
		guesses, err := h.Decode("celery", taskID, tt.blob)
		if !errors.Is(err, fold.ErrBlob) || guesses != nil || h.Len() != 0 {
			t.Errorf("%s: got %v with %d marks, want ErrBlob and none", tt.name, err, h.Len())
		}
	}
	for i := range good {
		var h fold.History
		if _, err := h.Decode("celery", taskID, good[:i]); i > 0 && err == nil {
			t.Errorf("the first %d of %d bytes: got no error, want one", i, len(good))
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(whole(f, "celery", taskID, common(), nil).blob)
	f.Add(whole(f, "celery", taskID, everything(), everyGuess()).blob)
	var many []fold.Mark
	for i := range 400 {
		many = append(many, started("w"+fmt.Sprint(i%3), float64(i)))
	}
	f.Add(whole(f, "rq", taskID, many, nil).blob)
	f.Fuzz(func(t *testing.T, blob []byte) {
		var h fold.History
		guesses, err := h.Decode("celery", taskID, blob)
		if err != nil {
			if !errors.Is(err, fold.ErrBlob) {
				t.Fatalf("got %v, want ErrBlob", err)
			}
			return
		}
		// What can be read can be folded, counted, added to, and written so that it reads the same.
		r := fold.Fold(&h, guesses)
		fold.Contributions(nil, &r, "", "")
		once := h.Append(nil, guesses)
		var again fold.History
		guesses, err = again.Decode("celery", taskID, once)
		if err != nil {
			t.Fatalf("decode what Append wrote of %x: %v", blob, err)
		}
		if twice := again.Append(nil, guesses); !bytes.Equal(once, twice) {
			t.Fatalf("got %x, want %x", twice, once)
		}
		m := failed("w", 1)
		again.Add(&m)
		fold.Fold(&again, guesses)
	})
}

func TestTheBound(t *testing.T) {
	full := func(n int) *fold.History {
		var h fold.History
		for i := range n {
			m := mark(fold.Received, "w", s(float64(i)))
			if got := h.Add(&m).Novelty; got != fold.New {
				t.Fatalf("mark %d: got novelty %d, want New", i, got)
			}
		}
		return &h
	}
	h := full(384)
	want(t, "384 marks are whole", h.Truncated(), false)
	m := mark(fold.Received, "w", s(500))
	want(t, "the 385th", h.Add(&m).Novelty, fold.New)
	want(t, "is one too many", h.Truncated(), true)
	keys := h.AppendKeys(nil)
	want(t, "kept", len(keys), 384)
	want(t, "the 32 earliest", keys[31].At, s(31))
	want(t, "the 352 latest", keys[32].At, s(33))
	m = mark(fold.Received, "w", s(32))
	want(t, "the dropped one again", h.Add(&m).Novelty, fold.Beyond)
	m = mark(fold.Received, "w", s(33))
	want(t, "a kept one again", h.Add(&m).Novelty, fold.Nothing)
	r := fold.Fold(h, nil)
	want(t, "at least", r.Task.Truncated, true)
	want(t, "deliveries", r.Task.Deliveries, int32(384))

	t.Run("an open attempt before the gap counts as lost, and an end after the gap closes no attempt before it", func(t *testing.T) {
		marks := []fold.Mark{started("w", -10), started("v", -9), revoked("v", -8), started("u", -7), failed("u", -6)}
		for i := range 400 {
			marks = append(marks, received("x", float64(i)))
		}
		marks = append(marks, failed("", 500), succeeded("w", 501))
		b := anyOrderOfMany(t, "rq", marks)
		want(t, "attempts", attempts(&b.result), []attempt{
			{"w", fold.StateLost, s(-10), 0},
			{"v", fold.StateRevoked, s(-9), s(-8)},
			{"u", fold.StateFailure, s(-7), s(-6)},
			{"", fold.StateFailure, 0, s(500)},
			{"w", fold.StateSuccess, 0, s(501)},
		})
		want(t, "reason", b.result.Attempts[0].Reason, fold.ReasonBeyondBound)
	})
	t.Run("the first mark after the gap is after it", func(t *testing.T) {
		marks := []fold.Mark{started("w", -10)}
		for i := range 31 {
			marks = append(marks, received("x", -5+float64(i)/10))
		}
		marks = append(marks, received("x", 0)) // dropped
		marks = append(marks, failed("", 1))
		for i := range 351 {
			marks = append(marks, received("x", 2+float64(i)))
		}
		b := anyOrderOfMany(t, "rq", marks)
		want(t, "attempts", attempts(&b.result), []attempt{{"w", fold.StateLost, s(-10), 0}, {"", fold.StateFailure, 0, s(1)}})
	})
	t.Run("marks without a time are bounded apart, whatever their receive times", func(t *testing.T) {
		var marks []fold.Mark
		for i := range 420 {
			m := received("w", float64(i))
			m.Event = [16]byte{byte(2 - i>>8), byte(i * 91), byte(i), 1}
			m.At = m.Heard
			again := m
			again.At -= 300 * sec
			again.Heard = again.At
			marks = append(marks, m, received("v", float64(i)), again)
		}
		b := anyOrderOfMany(t, "rq", marks)
		want(t, "deliveries", b.result.Task.Deliveries, int32(768))
		b = anyOrderOfMany(t, "rq", slices.DeleteFunc(marks, func(m fold.Mark) bool { return m.Worker == "v" }))
		want(t, "deliveries without a time", b.result.Task.Deliveries, int32(384))
		want(t, "at least", b.result.Task.Truncated, true)
	})
}

// anyOrderOfMany folds the marks forwards, backwards and in a few batches from the middle.
func anyOrderOfMany(t *testing.T, engine string, marks []fold.Mark) *brain {
	t.Helper()
	all := whole(t, engine, "x", marks, nil)
	backwards := slices.Clone(marks)
	slices.Reverse(backwards)
	half := len(marks) / 2
	for how, batches := range map[string][][]fold.Mark{
		"backwards":       {backwards},
		"from the middle": {marks[half:], backwards[half:], marks[:half]},
		"in small ones":   slices.Collect(slices.Chunk(backwards, 37)),
	} {
		b := newBrain(engine, "x", nil)
		for _, batch := range batches {
			b.take(t, batch)
		}
		b.equal(t, all, how)
	}
	return all
}

func TestNoveltySaysWhatToWrite(t *testing.T) {
	var h fold.History
	add := func(m fold.Mark) fold.Added { return h.Add(&m) }
	want(t, "a new mark", add(failed("w", 1, exception("E"), named("n"))), fold.Added{Novelty: fold.New, Fields: fold.FieldName, Payload: true})
	want(t, "the same again", add(failed("w", 1, exception("E"), named("n"))), fold.Added{})
	want(t, "later heard", add(failed("w", 1, exception("E"), heard(s(99)))), fold.Added{})
	want(t, "earlier heard", add(failed("w", 1, exception("E"), heard(s(1)))), fold.Added{Novelty: fold.Filled})
	want(t, "another value", add(failed("w", 1, exception("F"))).Payload, true)
	want(t, "a field", add(failed("w", 1, about(fold.Fields{Name: "n", Queue: "q"}))), fold.Added{Fields: fold.FieldQueue})
	want(t, "a run time", add(failed("w", 1, runtime(1))), fold.Added{Novelty: fold.Filled})
	want(t, "a sender", add(failed("w", 1, by(4, 1))), fold.Added{Novelty: fold.Filled})
	want(t, "a sender of a lesser id", add(failed("w", 1, by(1, 1))), fold.Added{Novelty: fold.Filled})
	want(t, "two more around it", []fold.Added{add(failed("w", 1, by(9, 5))), add(failed("w", 1, by(5, 5)))}, []fold.Added{{Novelty: fold.Filled}, {Novelty: fold.Filled}})
	want(t, "seen earlier", add(failed("w", 1, by(9, 4))), fold.Added{Novelty: fold.Filled})
	want(t, "seen later", add(failed("w", 1, by(9, 6))), fold.Added{})
	want(t, "the sender again", add(failed("w", 1, by(1, 2))), fold.Added{})
	want(t, "without a worker", add(failed("", 1)).Novelty, fold.New)
	want(t, "an unknown kind", add(fold.Mark{Kind: 9, At: 1}), fold.Added{})
	want(t, "no kind", add(fold.Mark{At: 1}), fold.Added{})
	want(t, "marks", h.Len(), 2)
}

func TestManySendersOfOneMark(t *testing.T) {
	var marks []fold.Mark
	for i := range 20 {
		marks = append(marks, started("w", 0, by(uint64(1+i*7%20), s(-float64(i)))), started("w", 0, by(uint64(1+i*3%20), s(-50))))
	}
	b := anyOrder(t, "celery", "x", marks)
	want(t, "attempts", attempts(&b.result), []attempt{{"w", fold.StateStarted, s(0), 0}})
}

func TestIdentity(t *testing.T) {
	project, other := [16]byte{1}, [16]byte{2}
	k := key(started("w", 1))
	id := fold.EventID(project, "celery", "x", k)
	want(t, "version", id[6]>>4, byte(5))
	want(t, "variant", id[8]>>6, byte(2))
	want(t, "again", fold.EventID(project, "celery", "x", k), id)
	seen := map[[16]byte]string{id: "itself"}
	for name, got := range map[string][16]byte{
		"project":                  fold.EventID(other, "celery", "x", k),
		"engine":                   fold.EventID(project, "rq", "x", k),
		"task":                     fold.EventID(project, "celery", "y", k),
		"boundary":                 fold.EventID(project, "celer", "yx", k),
		"kind":                     fold.EventID(project, "celery", "x", key(failed("w", 1))),
		"µs":                       fold.EventID(project, "celery", "x", key(started("w", 1.000001))),
		"worker":                   fold.EventID(project, "celery", "x", key(started("", 1))),
		"event":                    fold.AgentEventID(project, [16]byte{3}),
		"event of another project": fold.AgentEventID(other, [16]byte{3}),
	} {
		if twin, taken := seen[got]; taken {
			t.Errorf("%s: got the id of %s, want one of its own", name, twin)
		}
		seen[got] = name
	}
	m := mark(fold.Started, "w", s(1), timeless(7))
	want(t, "without a time: by the agent's event id", fold.EventID(project, "celery", "x", key(m)), fold.AgentEventID(project, m.Event))
	m.At += sec
	want(t, "whenever it was received", fold.EventID(project, "celery", "x", key(m)), fold.AgentEventID(project, m.Event))
	// Known answer: SHA-1 over the project and "m", then engine, task id and kind each after its length, the time, the worker.
	want(t, "known answer", hex.EncodeToString(id[:]), "05e7ddb2db495304b2dc729b135d31a3")
}

func TestTaskKey(t *testing.T) {
	for _, tt := range []struct{ name, engine, id, want string }{
		{"a UUID is itself", "celery", "fc4e4370-0146-4aaf-b83e-c8db5b4081a6", "fc4e437001464aafb83ec8db5b4081a6"},
		{"in every engine", "rq", "fc4e4370-0146-4aaf-b83e-c8db5b4081a6", "fc4e437001464aafb83ec8db5b4081a6"},
		{"upper case is another text", "celery", "FC4E4370-0146-4AAF-B83E-C8DB5B4081A6", "0a3a55b90b4274a691eef5e46edfec18"},
		{"so is one without hyphens", "celery", "fc4e437001464aafb83ec8db5b4081a6", "6f6a96313d04f6231f03faedcdb201eb"},
		{"other ids are hashed", "arq", "probe:1", "d44ef000994349f58454553410d87cd0"},
		{"with their engine", "rq", "probe:1", "fed091b237860adddef812380d0690e8"},
		{"hyphens at other places", "celery", "fc4e43700-146-4aaf-b83e-c8db5b4081a6", "d67e4d7d09d5b49419533458d0430a8b"},
		{"none", "celery", "", "4fecb4f68522f1e6fb71fe504fa4cbba"},
	} {
		got := fold.TaskKey(tt.engine, tt.id)
		want(t, tt.name, hex.EncodeToString(got[:]), tt.want)
	}
}

func TestMarkKeysStoredForm(t *testing.T) {
	for _, tt := range []struct {
		name string
		k    fold.MarkKey
		want string
	}{
		{"with a time", fold.MarkKey{Kind: fold.Failed, At: 0x0102030405060708, Worker: "w"}, "04010203040506070877"},
		{"with an event", fold.MarkKey{Kind: fold.Failed, Event: [16]byte{1, 2}, Worker: "w"}, "840102000000000000000000000000000077"},
	} {
		want(t, tt.name, hex.EncodeToString(tt.k.Append(nil)), tt.want)
	}
}
