package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/z4j-go/z4j/internal/audit"
)

// Ways out of ErrAuditKeyUnknown, as everybody who shows it says them.
const keyWayOut = "give the old secret in Z4J_AUDIT_SECRETS_PREVIOUS, or, if it is lost, run `z4j-brain audit adopt-key --lost --reason …`"

func errKeyUnknown(key audit.Key, why string) error {
	if key.IsZero() {
		return fmt.Errorf("%w: no Z4J_AUDIT_SECRET was given", ErrAuditKeyUnknown)
	}
	return fmt.Errorf("%w: key %s may not sign here: %s; %s", ErrAuditKeyUnknown, key.KID(), why, keyWayOut)
}

// startChain makes the audit chain ready: its first row in a new database, its key otherwise. It runs under the
// migration lock. Only who may change the schema writes. A key that can't be proved is no reason not to start.
func (s *Store) startChain(ctx context.Context, secrets Secrets, writes bool) error {
	if s.pool != nil {
		s.findTimeline(ctx)
		s.findIdentity(ctx)
	}
	if err := s.chain.give(secrets); err != nil {
		return err
	}
	key := s.chain.signer()
	if key.IsZero() {
		s.chain.setKeyErr(errKeyUnknown(key, ""))
		return nil
	}
	newest, err := noneIsZero(s.auditRow(ctx, s.read, `ORDER BY seq DESC LIMIT 1`))
	if err != nil {
		return fmt.Errorf("read the head of the audit log: %w", err)
	}
	if newest.Seq == 0 {
		if !writes {
			s.chain.setKeyErr(errKeyUnknown(key, "the audit log was not begun"))
			return nil
		}
		return s.install(ctx, key)
	}
	if err := s.readGeneration(ctx, s.read); err != nil {
		return err
	}
	if err := s.readHold(ctx, s.read); err != nil {
		return err
	}
	s.chain.saw(nil, head{seq: newest.Seq, rowHMAC: newest.RowHMAC, ts: newest.TS, generation: s.chain.generation, timeline: s.timeline(ctx)}, true)
	err = s.proveKey(ctx, s.read)
	switch {
	case err == nil && writes:
		err = s.noteKey(ctx, key)
	case errors.Is(err, ErrAuditKeyUnknown) && writes:
		err = s.introduceKey(ctx, key, err)
	}
	if errors.Is(err, ErrAuditKeyUnknown) {
		s.log.ErrorContext(ctx, "audited changes are refused", "err", err)
		return nil
	}
	return err
}

// give takes the secrets that were configured.
func (c *chain) give(secrets Secrets) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.key, c.keys = audit.Key{}, nil
	for i, secret := range slices.Concat([][]byte{secrets.Audit}, secrets.PreviousAudit) {
		if len(secret) == 0 {
			continue
		}
		k, err := audit.NewKey(secret)
		if err != nil {
			return err
		}
		if i == 0 {
			c.key = k
		}
		c.keys = append(c.keys, k)
	}
	return nil
}

func (c *chain) setKeyErr(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keyErr = err
}

// stop is setKeyErr that gives err back.
func (c *chain) stop(err error) error {
	c.setKeyErr(err)
	return err
}

// install writes the first row. A log that is empty although it was begun says so in it, and is in doubt.
func (s *Store) install(ctx context.Context, key audit.Key) error {
	begun, err := s.presentGeneration(ctx, s.read)
	if err != nil {
		return err
	}
	if begun != "" {
		reason := "the audit log was found empty; generation " + begun + " was begun in this database before"
		if err := s.PutHold(ctx, Doubt{Cause: "wiped", Reason: reason, Fork: 0}); err != nil {
			return err
		}
		s.chain.setKeyErr(nil)
		return s.readGeneration(ctx, s.read)
	}
	a := appending{key: key, doubted: true, anew: true, entries: func(head) []audit.Entry { return nil }}
	if err := s.beginIfWiped(ctx, &a); err != nil {
		return err
	}
	if err := s.system(ctx, a); err != nil {
		return fmt.Errorf("begin the audit log: %w", err)
	}
	s.chain.setKeyErr(nil)
	return s.readGeneration(ctx, s.read)
}

// beginIfWiped lets a, if the log is empty, write the first row of a log before its own.
func (s *Store) beginIfWiped(ctx context.Context, a *appending) error {
	newest, err := noneIsZero(s.auditRow(ctx, s.read, `ORDER BY seq DESC LIMIT 1`))
	if err != nil || newest.Seq != 0 {
		return err
	}
	begun, err := s.presentGeneration(ctx, s.read)
	if err != nil {
		return err
	}
	instance, err := noneIsZero(s.Meta(ctx, instanceKey))
	if err != nil {
		return err
	}
	if instance == "" {
		instance = randomHex()
	}
	g := newGeneration("", "installed")
	details := map[string]any{"kid": a.key.KID(), "public_key": a.key.PublicKey(), "generation": g.ID, "instance": instance}
	if begun != "" {
		details["reason"] = "the audit log was found empty; generation " + begun + " was begun in this database before"
		s.log.ErrorContext(ctx, "audit log found empty", "generation", begun)
	}
	entries, also := a.entries, a.also
	a.first = true
	if a.generation == "" {
		a.generation = g.ID
	}
	a.entries = func(h head) []audit.Entry {
		first := audit.New(audit.Facts{Action: audit.SystemInstalled, Actor: audit.Actor{Kind: audit.System}, Details: details})
		return append([]audit.Entry{first}, entries(h)...)
	}
	a.also = func(tx *Tx, rows []sealed) error {
		if rows[0].row.Seq != 1 {
			return fmt.Errorf("the audit log was begun by another process, at entry %d", rows[0].row.Seq)
		}
		if err := tx.installed(ctx, a.key, g.ID, instance); err != nil || also == nil {
			return err
		}
		return also(tx, rows[1:])
	}
	return nil
}

// installed notes what the first row says. Histories that it does not name are over.
func (tx *Tx) installed(ctx context.Context, key audit.Key, generation, instance string) error {
	if err := tx.introduced(ctx, key, 1); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM audit_generations`); err != nil {
		return wrap("forget generations", err)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO audit_generations (generation, started, cause) VALUES ($1, 1, 'installed')`, generation); err != nil {
		return wrap("note generation", err)
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO meta (key, value, updated_at) VALUES ($1, $2, $3) ON CONFLICT (key) DO NOTHING`, instanceKey, instance, tx.now)
	return wrap("note instance", err)
}

const instanceKey = "instance"

// Instance returns the random name of the installation, which checkpoints bear.
func (s *Store) Instance(ctx context.Context) (string, error) {
	instance, err := noneIsZero(s.Meta(ctx, instanceKey))
	if err != nil || instance != "" {
		return instance, err
	}
	first, err := noneIsZero(s.auditRow(ctx, s.read, `WHERE seq = 1`))
	if err != nil {
		return "", wrap("read instance", err)
	}
	var d struct {
		Instance   string `json:"instance"`
		Generation string `json:"generation"`
	}
	_ = json.Unmarshal([]byte(first.Details.S), &d) // what is unreadable names nothing
	if instance = cmp.Or(d.Instance, d.Generation); instance == "" {
		instance = randomHex()
	}
	return instance, s.PutMeta(ctx, instanceKey, instance) // of a database that is older than checkpoints
}

// timeline is the database's now, 0 where it tells none.
func (s *Store) timeline(ctx context.Context) int64 {
	p, err := s.PresentPlace(ctx)
	if err != nil {
		return 0
	}
	return p.Timeline
}

// introduced notes that key signs since entry seq.
func (tx *Tx) introduced(ctx context.Context, key audit.Key, seq int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO audit_kids (kid, public_key, introduced) VALUES ($1, $2, $3)
		ON CONFLICT (kid) DO UPDATE SET public_key = excluded.public_key, introduced = excluded.introduced, retired = NULL`,
		key.KID(), key.PublicKey(), seq)
	return wrap("note audit key", err)
}

// noteKey notes a key that may sign where that note was lost: appending asks for it.
func (s *Store) noteKey(ctx context.Context, key audit.Key) error {
	_, err := s.write.ExecContext(ctx, `INSERT INTO audit_kids (kid, public_key, introduced) VALUES ($1, $2, 1) ON CONFLICT (kid) DO NOTHING`,
		key.KID(), key.PublicKey())
	return wrap("note audit key", err)
}

// proveKey finds out whether our key may sign, and remembers the answer: what counts is the entry that introduced it.
func (s *Store) proveKey(ctx context.Context, q querier) error {
	key := s.chain.signer()
	err := s.maySign(ctx, q, key)
	if err == nil || errors.Is(err, ErrAuditKeyUnknown) {
		s.chain.setKeyErr(err)
	}
	return err
}

// maySign returns nil if key was introduced by an entry that it signed, or by the prune that took that entry away, and
// was not retired since.
func (s *Store) maySign(ctx context.Context, q querier, key audit.Key) error {
	if key.IsZero() {
		return errKeyUnknown(key, "")
	}
	entries, err := s.auditRows(ctx, q, `WHERE action{C} IN ($1, $2, $3, $4) ORDER BY seq`,
		string(audit.SystemInstalled), string(audit.KeyIntroduced), string(audit.KeyAdopted), string(audit.KeyRetired))
	if err != nil {
		return wrap("read the entries about audit keys", err)
	}
	in, retired := false, false
	for i := range entries {
		var d struct {
			KID string `json:"kid"`
		}
		if json.Unmarshal([]byte(entries[i].Details.S), &d) != nil || d.KID != key.KID() {
			continue
		}
		if entries[i].Action == string(audit.KeyRetired) {
			retired = true // also if we lack the key that signed it: to stop, a claim is enough
			continue
		}
		if _, ok := authentic(&entries[i], key); ok {
			in = true
		}
	}
	if !in {
		b, err := s.boundary(ctx, q)
		if err != nil {
			return err
		}
		for _, k := range b.Kids {
			if k.KID == key.KID() {
				in, retired = true, retired || k.Retired != 0
			}
		}
	}
	switch {
	case retired:
		return errKeyUnknown(key, "it was retired")
	case !in:
		return errKeyUnknown(key, "no entry of the audit log introduces it")
	}
	return nil
}

// introduceKey lets our key into the chain if one of the previous secrets is that of a key which may sign; else it
// returns why not, which is unknown.
func (s *Store) introduceKey(ctx context.Context, key audit.Key, unknown error) error {
	for _, old := range s.chain.given()[1:] {
		err := s.maySign(ctx, s.read, old)
		if errors.Is(err, ErrAuditKeyUnknown) {
			continue
		}
		if err != nil {
			return err
		}
		err = s.enter(ctx, key, func(h head) audit.Facts {
			return audit.Facts{Action: audit.KeyIntroduced, Actor: audit.Actor{Kind: audit.System}, Target: audit.Target{ID: key.KID()}, Details: map[string]any{
				"kid": key.KID(), "public_key": key.PublicKey(), "previous_kid": old.KID(), "proof": old.RotationProof(key.KID(), h.rowHMAC),
			}}
		})
		if err == nil {
			s.log.InfoContext(ctx, "audit key introduced", "kid", key.KID(), "previous_kid", old.KID())
		}
		return err
	}
	return unknown
}

// enter appends the entry that lets key in, signed with key itself.
func (s *Store) enter(ctx context.Context, key audit.Key, facts func(head) audit.Facts) error {
	err := s.system(ctx, appending{
		key: key, first: true,
		entries: func(h head) []audit.Entry { return []audit.Entry{audit.New(facts(h))} },
		also:    func(tx *Tx, rows []sealed) error { return tx.introduced(ctx, key, rows[0].row.Seq) },
	})
	if err != nil {
		return fmt.Errorf("introduce audit key %s: %w", key.KID(), err)
	}
	s.chain.setKeyErr(nil)
	return nil
}

// AdoptAuditKey lets the configured audit key into the chain without proof of an older one, because that is lost. The
// entry says who did it and why, and a verification says that nothing is provable across it. A key that may sign
// already, or was retired, is refused with ErrConflict.
func (s *Store) AdoptAuditKey(ctx context.Context, actor audit.Actor, reason string) error {
	key := s.chain.signer()
	if key.IsZero() {
		return errKeyUnknown(key, "")
	}
	if reason == "" {
		return errors.New("adopt audit key: a reason is needed")
	}
	var lost []string
	rows, err := s.read.QueryContext(ctx, `SELECT kid, CASE WHEN retired IS NULL THEN 0 ELSE 1 END FROM audit_kids ORDER BY introduced`)
	kids, err := collect(rows, err, func(k *keyState) []any { return []any{&k.kid, &k.retired} })
	if err != nil {
		return wrap("read audit keys", err)
	}
	for _, k := range kids {
		if k.kid == key.KID() && k.retired != 0 {
			return fmt.Errorf("adopt audit key %s: %w: it was retired; configure a new one", key.KID(), ErrConflict)
		}
		if k.retired == 0 && k.kid != key.KID() {
			lost = append(lost, k.kid)
		}
	}
	if err := s.maySign(ctx, s.read, key); !errors.Is(err, ErrAuditKeyUnknown) {
		if err != nil {
			return err
		}
		return fmt.Errorf("adopt audit key %s: %w: it signs already", key.KID(), ErrConflict)
	}
	return s.enter(ctx, key, func(head) audit.Facts {
		return audit.Facts{Action: audit.KeyAdopted, Actor: actor, Target: audit.Target{ID: key.KID()}, Details: map[string]any{
			"kid": key.KID(), "public_key": key.PublicKey(), "lost_kids": lost, "reason": reason,
		}}
	})
}

type keyState struct {
	kid     string
	retired int
}
