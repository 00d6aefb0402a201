package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// runner does random things to a log and knows what must be in it.
type runner struct {
	rng *rand.Rand
	cfg Config
	l   *Log

	model   []frame // all that may be in the log; the first may be dropped
	durable Pos     // as returned
	flushed Pos     // survives the end of the process
	dropped Pos     // highest asked for
	failed  bool    // ErrFailed was returned
}

func newRunner(rng *rand.Rand) *runner {
	return &runner{rng: rng, cfg: Config{
		Dir:          "a/log",
		SegmentBytes: int64(200 + rng.IntN(30_000)),
		writeBytes:   64 + rng.IntN(6000),
		bufferBytes:  6000 + rng.IntN(10_000),
	}}
}

// open opens the log on fs and checks what is in it against the model, of
// which what is at must or above may not be missing.
func (r *runner) open(fs vfs.FS, must Pos) error {
	r.cfg.FS, r.l, r.failed = fs, nil, false
	r.durable, r.flushed = min(r.durable, must), must // until this life says more
	l, err := Open(r.cfg)
	if err != nil {
		return err
	}
	got, err := frames(l, 0)
	if err != nil {
		return err
	}
	if err := r.matches(got, must); err != nil {
		return fmt.Errorf("wrong log: %w", err)
	}
	if next := l.Next(); next < r.durable || len(got) > 0 && next <= got[len(got)-1].pos {
		return fmt.Errorf("wrong log: next position %d, durable %d", next, r.durable)
	}
	r.l, r.model = l, got
	r.durable, r.flushed = l.Next(), l.Next()
	if d := l.Durable(); d != r.durable {
		return fmt.Errorf("wrong log: durable %d after open, next is %d", d, r.durable)
	}
	r.dropped = min(r.dropped, l.Next())
	if r.dropped > 0 {
		if _, err := frames(l, r.dropped); err != nil {
			return fmt.Errorf("wrong log: replay from where it was dropped: %w", err)
		}
	}
	return nil
}

func (r *runner) matches(got []frame, must Pos) error {
	want := r.model
	for len(want) > 0 && (len(got) == 0 || want[0].pos < got[0].pos) && want[0].pos < r.dropped {
		want = want[1:]
	}
	if err := samePrefix(got, want); err != nil {
		return err
	}
	if want = want[len(got):]; len(want) > 0 && want[0].pos < must {
		return fmt.Errorf("%d frames, the next at %d is missing and was below %d", len(got), want[0].pos, must)
	}
	return nil
}

// step does one thing. Its error is one that should not be.
func (r *runner) step() error {
	switch n := r.rng.IntN(100); {
	case n < 75:
		return r.append()
	case n < 87:
		pos, err := r.l.Sync()
		if err == nil && len(r.model) > 0 && pos <= r.model[len(r.model)-1].pos {
			return fmt.Errorf("wrong sync to %d, last frame at %d", pos, r.model[len(r.model)-1].pos)
		}
		r.durable = max(r.durable, pos)
		return r.outcome(err)
	case n < 93:
		next := r.l.Next()
		err := r.l.Flush()
		if err == nil {
			r.flushed = next
		}
		return r.outcome(err)
	case n < 96:
		before := Pos(r.rng.Uint64N(uint64(r.l.Next()))) + 1
		r.dropped = max(r.dropped, before)
		err := r.l.Drop(before)
		if errors.Is(err, errorfs.ErrInjected) && !errors.Is(err, ErrFailed) {
			return nil // could not be removed
		}
		return r.outcome(err)
	default:
		got, err := frames(r.l, 0)
		if err != nil {
			if errors.Is(err, errorfs.ErrInjected) && !errors.Is(err, ErrFailed) {
				return nil // could not be read
			}
			return r.outcome(err)
		}
		return r.matches(got, r.l.Next())
	}
}

func (r *runner) append() error {
	n := r.rng.IntN(300)
	if r.rng.IntN(20) == 0 {
		n = r.rng.IntN(20_000)
	}
	payload, kind := randomBytes(r.rng, n), byte(r.rng.IntN(MaxKind+1))
	want := r.l.Next()
	if !r.failed {
		r.model = append(r.model, frame{want, kind, payload})
	}
	cut := r.rng.IntN(n + 1)
	pos, err := r.l.Append(kind, payload[:cut], nil, payload[cut:])
	if err == nil && pos != want {
		return fmt.Errorf("wrong position %d, want %d", pos, want)
	}
	return r.outcome(err)
}

// outcome checks that a failure stays.
func (r *runner) outcome(err error) error {
	switch {
	case err == nil && r.failed:
		return errors.New("wrong: a write succeeded after one failed")
	case err != nil && !errors.Is(err, ErrFailed):
		return err
	case err != nil && !errors.Is(err, errorfs.ErrInjected):
		return fmt.Errorf("wrong: failure without its cause: %w", err)
	case err != nil:
		r.failed = true
	}
	return nil
}

// breaking fails file operations of some kinds by number, the n-th or the n-th
// and all after, and calls at before that.
type breaking struct {
	n     int64
	all   bool
	kinds func(errorfs.OpKind) bool
	at    func()

	count atomic.Int64
}

func (b *breaking) String() string { return fmt.Sprintf("break at %d", b.n) }

func (b *breaking) hit() bool { return b.count.Load() >= b.n }

func (b *breaking) MaybeError(op errorfs.Op) error {
	if b.kinds != nil && !b.kinds(op.Kind) {
		return nil
	}
	n := b.count.Add(1)
	if n == b.n && b.at != nil {
		b.at()
	}
	if n == b.n || b.all && n > b.n {
		return errorfs.ErrInjected
	}
	return nil
}
