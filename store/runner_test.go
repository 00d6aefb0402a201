package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// runner carries operations out on a store and keeps track of how many of
// them are durable for sure.
type runner struct {
	*world
	cfg     Config
	s       *Store
	certain int // operations that have happened
	// numberBefore is the number of the provider removed last, before that.
	numberBefore uint32
	durable      int // operations that must survive
}

// canary is a publisher whose only address is the number of operations done.
const canary = peer.ID("canary")

// do carries an operation out. With an error it may have happened or not, and
// is the last one.
func (r *runner) do(op modelOp, run func() error) error {
	r.ops = append(r.ops, op)
	if err := run(); err != nil {
		return err
	}
	r.certain = len(r.ops)
	return r.s.SetPublisherAddrs(canary, []string{strconv.Itoa(len(r.ops))})
}

// step does one random thing.
func (r *runner) step() error {
	pub := r.rng.IntN(modelPublishers)
	switch n := r.rng.IntN(100); {
	case n < 30:
		return r.applyOne(pub)
	case n < 45:
		return r.applySome(pub)
	case n < 70:
		r.extend(pub)
		return nil
	case n < 82:
		return r.addPending(pub)
	case n < 83:
		return r.setMark(pub)
	case n < 87:
		return r.sync()
	case n < 88:
		return r.freeze()
	case n < 89:
		return r.removeProvider()
	case n < 90:
		return r.reclaim()
	case n < 94:
		return r.current().verify(r.s)
	case n < 96:
		return r.s.db.Flush()
	case n < 97:
		return r.compact()
	default:
		return nil
	}
}

func (r *runner) compact() error {
	ctx, cancel := r.s.whileWell(context.Background())
	defer cancel()
	err := r.s.db.Compact(ctx, []byte{0}, []byte{0xff}, false)
	return cmp.Or(r.s.disk.err(), err)
}

func (r *runner) current() *model { return r.after(r.ops) }

func (r *runner) sync() error {
	n := r.certain
	if err := r.s.Sync(); err != nil {
		return err
	}
	r.durable = n
	return nil
}

// applyOne applies an ad that is not done: usually the oldest, or one a
// little newer.
func (r *runner) applyOne(pub int) error {
	m := r.current()
	var open []int
	for i := range r.chains[pub] {
		if !m.done[pub][i] && len(open) < 8 {
			open = append(open, i)
		}
	}
	if len(open) == 0 {
		return nil
	}
	i := open[0]
	if r.rng.IntN(2) == 0 {
		i = open[r.rng.IntN(len(open))]
	}
	commit, err := r.begin(pub, i)
	if err != nil || commit == nil {
		return err
	}
	return commit()
}

// applySome has several writers of a publisher at work at a time, one a record.
func (r *runner) applySome(pub int) error {
	m := r.current()
	records := make(map[recordKey]bool)
	var commits []func() error
	for i, a := range r.chains[pub] {
		if m.done[pub][i] || records[a.record()] || r.rng.IntN(4) == 0 {
			continue
		}
		records[a.record()] = true
		commit, err := r.begin(pub, i)
		if err != nil {
			return err
		}
		if commit != nil {
			commits = append(commits, commit)
		}
		if len(records) == 4 {
			break
		}
	}
	r.rng.Shuffle(len(commits), func(i, j int) { commits[i], commits[j] = commits[j], commits[i] })
	for _, commit := range commits {
		if err := commit(); err != nil {
			return err
		}
	}
	return nil
}

// begin puts the multihashes of an ad that is not done and returns what commits
// it, nil if it is not to be.
func (r *runner) begin(pub, i int) (commit func() error, err error) {
	m := r.current()
	a := r.chains[pub][i]
	if r.rng.IntN(20) == 0 {
		return func() error { return r.pass(pub, i, Rejected) }, nil
	}
	if a.kind != EffectRemove && r.rng.IntN(3) == 0 && m.removedAbove(a) && a.xp == nil {
		return func() error { return r.pass(pub, i, Superseded) }, nil
	}
	w, err := r.s.Begin(a.Ad)
	if err != nil {
		return nil, err
	}
	if err := r.put(w, a, m.frozen); err != nil || (m.frozen && len(a.mhs) > 0) {
		w.Abort()
		return nil, err
	}
	if r.rng.IntN(8) == 0 {
		w.Abort()
		return nil, nil // given up half way
	}
	e := Effect{Kind: a.kind, Verdict: Applied, Provider: &ProviderUpdate{Addrs: a.addrs, Extended: a.xp}}
	return func() error {
		if r.current().frozen && a.kind == EffectContent {
			return r.refused(w, e)
		}
		return r.do(modelOp{opApply, pub, i, Applied}, func() error { _, err := w.Commit(e); return err })
	}, nil
}

// refused commits content while the store is frozen.
func (r *runner) refused(w *AdWriter, e Effect) error {
	_, err := w.Commit(e)
	switch {
	case errors.Is(err, ErrFrozen):
		return nil
	case err == nil:
		return errors.New("content committed while frozen")
	}
	return err
}

func (r *runner) put(w *AdWriter, a *modelAd, frozen bool) error {
	if len(a.mhs) == 0 {
		return nil
	}
	if r.attempts[a] == nil {
		r.attempts[a] = make(map[int]bool)
	}
	for part := range slices.Chunk(a.mhs, 4) {
		var mhs []multihash.Multihash
		for _, i := range part {
			mhs = append(mhs, testMH(uint64(i)))
			if !frozen {
				r.attempts[a][i] = true
			}
		}
		err := w.Put(mhs)
		if frozen && errors.Is(err, ErrFrozen) {
			continue
		}
		if frozen && err == nil {
			return errors.New("put while frozen")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removedAbove tells whether a newer removal of the ad's record by its own
// publisher was applied.
func (m *model) removedAbove(a *modelAd) bool {
	return slices.ContainsFunc(m.records[a.record()], func(b applied) bool {
		return b.kind == EffectRemove && b.Publisher == a.Publisher && b.Pos > a.Pos
	})
}

func (r *runner) pass(pub, i int, v Verdict) error {
	w, err := r.s.Begin(r.chains[pub][i].Ad)
	if err != nil {
		return err
	}
	return r.do(modelOp{opPass, pub, i, v}, func() error { _, err := w.Commit(Effect{Verdict: v, Reason: "for the test"}); return err })
}

func (r *runner) addPending(pub int) error {
	n := len(r.chains[pub])
	if n == 0 {
		return nil
	}
	var refs []AdRef
	for _, a := range r.chains[pub] {
		refs = append(refs, a.AdRef)
	}
	r.rng.Shuffle(n, func(i, j int) { refs[i], refs[j] = refs[j], refs[i] })
	return r.do(modelOp{opPending, pub, n - 1, 0}, func() error { return r.s.AddPending(publisherID(pub), refs) })
}

func (r *runner) setMark(pub int) error {
	n, mark := len(r.chains[pub]), r.current().mark(pub)
	if n <= mark {
		return nil
	}
	i := mark + r.rng.IntN(min(n-mark, 5))
	return r.do(modelOp{opSetMark, pub, i, 0}, func() error { return r.s.SetMark(publisherID(pub), r.chains[pub][i].AdRef) })
}

// removeProvider also makes what the provider had garbage, or leaves that for
// later.
func (r *runner) removeProvider() error {
	pub := r.rng.IntN(modelPublishers + 1)
	number, err := r.renumbered(pub)
	if err != nil {
		return err
	}
	r.numberBefore = number
	err = r.do(modelOp{kind: opRemoveProvider, pub: pub}, func() error {
		_, err := r.s.RemoveProvider(providerID(pub))
		return err
	})
	if err != nil || r.rng.IntN(2) == 0 {
		return err
	}
	return r.s.sweepRemoved(context.Background())
}

// renumbered is the number a provider got when it was last removed.
func (r *runner) renumbered(pub int) (n uint32, err error) {
	n, _, err = getRow(r.s.db, peerKey(prefixRenumbered, providerID(pub)), decodeNumber)
	return n, err
}

func (r *runner) reclaim() error {
	ctx, cancel := r.s.whileWell(context.Background())
	defer cancel()
	if err := r.s.sweepRemoved(ctx); err != nil {
		return err
	}
	if err := r.s.reclaim(ctx); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return nil
}

func (r *runner) freeze() error {
	op, run := modelOp{kind: opFreeze}, func() error { return r.s.Freeze(testTime) }
	if r.s.Frozen() {
		op, run = modelOp{kind: opUnfreeze}, r.s.Unfreeze
	}
	return r.do(op, run)
}

// recovered is called with a store opened after a crash or failure: it finds
// out which operations survived, checks that they are a prefix with all that
// were durable, and goes on from there.
func (r *runner) recovered(s *Store) error {
	r.s = s
	n := 0
	if addrs := s.PublisherAddrs(canary); len(addrs) > 0 {
		n, _ = strconv.Atoi(addrs[0])
	}
	if n < r.durable || n > len(r.ops) {
		return fmt.Errorf("%d operations survived, %d were durable, %d done", n, r.durable, len(r.ops))
	}
	if n < len(r.ops) && r.ops[n].kind == opRemoveProvider {
		// That a removal took the memory of older ones with it cannot be seen
		// from outside until ads older than those come.
		number, err := r.renumbered(r.ops[n].pub)
		if err != nil {
			return err
		}
		if number != r.numberBefore {
			n++
		}
	}
	err := r.after(r.ops[:n]).verify(s)
	if err != nil && n < len(r.ops) { // the canary follows its operation
		r.inPart(s, n)
		next := r.after(r.ops[:n+1]).verify(s)
		if next != nil {
			return fmt.Errorf("%w; and after %+v: %w", err, r.ops[n], next)
		}
		n, err = n+1, nil
	}
	r.ops = r.ops[:n]
	r.certain, r.durable = n, n
	if err != nil {
		return err
	}
	if err := s.SetPublisherAddrs(canary, []string{strconv.Itoa(n)}); err != nil {
		return err
	}
	return s.Sync()
}

// inPart has an operation that was cut off be what came of it: SetMark may have come
// to an ad between.
func (r *runner) inPart(s *Store, n int) {
	op := &r.ops[n]
	if op.kind != opSetMark {
		return
	}
	mark := s.Progress(publisherID(op.pub)).Mark
	if i := slices.IndexFunc(r.chains[op.pub], func(a *modelAd) bool { return a.AdRef == mark }); i >= 0 && i < op.ad {
		op.ad = i
	}
}

func modelSteps(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("STEPS")); err == nil {
		return n
	}
	if *soak {
		return 1e6
	}
	return 2000
}

func modelSeed(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	if n, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

func TestModelAnyOrderOfWorkEndsAsOldestToNewest(t *testing.T) {
	rng := modelSeed(t)
	steps := modelSteps(t)
	const segment = 2000 // a fresh world now and then, as the model replays from its start
	for done := 0; done < steps; done += segment {
		runModel(t, rng, min(segment, steps-done))
	}
}

func runModel(t *testing.T, rng *rand.Rand, steps int) {
	fs := vfs.NewCrashableMem()
	r := &runner{world: newWorld(rng), cfg: testConfig(fs)}
	r.cfg.moveRows = 2
	open := func() {
		t.Helper()
		s, err := Open(r.cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.recovered(s); err != nil {
			t.Fatalf("after %d operations: %v", len(r.ops), err)
		}
	}
	open()
	defer func() { _ = r.s.Close() }()
	for i := range steps {
		switch rng.IntN(120) {
		case 0: // reopen: all is durable
			if err := r.s.Close(); err != nil {
				t.Fatal(err)
			}
			r.durable = len(r.ops)
			open()
		case 1: // power loss
			clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(3) * 50, RNG: rng})
			if err := r.s.Close(); err != nil {
				t.Fatal(err)
			}
			fs = clone
			r.cfg.FS = fs
			open()
		default:
			if err := r.step(); err != nil {
				t.Fatalf("step %d, %d operations: %v", i, len(r.ops), err)
			}
		}
	}
	if err := r.current().verify(r.s); err != nil {
		t.Fatal(err)
	}
	stats := make(map[opKind]int)
	for _, op := range r.ops {
		stats[op.kind]++
	}
	t.Logf("%d operations stood at the end: %v", len(r.ops), slices.Sorted(maps.Keys(stats)))
}
