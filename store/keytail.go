package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/signpost-index/signpost/store/postings"
)

// ErrKeysGone: keys that a follower has not got are not kept any more. It has to
// open them anew.
var ErrKeysGone = errors.New("keys are not kept any more")

// KeysLease is how long a follower may go by the keys it has after it asked for
// more and got all there were.
const KeysLease = 2 * time.Second

const (
	maxFollowers   = 256
	maxFollower    = 64      // bytes of a name
	forgetFollower = 5       // leases after which one that is silent is forgotten
	maxTail        = 4 << 20 // keys kept
	maxReply       = 256 << 10
	soonKeys       = 64 << 10               // so many are not held back
	keysWait       = 500 * time.Millisecond // as long as there is nothing urgent
)

// Keys are what OpenKeys found.
type Keys struct {
	Epoch   string // of this opening of the store
	From    uint64 // where FollowKeys begins
	Entries uint64 // about how many keys there are
}

// OpenKeys begins to follow the keys of all multihashes that are put: those put
// before are in what ScanKeys gives from now on, all others come by FollowKeys.
// A follower that has begun before begins anew.
func (s *Store) OpenKeys(ctx context.Context, follower string) (Keys, error) {
	if err := s.enter(); err != nil {
		return Keys{}, err
	}
	defer s.exit()
	if follower == "" || len(follower) > maxFollower {
		return Keys{}, fmt.Errorf("a follower's name has 1 to %d bytes: %w", maxFollower, ErrInvalid)
	}
	from, err := s.tail.open(follower)
	if err != nil {
		return Keys{}, err
	}
	if err := s.index.Flush(ctx); err != nil {
		return Keys{}, fmt.Errorf("open keys: %w", err)
	}
	return Keys{Epoch: s.tail.epoch, From: from, Entries: s.index.Entries()}, nil
}

// KeyRegions is how many regions ScanKeys has. The first byte of a key is its region.
const KeyRegions = postings.Regions

// ScanKeys calls fn with the keys of a region, ascending, some of them several
// times. A key is the first 64 bits of the keyed hash of a multihash. An error
// means that some may be missing.
func (s *Store) ScanKeys(region int, fn func(key uint64)) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.exit()
	if region < 0 || region >= KeyRegions {
		return fmt.Errorf("region %d of %d: %w", region, KeyRegions, ErrInvalid)
	}
	return s.index.Scan(region, fn)
}

// FollowKeys returns the keys put since from, and where the next call goes on. By
// that, the follower confirms that it has all before. It waits up to half a second for some.
// lease is how long from the beginning of the call on a follower may go by what it has then: none if it
// has not got all yet, or did not confirm the answer before. No ad is durable before everybody
// with a lease has its keys. ErrKeysGone: open them anew.
func (s *Store) FollowKeys(ctx context.Context, epoch, follower string, from uint64) (keys []uint64, lease time.Duration, err error) {
	if epoch != s.tail.epoch {
		return nil, 0, fmt.Errorf("the store was opened anew: %w", ErrKeysGone)
	}
	return s.tail.follow(ctx, follower, from)
}

// tail is the end of the sequence of all keys ever put: what some follower has
// not confirmed. It outlives a recovery of the store in place.
type tail struct {
	epoch string

	mu        sync.Mutex
	first     uint64 // number of keys[0]
	keys      []uint64
	urgent    uint64 // keys before are waited for
	followers map[string]*follower
	changed   chan struct{} // closed and replaced when something happened that others wait for
}

type follower struct {
	has   uint64    // it has all keys before
	sent  uint64    // and was sent those before
	until time.Time // it may go by what it has
	heard time.Time
}

// count is how many followers may go by what they have.
func (t *tail) count(now time.Time) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.followers {
		if now.Before(f.until) {
			n++
		}
	}
	return n
}

func newTail() *tail {
	return &tail{epoch: rand.Text(), followers: make(map[string]*follower), changed: make(chan struct{})}
}

// wake wakes all who wait. The caller holds mu.
func (t *tail) wake() {
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *tail) next() uint64 { return t.first + uint64(len(t.keys)) }

// end is the number of keys so far.
func (t *tail) end() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next()
}

// add takes keys that can be found from now on.
func (t *tail) add(hs []postings.Hash) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.followers) == 0 {
		t.first = t.next() + uint64(len(hs))
		t.keys = nil
		return
	}
	before := t.next()
	for i := range hs {
		t.keys = append(t.keys, hs[i].Prefix())
	}
	if len(t.keys) > maxTail {
		t.cut(t.next() - maxTail)
	}
	if before/soonKeys != t.next()/soonKeys {
		t.wake()
	}
}

// cut forgets the keys before a number. The caller holds mu.
func (t *tail) cut(before uint64) {
	if before <= t.first {
		return
	}
	n := before - t.first
	t.first = before
	t.keys = t.keys[n:]
	if len(t.keys) < cap(t.keys)/4 {
		t.keys = slices.Clone(t.keys)
	}
}

func (t *tail) open(name string) (from uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tidy(time.Now())
	f := t.followers[name]
	if f == nil {
		if len(t.followers) == maxFollowers {
			return 0, fmt.Errorf("%d follow the keys already: %w", maxFollowers, ErrFull)
		}
		f = &follower{}
		t.followers[name] = f
	}
	at := t.next()
	// A lease it has stays: whoever has it may still go by it.
	f.has, f.sent, f.heard = at, at, time.Now()
	return at, nil
}

// tidy forgets followers that are gone, and keys that all others have. The caller holds mu.
func (t *tail) tidy(now time.Time) {
	least := t.next()
	for name, f := range t.followers {
		if now.Sub(f.heard) > forgetFollower*KeysLease {
			delete(t.followers, name)
			continue
		}
		least = min(least, f.has)
	}
	t.cut(least)
}

func (t *tail) follow(ctx context.Context, name string, from uint64) ([]uint64, time.Duration, error) {
	timer := time.NewTimer(keysWait)
	defer timer.Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.followers[name]
	if f == nil || from < t.first || from > t.next() || from < f.has {
		return nil, 0, fmt.Errorf("keys from %d are wanted, there are those from %d to %d: %w", from, t.first, t.next(), ErrKeysGone)
	}
	confirmed := from == f.sent
	f.has, f.heard = from, time.Now()
	t.tidy(f.heard)
	t.wake()
	for waiting := true; waiting && (from >= t.urgent || from == t.next()) && t.next()-from < soonKeys; {
		changed := t.changed
		t.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			waiting = false
		case <-ctx.Done():
			waiting = false
		}
		t.mu.Lock()
	}
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	if from < t.first || t.followers[name] != f {
		return nil, 0, fmt.Errorf("keys from %d are wanted, the oldest is %d: %w", from, t.first, ErrKeysGone)
	}
	keys := slices.Clone(t.keys[from-t.first:])
	keys = keys[:min(len(keys), maxReply)]
	f.sent, f.heard = from+uint64(len(keys)), time.Now()
	if !confirmed || f.sent != t.next() {
		return keys, 0, nil
	}
	f.until = f.heard.Add(KeysLease)
	return keys, KeysLease, nil
}

// await returns when everybody with a lease has all keys before a number, or
// when quit is closed. A lease is extended only to who gets all keys there are,
// and only after the answer before was confirmed: so it takes one lease at most.
func (t *tail) await(before uint64, quit <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		now := time.Now()
		left := time.Duration(0)
		for _, f := range t.followers {
			if f.has < before {
				left = max(left, f.until.Sub(now))
			}
		}
		if left <= 0 {
			return
		}
		if before > t.urgent {
			t.urgent = before
			t.wake()
		}
		changed := t.changed
		t.mu.Unlock()
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-timer.C:
		case <-quit:
			left = 0
		}
		timer.Stop()
		t.mu.Lock()
		if left == 0 {
			return
		}
	}
}
