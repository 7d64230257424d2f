package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/store"
)

// Record is what the audit log says of one backup, made or failed. Most of it stands in the entry's details under the same names.
type Record struct {
	Seq       int64      `json:"audit_seq"`
	At        store.Time `json:"at"`
	Actor     string     `json:"actor_kind"`
	OK        bool       `json:"ok"`
	ID        string     `json:"id"`
	Target    string     `json:"target"`
	File      string     `json:"file"`
	SHA256    string     `json:"sha256"`
	Bytes     int64      `json:"bytes"`
	Rows      int64      `json:"rows"`
	Snapshot  store.Time `json:"snapshot_at"`
	Started   store.Time `json:"started_at"`
	Finished  store.Time `json:"finished_at"`
	HeadSeq   int64      `json:"head_seq"`
	RowHMAC   string     `json:"head_row_hmac"`
	Encrypted bool       `json:"encrypted"`
	Verified  bool       `json:"verified"`
	Without   []string   `json:"without" doc:"tables whose rows were left out"`
	Held      bool       `json:"held" doc:"the history was in doubt when it was made: it may hold less than there was"`
	Reason    string     `json:"reason" doc:"why it failed, or why what it holds is not right"`
}

// Unproved reports whether nothing could be said of r's audit log: a key was missing.
func (r *Record) Unproved() bool { return strings.HasPrefix(r.Reason, unproved) }

// good reports whether r is of a backup that was verified and holds everything.
func (r *Record) good() bool { return r.OK && r.Verified && len(r.Without) == 0 }

// History gives what the audit log says of backups, newest first: of action, at most limit.
func History(ctx context.Context, s *store.Store, action audit.Action, limit int) ([]Record, error) {
	out := []Record{}
	f := store.AuditFilter{Action: string(action), Page: store.Page{Limit: min(limit, store.MaxPage)}}
	for len(out) < limit {
		page, err := s.AuditLog(ctx, f)
		if err != nil {
			return nil, fmt.Errorf("read the history of backups: %w", err)
		}
		for i := range page.Items {
			out = append(out, recordOf(&page.Items[i]))
		}
		if page.Next == nil {
			break
		}
		f.Cursor = *page.Next
	}
	return out[:min(limit, len(out))], nil
}

func recordOf(e *store.AuditEntry) Record {
	var details struct {
		Record

		Backup string `json:"backup"`
	}
	_ = json.Unmarshal(e.Details, &details) // an entry that was tampered with tells nothing
	r := details.Record
	r.Seq, r.At, r.Actor, r.OK, r.ID = e.Seq, e.TS, e.ActorKind, e.Action == string(audit.BackupCompleted), details.Backup
	r.Without = append([]string{}, r.Without...) // never null
	return r
}

// Last gives the newest entry of an action; store.ErrNotFound if there is none.
func Last(ctx context.Context, s *store.Store, action audit.Action) (Record, error) {
	list, err := History(ctx, s, action, 1)
	if err == nil && len(list) == 0 {
		err = store.ErrNotFound
	}
	if err != nil {
		return Record{}, err
	}
	return list[0], nil
}

// newestMade gives the newest record of a backup made that is accepted; store.ErrNotFound if there is none.
func newestMade(ctx context.Context, s *store.Store, accept func(*Record) bool) (Record, error) {
	f := store.AuditFilter{Action: string(audit.BackupCompleted), Page: store.Page{Limit: 20}}
	for read := 0; read < historyDepth; {
		page, err := s.AuditLog(ctx, f)
		if err != nil {
			return Record{}, fmt.Errorf("read the history of backups: %w", err)
		}
		for i := range page.Items {
			if r := recordOf(&page.Items[i]); accept(&r) {
				return r, nil
			}
		}
		if page.Next == nil {
			break
		}
		read, f.Cursor, f.Limit = read+len(page.Items), *page.Next, store.MaxPage
	}
	return Record{}, store.ErrNotFound
}

// historyDepth bounds how far back list and prune compare files with the audit log.
const historyDepth = 10_000

// recorded gives the newest record of each file name. Without a store there is none.
func recorded(ctx context.Context, s *store.Store) (map[string]Record, error) {
	out := map[string]Record{}
	if s == nil {
		return out, nil
	}
	list, err := History(ctx, s, audit.BackupCompleted, historyDepth)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	for _, r := range list {
		if _, newer := out[r.File]; !newer && r.File != "" {
			out[r.File] = r
		}
	}
	return out, nil
}

// Find gives the record of a backup that was made; store.ErrNotFound if the audit log says nothing of it.
func Find(ctx context.Context, s *store.Store, id string) (Record, error) {
	page, err := s.AuditLog(ctx, store.AuditFilter{Action: string(audit.BackupCompleted), Target: id, Page: store.Page{Limit: 1}})
	if err != nil {
		return Record{}, fmt.Errorf("read the history of backups: %w", err)
	}
	if id == "" || len(page.Items) == 0 {
		return Record{}, store.ErrNotFound
	}
	return recordOf(&page.Items[0]), nil
}

// Page gives a page of everything that the audit log says of backups made and failed, newest first.
func Page(ctx context.Context, s *store.Store, p store.Page) (store.Slice[Record], error) {
	page, err := s.AuditLog(ctx, store.AuditFilter{Prefix: "backup.", Page: p})
	if err != nil {
		return store.Slice[Record]{}, fmt.Errorf("read the history of backups: %w", err)
	}
	out := store.Slice[Record]{Items: []Record{}, Next: page.Next, Prev: page.Prev}
	for i := range page.Items {
		switch audit.Action(page.Items[i].Action) { //nolint:exhaustive // the others tell of no backup.
		case audit.BackupCompleted, audit.BackupFailed:
			out.Items = append(out.Items, recordOf(&page.Items[i]))
		}
	}
	return out, nil
}
