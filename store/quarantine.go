package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/store/wal"
)

// What Quarantine does depends on where the damage is:
//
//	postings        tables are linked to aside, what can be read of them stays, and
//	                what may be lost is remembered; all publishers are marked
//	log             it ends before the damage: a crash there would have left the same.
//	                If the rows have more than that, as for postings, of all hashes
//	rows, or parts  the whole store goes aside, and a new one begins that knows the
//	that do not     publishers, their addresses, what is owned, and the policy
//	open

// Quarantined is what Quarantine has found and done.
type Quarantined struct {
	Damages []Damage
	// Aside are the files and directories that are in the quarantine now.
	Aside []string
	// Anew: the store was begun anew, and is empty.
	Anew bool
	// Publishers are those whose ads have to be applied again, and LostShare the
	// part of all multihashes that may be missing until then, 0 to 1. The store
	// remembers both.
	Publishers []peer.ID
	LostShare  float64
	// GivenUp are publishers of which a part was held and may be missing now. They
	// are not marked: another indexer owns them.
	GivenUp []peer.ID
}

// Quarantine brings a damaged store that is not open into a state that opens. It
// removes nothing: what it takes away is in the directory aside, which must not
// exist. A store that CheckDir finds sound stays as it is. After an error it can
// be repeated, with another aside. Errors: those of CheckDir; ErrCorrupt if the
// format cannot be read.
func Quarantine(ctx context.Context, cfg Config, aside string) (q Quarantined, err error) {
	cfg = cfg.withDefaults()
	cfg.ReserveBytes = -1
	if err := finishAnew(cfg); err != nil {
		return q, fmt.Errorf("quarantine %s: %w", cfg.Dir, err)
	}
	err = CheckDir(ctx, cfg, func(d Damage) error {
		q.Damages = append(q.Damages, d)
		return nil
	})
	if err != nil || len(q.Damages) == 0 {
		return q, err
	}
	if err := cfg.quarantine(ctx, &q, aside); err != nil {
		return q, fmt.Errorf("quarantine %s: %w", cfg.Dir, err)
	}
	return q, nil
}

func (c Config) quarantine(ctx context.Context, q *Quarantined, aside string) error {
	has := func(so func(Damage) bool) bool { return slices.ContainsFunc(q.Damages, so) }
	if has(func(d Damage) bool { return d.Part == "format" }) {
		return fmt.Errorf("%w: what format it has is not known; restore a snapshot", ErrCorrupt)
	}
	if has(func(d Damage) bool { return d.Part == "rows" || d.Part == "postings" && d.fatal }) {
		return c.anew(q, aside)
	}
	if err := makeDir(c.FS, aside); err != nil {
		return err
	}
	if has(func(d Damage) bool { return d.Part == "log" }) {
		if err := c.cutLog(ctx, q, aside); err != nil {
			return err
		}
	}
	if q.Anew {
		return nil
	}
	return c.salvage(ctx, q, aside)
}

// cutLog ends the log before the damage, and says what that has cost.
func (c Config) cutLog(ctx context.Context, q *Quarantined, aside string) error {
	to := c.FS.PathJoin(aside, "log")
	if err := makeDir(c.FS, to); err != nil {
		return err
	}
	changed, err := wal.Cut(wal.Config{FS: c.FS, Dir: c.FS.PathJoin(c.Dir, "log"), Logger: c.Logger}, to)
	for _, name := range changed {
		q.Aside = append(q.Aside, c.FS.PathJoin(to, name))
	}
	if err != nil {
		return err
	}
	s, err := Open(c)
	if _, ok := openDamage(err); ok {
		return c.anew(q, c.FS.PathJoin(aside, "all"))
	}
	if err != nil {
		return err
	}
	ahead, behind, err := s.beyondLog()
	if err == nil && ahead && !behind {
		err = s.index.MarkLost()
	}
	if err = errors.Join(err, s.Close()); err != nil {
		return err
	}
	if behind {
		return c.anew(q, c.FS.PathJoin(aside, "all"))
	}
	return ctx.Err()
}

// beyondLog tells whether the rows have changes that the log has not, so that
// postings that came before these may be missing; and whether the index has
// positions that the log would give out again.
func (s *Store) beyondLog() (rows, index bool, err error) {
	last := uint64(0)
	err = s.replay(func(pos wal.Pos, kind byte, payload []byte) error {
		if kind == kindRows && len(payload) >= 8 {
			last = binary.BigEndian.Uint64(payload)
		}
		return nil
	})
	return s.rowSeq > last, s.index.Flushed() >= uint64(s.log.Next()), err
}

// salvage takes damaged postings away and marks who is to be indexed again.
func (c Config) salvage(ctx context.Context, q *Quarantined, aside string) error {
	for _, d := range q.Damages {
		name := d.table
		if d.Part != "postings" || name == "" {
			continue
		}
		from, to := c.FS.PathJoin(c.Dir, "postings", "buckets", name), c.FS.PathJoin(aside, "postings", name)
		if slices.Contains(q.Aside, to) {
			continue
		}
		if _, err := c.FS.Stat(from); isMissing(err) {
			continue // that is the damage
		}
		if err := makeDir(c.FS, c.FS.PathDir(to)); err != nil {
			return err
		}
		if err := vfs.LinkOrCopy(c.FS, from, to); err != nil {
			return err
		}
		q.Aside = append(q.Aside, to)
	}
	c.leaveDamage = true
	s, err := Open(c)
	if err != nil {
		return err
	}
	return errors.Join(s.salvage(ctx, q), s.Close())
}

func (s *Store) salvage(ctx context.Context, q *Quarantined) error {
	if _, err := s.Repair(ctx); err != nil {
		return err
	}
	stats, err := s.Stats()
	if err != nil {
		return err
	}
	if q.LostShare = stats.LostShare; q.LostShare == 0 {
		return nil
	}
	for _, p := range s.Publishers() {
		if a, ok := s.Assignment(p); ok && a.Role != RoleOwner {
			q.GivenUp = append(q.GivenUp, p)
			continue
		}
		if err := s.AddRevisit(p, Revisit{All: true}); err != nil {
			return err
		}
		q.Publishers = append(q.Publishers, p)
	}
	q.sort()
	return s.Sync()
}

func (q *Quarantined) sort() {
	for _, ids := range [][]peer.ID{q.Publishers, q.GivenUp} {
		slices.SortFunc(ids, func(a, b peer.ID) int { return strings.Compare(a.String(), b.String()) })
	}
}

// newSuffix is that of a store begun anew until the damaged one is aside.
const newSuffix = ".new"

// anew begins a store with what can be read of who published and what is owned.
func (c Config) anew(q *Quarantined, aside string) error {
	h, err := c.harvest()
	if err != nil {
		return err
	}
	next := c
	next.Dir = c.Dir + newSuffix
	if err := c.FS.RemoveAll(next.Dir); err != nil {
		return err
	}
	if err := next.sow(h, q); err != nil {
		return err
	}
	if err := makeDir(c.FS, aside); err != nil {
		return err
	}
	lock, err := lockDir(c.FS, c.Dir, c.lockPatience)
	if err != nil {
		return err
	}
	to := c.FS.PathJoin(aside, "store")
	if err := errors.Join(c.FS.Rename(c.Dir, to), lock.Close()); err != nil {
		return err
	}
	q.Aside, q.Anew, q.LostShare = append(q.Aside, to), true, 1
	return errors.Join(finishAnew(c), syncDir(c.FS, aside))
}

// finishAnew gives a store begun anew its name, if the damaged one is aside.
func finishAnew(c Config) error {
	if _, err := c.FS.Stat(c.Dir); !isMissing(err) {
		return err
	}
	err := c.FS.Rename(c.Dir+newSuffix, c.Dir)
	if isMissing(err) {
		return nil
	}
	return errors.Join(err, syncDir(c.FS, c.FS.PathDir(c.Dir)))
}

// sow makes the new store.
func (c Config) sow(h harvest, q *Quarantined) error {
	s, err := Open(c)
	if err != nil {
		return err
	}
	return errors.Join(s.sow(h, q), s.Close())
}

func (s *Store) sow(h harvest, q *Quarantined) error {
	q.Publishers, q.GivenUp = nil, nil
	var owned []peer.ID
	for p := range h.publishers {
		switch h.roles[p] {
		case RoleHolder, roleLeft:
			q.GivenUp = append(q.GivenUp, p)
			continue
		case RoleOwner:
			owned = append(owned, p)
		}
		if err := s.SetPublisherAddrs(p, h.addrs[p]); err != nil {
			return err
		}
		q.Publishers = append(q.Publishers, p)
	}
	q.sort()
	if err := errors.Join(s.Open(owned, time.Now())...); err != nil {
		return err
	}
	if h.policy != nil {
		if err := s.SetPolicy(h.policy); err != nil {
			return err
		}
	}
	return s.Sync()
}
