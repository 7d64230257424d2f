package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/z4j-go/z4j/internal/audit"
	"github.com/z4j-go/z4j/internal/id"
)

// UnmovedAgent is an agent whose token and signatures are of another master secret than the current one.
type UnmovedAgent struct {
	ID          id.ID   `json:"id"`
	Name        string  `json:"name"`
	ProjectSlug string  `json:"project_slug"`
	LastSeenAt  *Time   `json:"last_seen_at"`
	SecretID    *string `json:"secret_id"` // null: it did not connect since that is noted
}

// Unmoved is what stops working when earlier master secrets are given up.
type Unmoved struct {
	Agents []UnmovedAgent `json:"agents"`
	Keys   []APIKey       `json:"api_keys"`
}

// Unmoved lists the agents that are not revoked and the keys that are good at now, and are of another master secret than
// the one of an id. Where it is not known of which an agent is, it counts as another.
func (s *Store) Unmoved(ctx context.Context, secretID string, now Time) (u Unmoved, err error) {
	rows, err := s.read.QueryContext(ctx, `SELECT agents.id, agents.name, slug, last_seen_at, secret_id FROM agents JOIN projects ON projects.id = agents.project_id
		WHERE revoked_at IS NULL AND (secret_id IS NULL OR secret_id <> $1) ORDER BY slug, agents.name`, secretID)
	u.Agents, err = collect(rows, err, func(a *UnmovedAgent) []any { return []any{&a.ID, &a.Name, &a.ProjectSlug, &a.LastSeenAt, &a.SecretID} })
	if err != nil {
		return u, wrap("agents of another secret", err)
	}
	rows, err = s.read.QueryContext(ctx, `SELECT `+apiKeyColumns+apiKeyTables+` WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1) AND secret_id <> $2
		ORDER BY users.email, api_keys.created_at, api_keys.id`, now, secretID)
	u.Keys, err = collect(rows, err, (*APIKey).fields)
	return u, wrap("API keys of another secret", err)
}

// MarkAgents notes, of the agents of which it is not known, that they are of the master secret of an id. Call it when
// there can be no other, before a rotation.
func (s *Store) MarkAgents(ctx context.Context, secretID string) error {
	_, err := s.write.ExecContext(ctx, `UPDATE agents SET secret_id = $1 WHERE secret_id IS NULL`, secretID)
	return wrap("mark agents", err)
}

// KnowsMaster reports whether a brain has run with a master secret: it is the one that the database takes for its own.
func (s *Store) KnowsMaster(ctx context.Context, master []byte) (bool, error) {
	have, err := s.Meta(ctx, fingerprintKey)
	if err != nil {
		return false, err
	}
	is, err := fingerprint(master)
	return have == is, err
}

// ChangeSecret records that a setting with a secret is changed, and why.
func (s *Store) ChangeSecret(ctx context.Context, setting, reason string, by By) error {
	return s.Update(ctx, func(tx *Tx) error {
		tx.Record(by.entry(audit.SystemSecretChanged, audit.Project{}, audit.Target{}, map[string]any{"setting": setting, "reason": reason}))
		return nil
	})
}

// IntroduceAuditKey lets the configured audit key into the chain if it is not there yet, with the proof of an earlier one.
func (s *Store) IntroduceAuditKey(ctx context.Context) error {
	err := s.proveKey(ctx, s.read)
	if errors.Is(err, ErrAuditKeyUnknown) {
		return s.introduceKey(ctx, s.chain.signer(), err)
	}
	return err
}

// OldKey is an audit key that may sign beside the configured one.
type OldKey struct {
	KID     string `json:"kid"`
	Rows    int64  `json:"rows"`    // among the newest recentRows entries that it signed
	Newest  *Time  `json:"newest"`  // of those
	Present bool   `json:"present"` // its secret is given
}

// recentRows is how many entries are looked at for who signs these days.
const recentRows = 1000

// OldAuditKeys lists the keys that may sign beside the configured one.
func (s *Store) OldAuditKeys(ctx context.Context) ([]OldKey, error) {
	rows, err := s.read.QueryContext(ctx, s.sql(`SELECT k.kid, count(r.kid), max(r.ts) FROM audit_kids k
		LEFT JOIN (SELECT kid, ts FROM audit_log ORDER BY seq DESC LIMIT $1) r ON r.kid = k.kid
		WHERE k.retired IS NULL AND k.kid <> $2 GROUP BY k.kid ORDER BY k.kid{C}`), recentRows, s.chain.signer().KID())
	list, err := collect(rows, err, func(k *OldKey) []any { return []any{&k.KID, &k.Rows, &k.Newest} })
	if err != nil {
		return nil, wrap("old audit keys", err)
	}
	for i := range list {
		for _, k := range s.chain.given() {
			list[i].Present = list[i].Present || k.KID() == list[i].KID
		}
	}
	return list, nil
}

// RetireAuditKeys ends the right to sign of keys. Their rows stay provable with their secrets. The configured key is
// refused: who is to sign?
func (s *Store) RetireAuditKeys(ctx context.Context, kids []string, by By) error {
	key := s.chain.signer()
	for _, kid := range kids {
		if kid == key.KID() {
			return fmt.Errorf("retire audit key %s: it is the configured one", kid)
		}
	}
	err := s.system(ctx, appending{
		key: key,
		entries: func(head) []audit.Entry {
			list := make([]audit.Entry, len(kids))
			for i, kid := range kids {
				list[i] = by.entry(audit.KeyRetired, audit.Project{}, audit.Target{ID: kid}, map[string]any{"kid": kid})
			}
			return list
		},
		also: func(tx *Tx, rows []sealed) error {
			for i, kid := range kids {
				if _, err := tx.ExecContext(ctx, `UPDATE audit_kids SET retired = $1 WHERE kid = $2 AND retired IS NULL`, rows[i].row.Seq, kid); err != nil {
					return wrap("note retired key", err)
				}
			}
			return nil
		},
	})
	if err != nil {
		return fmt.Errorf("retire audit keys: %w", err)
	}
	return nil
}
