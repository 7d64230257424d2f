package custody_test

import (
	"testing"

	"github.com/z4j-go/z4j/internal/store/storetest"
)

// TestOlderCopyUnderALiveBrain: no anchor knows more than the copy that was put in the place of the file, and the brain
// does: it saw the entries that the copy lacks.
func TestOlderCopyUnderALiveBrain(t *testing.T) {
	l := &lab{url: storetest.SQLite(t), home: t.TempDir()}
	b := l.run(t, 3)
	l.exec(t, `VACUUM INTO '`+l.path()+`.copy'`)
	b.change(t, 4)
	copyFile(t, l.path()+".copy", l.path())
	if err := b.Watch(t.Context()); err != nil {
		t.Fatal(err)
	}
	h, err := b.Hold(t.Context())
	if err != nil || h == nil || h.LostSeq != 8 || h.Fork == nil || *h.Fork != 4 {
		t.Errorf("hold %+v, %v; want one at the first look, entry 8 lost and fork 4", h, err)
	}
	b.mustHold(t, "an older copy", "does not hold entry 8")
	if _, err := b.Acknowledge(t.Context(), acknowledged); err != nil {
		t.Fatal(err)
	}
	b.mustHold(t, "acknowledged", "")
	b.sign(t)
	b.mustProve(t, "acknowledged", 0)
}

// TestNewerCopyUnderALiveBrain: the same history, which went on elsewhere, is no roll-back; the older file behind it is one.
func TestNewerCopyUnderALiveBrain(t *testing.T) {
	l := &lab{url: storetest.SQLite(t), home: t.TempDir()}
	b := l.run(t, 3)
	b.change(t, 2)
	older, newer := &lab{url: l.url + ".older"}, &lab{url: l.url + ".newer"}
	for _, c := range []*lab{older, newer} {
		l.exec(t, `VACUUM INTO '`+c.path()+`'`)
	}
	other := brain{Store: storetest.Open(t, newer.url)}
	other.change(t, 4)
	other.stop(t)
	copyFile(t, newer.path(), l.path())
	if err := b.Watch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h, err := b.Hold(t.Context()); err != nil || h != nil {
		t.Errorf("a newer copy: hold %+v, %v; want none", h, err)
	}
	copyFile(t, older.path(), l.path())
	if err := b.Watch(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.mustHold(t, "the older one again, though it has all that this brain wrote", "does not hold entry 10")
}
