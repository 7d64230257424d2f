package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/z4j-go/z4j/internal/audit"
)

// Generation is a history of the audit log: a new one begins where the database was rolled back.
type Generation struct {
	ID       string `json:"generation"`
	Started  int64  `json:"started"`  // seq of the entry that says so
	Previous string `json:"previous"` // "" for the first
	Fork     int64  `json:"fork"`     // the size up to which it and the one before agree, and those before that, if they go so far
	Cause    string `json:"cause"`

	// Abandoned are histories that anchors knew when this one began and the log did not: those of a log that was lost.
	Abandoned []string `json:"abandoned,omitempty"`
}

// End returns the size up to which a history of list counts, and whether it ended. None counts further than one that came
// out of it: a later fork that lies before an earlier one says that the earlier one was too high.
func End(list []Generation, generation string) (size int64, ended bool) {
	for _, g := range list {
		if g.Previous != generation || generation == "" {
			continue
		}
		if !ended || g.Fork < size {
			size = g.Fork
		}
		generation, ended = g.ID, true
	}
	return size, ended
}

const generationColumns = `generation, started, coalesce(previous, ''), coalesce(fork, 0), cause`

func (g *Generation) fields() []any { return []any{&g.ID, &g.Started, &g.Previous, &g.Fork, &g.Cause} }

// Generations lists the histories that the chain names, the present one last. What a table says counts only where the
// entry behind it is proved.
func (s *Store) Generations(ctx context.Context) ([]Generation, error) {
	return s.generations(ctx, s.read)
}

func (s *Store) generations(ctx context.Context, q querier) ([]Generation, error) {
	rows, err := q.QueryContext(ctx, `SELECT `+generationColumns+` FROM audit_generations ORDER BY started, generation`)
	found, err := collect(rows, err, (*Generation).fields)
	if err != nil {
		return nil, wrap("read generations", err)
	}
	out := []Generation{}
	for _, g := range found {
		row, err := noneIsZero(s.auditRow(ctx, q, `WHERE seq = $1`, g.Started))
		if err != nil {
			return nil, wrap("read the entry of a generation", err)
		}
		if row.Seq == 0 {
			if row, err = s.prunedGeneration(ctx, q, &g); err != nil {
				return nil, err
			}
		}
		if s.begins(&row, &g) {
			out = append(out, g)
		}
	}
	return out, nil
}

// prunedGeneration returns the audit.pruned that tells of a generation whose own entry was exported and deleted.
func (s *Store) prunedGeneration(ctx context.Context, q querier, g *Generation) (audit.Row, error) {
	b, err := s.boundary(ctx, q)
	if err != nil || g.Started > b.Through {
		return audit.Row{}, err
	}
	row, err := s.newestProved(ctx, q, audit.Pruned)
	return row, wrap("read the entry of a pruned generation", err)
}

// begins reports whether r is a proved entry that names g, and puts what it says into g.
func (s *Store) begins(r *audit.Row, g *Generation) bool {
	body, ok := s.proved(r)
	if !ok {
		// Without the key that signed the first entry the installation would have no history at all.
		return r.Seq == 1 && r.Action == string(audit.SystemInstalled) && g.Started == 1 && !s.chain.has(r.KID)
	}
	var d struct {
		Generation  string       `json:"generation"`
		Previous    string       `json:"previous"`
		Fork        int64        `json:"fork"`
		Generations []Generation `json:"generations"`
		Abandoned   []string     `json:"abandoned"`
	}
	if json.Unmarshal([]byte(body.Details.S), &d) != nil {
		return false
	}
	switch audit.Action(body.Action) {
	case audit.SystemInstalled:
		return d.Generation == g.ID
	case audit.GenerationStarted, audit.SystemRestored:
		g.Previous, g.Fork, g.Abandoned = d.Previous, d.Fork, d.Abandoned
		return d.Generation == g.ID
	case audit.Pruned:
		for _, p := range d.Generations {
			if p.ID == g.ID {
				*g = p
				return true
			}
		}
	default: // begins none
	}
	return false
}

func (c *chain) has(kid string) bool {
	for _, k := range c.given() {
		if k.KID() == kid {
			return true
		}
	}
	return false
}

// readGeneration remembers which history this process appends to.
func (s *Store) readGeneration(ctx context.Context, q querier) error {
	list, err := s.generations(ctx, q)
	if err != nil {
		return err
	}
	s.chain.mu.Lock()
	defer s.chain.mu.Unlock()
	s.chain.generation = ""
	if len(list) > 0 {
		s.chain.generation = list[len(list)-1].ID
	}
	return nil
}

// excused reports whether e, which is not there any more, belongs to what the chain itself says was left behind: pruned
// rows, or a history that ended before it.
func (s *Store) excused(ctx context.Context, tx *Tx, e seenEntry, h head) (bool, error) {
	if there, err := s.pruned(ctx, tx, e, h); there || err != nil {
		return there, err
	}
	if h.generation == e.generation {
		return false, nil
	}
	list, err := s.generations(ctx, tx)
	if err != nil {
		return false, err
	}
	of := e.generation
	for _, g := range list {
		if g.Previous != of {
			continue
		}
		if e.seq > g.Fork {
			return true, nil
		}
		of = g.ID
	}
	return false, nil
}

// NewGeneration says why a new history begins.
type NewGeneration struct {
	Cause      string // failover, acknowledged, restored
	Reason     string
	Actor      audit.Actor
	Fork       int64 // the size up to which both agree
	AnchorSize int64 // of the newest checkpoint of what is left behind; 0: there is none
	AnchorRoot string
	Abandoned  []string       // histories that anchors know and the log does not
	Doubt      *Doubt         // what was found, if nothing recorded it yet
	Restored   map[string]any // details of system.restored; nil: nothing was restored by us
	Defuse     *Revival       // make void what must not come back to life; nil: nothing
	Place      *Place         // where the database lives from now on; nil: where it did

	last func(*Tx) error // the last step of the transaction
}

// StartGeneration begins a new history, which ends a hold. It returns its id.
func (s *Store) StartGeneration(ctx context.Context, n NewGeneration) (generation string, err error) {
	held, err := s.Hold(ctx)
	if err != nil {
		return "", err
	}
	previous, err := s.Generation(ctx)
	if err != nil {
		return "", err
	}
	g := newGeneration(previous, n.Cause)
	if n.Defuse != nil {
		if n.Defuse.Erasures, err = s.standing(ctx, n.Defuse.Erasures); err != nil {
			return "", fmt.Errorf("start generation: %w", err)
		}
	}
	var void Defused
	a := appending{key: s.chain.signer(), doubted: true, anew: true}
	a.before = func(tx *Tx) (err error) {
		if n.Defuse != nil {
			void, err = tx.defuse(ctx, n.Defuse, n.Restored != nil)
		}
		return err
	}
	a.entries = func(h head) []audit.Entry {
		g.Fork = min(n.Fork, h.seq)
		return n.entries(h, &g, held, void)
	}
	a.also = func(tx *Tx, rows []sealed) error {
		g.Started = rows[len(rows)-1].row.Seq
		if err := tx.putGeneration(ctx, &g); err != nil {
			return err
		}
		if n.Place != nil {
			if err := tx.putPlace(ctx, *n.Place); err != nil {
				return err
			}
		}
		if n.Defuse != nil {
			if err := tx.endRevival(ctx, n.Defuse, g.Started); err != nil {
				return err
			}
		}
		if n.last == nil {
			return nil
		}
		return n.last(tx)
	}
	if err := s.beginIfWiped(ctx, &a); err != nil {
		return "", err
	}
	if err := s.system(ctx, a); err != nil {
		return "", fmt.Errorf("start generation: %w", err)
	}
	s.log.WarnContext(ctx, "new generation of the audit log", "generation", g.ID, "previous", previous, "fork", g.Fork, "cause", n.Cause)
	s.chain.mu.Lock()
	s.chain.generation, s.chain.held = g.ID, nil
	s.chain.mu.Unlock()
	return g.ID, nil
}

func newGeneration(previous, cause string) Generation {
	return Generation{ID: randomHex(), Previous: previous, Cause: cause}
}

func randomHex() string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

// entries are what is recorded of a new generation; its own entry is the last.
func (n *NewGeneration) entries(h head, g *Generation, held *Hold, void Defused) []audit.Entry {
	var out []audit.Entry
	actor := n.Actor
	if actor.Kind == "" {
		actor.Kind = audit.System
	}
	if n.Doubt != nil && held == nil {
		out = append(out, audit.New(n.Doubt.facts(h)))
	}
	var defused any
	if n.Defuse != nil {
		defused = map[string]any{"sessions": void.Sessions, "setup_tokens": void.SetupTokens, "leases": void.Leases}
	}
	if n.Cause == "acknowledged" {
		details := map[string]any{"reason": n.Reason, "head_seq": h.seq, "head_row_hmac": h.rowHMAC, "defused": defused}
		if held != nil {
			details["entry_seq"], details["lost_seq"], details["lost_row_hmac"] = held.Entry, held.LostSeq, held.LostRowHMAC
			if held.LostTS != nil {
				details["lost_ts"] = held.LostTS.Time
			}
		}
		maps.Copy(details, void.again)
		out = append(out, audit.New(audit.Facts{Action: audit.RollbackAccepted, Actor: actor, Details: details}))
	}
	if n.Restored != nil {
		details := map[string]any{"generation": g.ID, "previous": g.Previous, "fork": g.Fork, "defused": defused}
		maps.Copy(details, n.Restored)
		maps.Copy(details, void.again)
		out = append(out, audit.New(audit.Facts{Action: audit.SystemRestored, Actor: actor, Details: details}))
	}
	if n.Defuse != nil {
		for i := range n.Defuse.Erasures {
			out = append(out, n.Defuse.Erasures[i].entry(actor))
		}
	}
	return append(out, audit.New(audit.Facts{Action: audit.GenerationStarted, Actor: actor, Details: map[string]any{
		"generation": g.ID, "previous": g.Previous, "fork": g.Fork, "anchor_size": n.AnchorSize, "anchor_root": n.AnchorRoot, "cause": n.Cause, "reason": n.Reason,
		"abandoned": n.Abandoned,
	}}))
}

// putGeneration notes g as the present one and ends the hold. What was found of the one before is not known of it.
func (tx *Tx) putGeneration(ctx context.Context, g *Generation) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO audit_generations (generation, started, previous, fork, cause) VALUES ($1, $2, $3, $4, $5)`,
		g.ID, g.Started, g.Previous, g.Fork, g.Cause)
	if err != nil {
		return wrap("note generation", err)
	}
	if err := tx.forgetAuditState(ctx); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM audit_hold`)
	return wrap("end hold", err)
}

// Generation returns the history that the chain is in.
func (s *Store) Generation(ctx context.Context) (string, error) {
	list, err := s.Generations(ctx)
	if err != nil || len(list) == 0 {
		return "", err
	}
	return list[len(list)-1].ID, nil
}

// Defused says what a new history made void.
type Defused struct {
	Sessions    int64 `json:"sessions"`
	SetupTokens int64 `json:"setup_tokens"`
	Leases      int64 `json:"leases"`

	again map[string]any // details: what was revoked and erased once more
}

// defuse makes void what an older state of the database would bring back to life: sessions that were ended since, tokens
// to set up the brain, what was revoked, and, in a database that was restored by us, leases of brains that are gone. Where
// brains may be at work their leases stay: one holds a backup together, or deletes what is old.
func (tx *Tx) defuse(ctx context.Context, r *Revival, restored bool) (d Defused, err error) {
	type part struct {
		n    *int64
		text string
		args []any
	}
	parts := []part{
		{&d.Sessions, `UPDATE sessions SET revoked_at = $1, revocation_reason = 'restored' WHERE revoked_at IS NULL`, []any{tx.now}},
		{&d.SetupTokens, `DELETE FROM first_boot_tokens`, nil},
	}
	if restored {
		parts = append(parts, part{&d.Leases, `DELETE FROM leases`, nil})
	}
	for _, part := range parts {
		res, err := tx.ExecContext(ctx, part.text, part.args...)
		if err != nil {
			return d, wrap("defuse", err)
		}
		if *part.n, err = res.RowsAffected(); err != nil {
			return d, wrap("defuse", err)
		}
	}
	d.again, err = tx.revokeAgain(ctx, r)
	return d, err
}

// endRevival erases what was erased since, whose entries stand before the one of the new history, and notes the gap.
func (tx *Tx) endRevival(ctx context.Context, r *Revival, started int64) error {
	for i := range r.Erasures {
		if err := tx.eraseAgain(ctx, r.Erasures[i].Parts, started-int64(len(r.Erasures)-i)); err != nil {
			return err
		}
	}
	return tx.noteRevival(ctx, r)
}
