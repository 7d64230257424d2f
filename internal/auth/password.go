// Package auth decides who somebody is and what they may do: passwords, e-mail addresses, tokens, session cookies,
// roles, host names, client addresses and rate limits. It keeps nothing and knows no HTTP handler and no database.
package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/argon2"
)

// Cost is what one argon2id hash takes.
type Cost struct {
	Time    uint32 // passes
	Memory  uint32 // KiB
	Threads uint8
}

// DefaultCost is 64 MiB and about a tenth of a second.
var DefaultCost = Cost{Time: 3, Memory: 64 << 10, Threads: 4}

const (
	saltSize = 16 // bytes
	hashSize = 32 // bytes

	// Bounds of the costs that a stored hash may ask for: a changed row must not take the machine's memory.
	maxMemory = 1 << 20 // KiB
	maxTime   = 16
)

// What a caller can tell apart.
var (
	ErrHash = errors.New("not an argon2id hash")
	ErrBusy = errors.New("too many passwords are being checked")
)

// maxWaiting is how many callers wait for their turn: about three seconds of work for two cores. More are told to come
// back.
const maxWaiting = 64

// Passwords makes and checks password hashes. At most a fixed number is computed at once: each takes Cost.Memory.
type Passwords struct {
	Policy Policy

	cost    Cost
	slots   chan struct{} // one is taken by each hash that is computed
	queue   chan struct{} // one is taken by each caller that computes or waits
	nobody  string        // the hash of no password, of the same cost as a real one
	count   atomic.Int64
	derived func() // told of each hash that is computed; nil but in tests
}

// NewPasswords returns Passwords that compute at most atOnce hashes at a time.
func NewPasswords(policy Policy, cost Cost, atOnce int) *Passwords {
	atOnce = max(atOnce, 1)
	p := &Passwords{Policy: policy, cost: cost, slots: make(chan struct{}, atOnce), queue: make(chan struct{}, atOnce+maxWaiting)}
	p.nobody = encodeHash(cost, random(saltSize), random(hashSize))
	return p
}

// New checks a new password against the policy and returns its hash as a PHC string. It is the only way to one, so no
// entrance can forget the policy. The error is a *WeakPassword if the policy refuses.
func (p *Passwords) New(ctx context.Context, password string) (string, error) {
	if err := p.Policy.Check(password); err != nil {
		return "", err
	}
	return p.Rehash(ctx, password)
}

// Rehash returns a hash of today's cost for a password that was just verified: an old one may break a newer policy.
func (p *Passwords) Rehash(ctx context.Context, password string) (string, error) {
	salt := random(saltSize)
	key, err := p.derive(ctx, password, salt, p.cost, hashSize)
	if err != nil {
		return "", err
	}
	return encodeHash(p.cost, salt, key), nil
}

// Verify reports whether password is the one behind hash, and whether the hash should be made anew because its cost is
// not today's. An unreadable hash costs as much time as a wrong password.
func (p *Passwords) Verify(ctx context.Context, hash, password string) (ok, stale bool, err error) {
	cost, salt, want, err := decodeHash(hash)
	if err != nil {
		return false, false, errors.Join(err, p.VerifyNobody(ctx, password))
	}
	got, err := p.derive(ctx, password, salt, cost, uint32(len(want)))
	if err != nil {
		return false, false, err
	}
	ok = subtle.ConstantTimeCompare(got, want) == 1
	return ok, ok && (cost != p.cost || len(salt) != saltSize || len(want) != hashSize), nil
}

// VerifyNobody does the work of Verify for an account that does not exist.
func (p *Passwords) VerifyNobody(ctx context.Context, password string) error {
	_, _, err := p.Verify(ctx, p.nobody, password)
	return err
}

// Computed is how many hashes were computed so far: two log-ins that differ in it can be told apart by their time.
func (p *Passwords) Computed() int64 { return p.count.Load() }

// derive waits for a slot, or for ctx to end; it is ErrBusy when too many wait already.
func (p *Passwords) derive(ctx context.Context, password string, salt []byte, c Cost, size uint32) ([]byte, error) {
	select {
	case p.queue <- struct{}{}:
	default:
		return nil, ErrBusy
	}
	defer func() { <-p.queue }()
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for a password hash: %w", ctx.Err())
	}
	defer func() { <-p.slots }()
	p.count.Add(1)
	if p.derived != nil {
		p.derived()
	}
	return argon2.IDKey([]byte(password), salt, c.Time, c.Memory, c.Threads, size), nil
}

func encodeHash(c Cost, salt, key []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.Memory, c.Time, c.Threads, b64.EncodeToString(salt), b64.EncodeToString(key))
}

func decodeHash(hash string) (c Cost, salt, key []byte, err error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return c, nil, nil, ErrHash
	}
	costs := strings.Split(parts[3], ",")
	if len(costs) != 3 {
		return c, nil, nil, ErrHash
	}
	var n [3]uint64
	for i, bound := range []struct {
		name     string
		from, to uint64
	}{{"m=", 8, maxMemory}, {"t=", 1, maxTime}, {"p=", 1, 255}} {
		text, found := strings.CutPrefix(costs[i], bound.name)
		n[i], err = strconv.ParseUint(text, 10, 32)
		if !found || err != nil || n[i] < bound.from || n[i] > bound.to {
			return c, nil, nil, ErrHash
		}
	}
	salt, err = base64.RawStdEncoding.Strict().DecodeString(parts[4])
	if err != nil || len(salt) < 8 || len(salt) > 64 {
		return c, nil, nil, ErrHash
	}
	key, err = base64.RawStdEncoding.Strict().DecodeString(parts[5])
	if err != nil || len(key) < 16 || len(key) > 64 {
		return c, nil, nil, ErrHash
	}
	return Cost{Memory: uint32(n[0]), Time: uint32(n[1]), Threads: uint8(n[2])}, salt, key, nil
}

// random returns n random bytes.
func random(n int) []byte {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		panic(err) // crypto/rand never fails on the systems we run on
	}
	return b
}
