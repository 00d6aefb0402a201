package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// The model check: random operations on a store, in any order of work, with
// reopens and power losses, against a plain model. The model knows nothing of
// generations, marks or tombstones: it keeps for each record the list of
// applied ads in an order that could have been, and replays it.

const (
	modelPublishers = 3
	modelMHs        = 60
)

// modelAd is one advertisement of a world.
type modelAd struct {
	Ad
	kind  EffectKind
	mhs   []int
	addrs []string
	xp    *ExtendedSet
}

func (a *modelAd) record() recordKey { return recordKey{a.Provider, string(a.ContextID)} }

type recordKey struct {
	provider peer.ID
	ctx      string
}

// opKind is one thing done to a store.
type opKind int

const (
	opApply opKind = iota
	opPass         // commit as superseded or rejected
	opPending
	opSetMark
	opFreeze
	opUnfreeze
)

type modelOp struct {
	kind    opKind
	pub, ad int // ad: index in the chain; for opPending the last of them
	verdict Verdict
}

// world is the chains and what was done, in order. Only apply touches the
// store.
type world struct {
	rng    *rand.Rand
	chains [modelPublishers][]*modelAd
	ops    []modelOp
	// attempts are multihashes put for ads not committed: they may be found.
	attempts map[*modelAd]map[int]bool
	seen     [modelPublishers]int // chain length given to AddPending
}

func newWorld(rng *rand.Rand) *world {
	return &world{rng: rng, attempts: make(map[*modelAd]map[int]bool)}
}

func publisherID(i int) peer.ID { return peer.ID(fmt.Sprintf("publisher-%d", i)) }

// extend adds an ad to a chain: mostly about a context only its publisher
// uses, sometimes about one that all share.
func (w *world) extend(pub int) {
	c := w.chains[pub]
	a := &modelAd{}
	a.Publisher, a.Provider = publisherID(pub), peer.ID(fmt.Sprintf("provider-%d", pub))
	a.Pos = Position(1 + w.rng.IntN(3))
	if n := len(c); n > 0 {
		a.Prev, a.Pos = c[n-1].Ad.Ad, c[n-1].Pos+a.Pos
	}
	a.Ad.Ad = testCID(uint64(pub)<<32 | uint64(len(c)))
	a.ContextID = []byte{byte('a' + w.rng.IntN(4))}
	if w.rng.IntN(3) == 0 {
		a.Provider, a.ContextID = "shared", []byte{byte('s' + w.rng.IntN(2))}
	}
	a.Metadata = fmt.Appendf(nil, "%d.%d", pub, len(c))
	switch w.rng.IntN(10) {
	case 0, 1:
		a.kind = EffectRemove
	case 2:
		a.kind = EffectMetadata
	case 3:
		a.kind = EffectNone
	default:
		a.kind = EffectContent
		for range w.rng.IntN(9) {
			a.mhs = append(a.mhs, w.rng.IntN(modelMHs))
		}
	}
	if w.rng.IntN(3) == 0 {
		a.addrs = []string{fmt.Sprintf("/dns/%s/tcp/80", a.Metadata)}
	}
	if a.kind != EffectRemove && w.rng.IntN(4) == 0 && a.Provider != "shared" {
		a.xp = &ExtendedSet{Override: w.rng.IntN(2) == 0}
		for i := range w.rng.IntN(3) {
			a.xp.Providers = append(a.xp.Providers, ExtendedProvider{ID: peer.ID(fmt.Sprintf("x%d", i)), Addrs: []string{string(a.Metadata)}})
		}
	}
	w.chains[pub] = append(c, a)
}

// model is the state after some of the operations.
type model struct {
	w       *world
	records map[recordKey][]applied // applied, in an order that could have been
	ledger  map[*modelAd]Verdict
	done    [modelPublishers]map[int]bool
	pending [modelPublishers]map[int]bool
	frozen  bool
	ops     []modelOp
}

func (w *world) after(ops []modelOp) *model {
	m := &model{w: w, ops: ops, records: make(map[recordKey][]applied), ledger: make(map[*modelAd]Verdict)}
	for i := range m.done {
		m.done[i], m.pending[i] = make(map[int]bool), make(map[int]bool)
	}
	for _, op := range ops {
		m.do(op)
	}
	return m
}

func (m *model) do(op modelOp) {
	switch op.kind {
	case opApply, opPass:
		a := m.w.chains[op.pub][op.ad]
		if op.kind == opApply {
			m.insert(a)
		}
		m.done[op.pub][op.ad] = true
		delete(m.pending[op.pub], op.ad)
		m.ledger[a] = op.verdict
	case opPending:
		for i := range op.ad + 1 {
			if a := m.w.chains[op.pub][i]; !m.done[op.pub][i] {
				m.pending[op.pub][i] = true
				if m.ledger[a] == 0 {
					m.ledger[a] = Pending
				}
			}
		}
	case opSetMark:
		for i := range op.ad + 1 {
			a := m.w.chains[op.pub][i]
			m.done[op.pub][i] = true
			delete(m.pending[op.pub], i)
			if m.ledger[a] == Pending || (i == op.ad && m.ledger[a] == 0) {
				m.ledger[a] = MarkedDone
			}
		}
	case opFreeze, opUnfreeze:
		m.frozen = op.kind == opFreeze
	}
}

// applied is an ad in a record's list. A late removal, one met after a newer
// ad of its publisher, takes only what its own publisher did.
type applied struct {
	*modelAd
	late bool
}

// insert puts an ad where it could have been applied: among the ads of its
// publisher by position, as late as that allows.
func (m *model) insert(a *modelAd) {
	if a.kind == EffectNone && a.xp == nil {
		return
	}
	list := m.records[a.record()]
	at := slices.IndexFunc(list, func(b applied) bool { return b.Publisher == a.Publisher && b.Pos > a.Pos })
	late := at >= 0
	if !late {
		at = len(list)
	}
	m.records[a.record()] = slices.Insert(list, at, applied{a, late})
}

// recordState is what a record's list comes to.
type recordState struct {
	metadata *modelAd
	mhs      map[int][]*modelAd // who put them
	xp       *ExtendedSet
}

func replay(list []applied) recordState {
	st := recordState{mhs: make(map[int][]*modelAd)}
	for _, a := range list {
		gone := func(b *modelAd) bool { return !a.late || (b.Publisher == a.Publisher) }
		switch a.kind {
		case EffectRemove:
			for i := range st.mhs {
				st.mhs[i] = slices.DeleteFunc(st.mhs[i], gone)
			}
			if st.metadata != nil && gone(st.metadata) {
				st.metadata = nil
			}
			st.xp = nil
		case EffectContent:
			for _, i := range a.mhs {
				st.mhs[i] = append(st.mhs[i], a.modelAd)
			}
			st.metadata = a.modelAd
		case EffectMetadata:
			st.metadata = a.modelAd
		}
		if a.xp != nil {
			st.xp = a.xp
			if len(a.xp.Providers) == 0 {
				st.xp = nil
			}
		}
	}
	return st
}

// mark is the length of the done prefix of a chain.
func (m *model) mark(pub int) int {
	n := 0
	for m.done[pub][n] {
		n++
	}
	return n
}

// verify compares all a store shows with the model.
func (m *model) verify(s *Store) error {
	states := make(map[recordKey]recordState)
	for key, list := range m.records {
		states[key] = replay(list)
	}
	for i := range modelMHs {
		values, err := s.Find(testMH(uint64(i)))
		if err != nil {
			return err
		}
		got := make(map[recordKey]Value)
		for _, v := range values {
			got[recordKey{v.Provider, string(v.ContextID)}] = v
		}
		if len(got) != len(values) {
			return fmt.Errorf("find %d: a record twice: %v", i, values)
		}
		for key, st := range states {
			v, ok := got[key]
			if want := len(st.mhs[i]) > 0; ok != want && !(ok && m.maybe(key, i)) {
				return fmt.Errorf("find %d in %v: found %v, want %v\n%s", i, key, ok, want, m.story(key))
			}
			if ok && (st.metadata == nil || string(v.Metadata) != string(st.metadata.Metadata) || v.Pos != st.metadata.Pos || v.Publisher != st.metadata.Publisher) {
				return fmt.Errorf("find %d in %v: metadata %s, want otherwise\n%s", i, key, v.Metadata, m.story(key))
			}
			delete(got, key)
		}
		if len(got) > 0 {
			return fmt.Errorf("find %d: unknown records %v", i, got)
		}
	}
	if err := m.verifyRegistry(s, states); err != nil {
		return err
	}
	if s.Frozen() != m.frozen {
		return fmt.Errorf("frozen: %v, want %v", s.Frozen(), m.frozen)
	}
	for pub := range modelPublishers {
		if err := m.verifyPublisher(s, pub); err != nil {
			return err
		}
	}
	return checkInvariants(s)
}

// story tells what was done to a record, and in which order it counts.
func (m *model) story(key recordKey) string {
	var b strings.Builder
	tell := func(a *modelAd) {
		fmt.Fprintf(&b, " %s@%d:%s%v", a.Metadata, a.Pos, [...]string{"none", "put", "meta", "rm"}[a.kind], a.mhs)
		if a.xp != nil {
			fmt.Fprintf(&b, "+xp%d", len(a.xp.Providers))
		}
	}
	b.WriteString("done:")
	for _, op := range m.ops {
		if op.kind == opFreeze || op.kind == opUnfreeze || op.kind == opPending {
			continue
		}
		a := m.w.chains[op.pub][op.ad]
		if op.kind == opSetMark || a.record() == key {
			fmt.Fprintf(&b, " [%d]", op.kind)
			tell(a)
		}
	}
	b.WriteString("\ncounts as:")
	for _, a := range m.records[key] {
		tell(a.modelAd)
	}
	return b.String()
}

func (m *model) maybe(key recordKey, mh int) bool {
	for a, mhs := range m.w.attempts {
		if a.record() == key && mhs[mh] && m.ledger[a] != Applied {
			return true
		}
	}
	return false
}

func (m *model) verifyRegistry(s *Store, states map[recordKey]recordState) error {
	for pub := range modelPublishers {
		id := peer.ID(fmt.Sprintf("provider-%d", pub))
		var last *modelAd
		var addrs []string
		for i, a := range m.w.chains[pub] {
			if v := m.ledger[a]; a.Provider == id && m.done[pub][i] && v == Applied {
				last = a
				if a.addrs != nil {
					addrs = a.addrs
				}
			}
		}
		p, ok, err := s.Provider(id)
		if err != nil {
			return err
		}
		if ok != (last != nil) {
			return fmt.Errorf("provider %s: known %v, want %v", string(id), ok, last != nil)
		}
		if ok && (p.LastAd != last.Ad.Ad || !slices.Equal(p.Addrs, addrs)) {
			return fmt.Errorf("provider %s: last ad %s at %v, want %s at %v", string(id), p.LastAd, p.Addrs, last.Ad.Ad, addrs)
		}
		for ctx := byte('a'); ctx < 'e'; ctx++ {
			_, got, err := s.Extended(id, []byte{ctx})
			if err != nil {
				return err
			}
			if want := states[recordKey{id, string(ctx)}].xp; !cmp.Equal(got, want) {
				return fmt.Errorf("extended %s %c: %v, want %v\n%s", string(id), ctx, got, want, m.story(recordKey{id, string(ctx)}))
			}
		}
	}
	return nil
}

func (m *model) verifyPublisher(s *Store, pub int) error {
	chain, mark := m.w.chains[pub], m.mark(pub)
	p := s.Progress(publisherID(pub))
	var wantMark AdRef
	if mark > 0 {
		wantMark = chain[mark-1].AdRef
	}
	var applied, holes []AdRef
	for i, a := range chain {
		switch {
		case i < mark:
		case m.done[pub][i]:
			applied = append(applied, a.AdRef)
		case m.pending[pub][i]:
			holes = append(holes, a.AdRef)
		}
		st, ok, err := s.AdState(a.Ad.Ad)
		if err != nil {
			return err
		}
		if want := m.ledger[a]; ok != (want != 0) || st.Verdict != want || (ok && (st.Pos != a.Pos || st.Publisher != a.Publisher)) {
			return fmt.Errorf("ad %d.%d: state %v %+v, want %s", pub, i, ok, st, want)
		}
	}
	if p.Mark != wantMark {
		return fmt.Errorf("mark of %d: %v, want %v", pub, p.Mark, wantMark)
	}
	if !slices.Equal(p.Applied, applied) || p.AppliedCount != len(applied) {
		return fmt.Errorf("applied of %d: %d %v, want %v", pub, p.AppliedCount, adNames(p.Applied), adNames(applied))
	}
	if !slices.Equal(p.Holes, holes) || p.Pending != len(holes) {
		return fmt.Errorf("holes of %d: %d %v, want %v", pub, p.Pending, adNames(p.Holes), adNames(holes))
	}
	next, err := s.NextPending(publisherID(pub), 0, 1<<20)
	if err == nil && !slices.Equal(next, holes) {
		err = fmt.Errorf("next pending of %d: %v, want %v", pub, adNames(next), adNames(holes))
	}
	return err
}

// runner carries operations out on a store and keeps track of how many of
// them are durable for sure.
type runner struct {
	*world
	cfg     Config
	s       *Store
	certain int // operations that have happened
	durable int // operations that must survive
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
	case n < 45:
		return r.applyOne(pub)
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
	case n < 94:
		return r.current().verify(r.s)
	case n < 96:
		return r.s.db.Flush()
	case n < 97:
		return r.s.db.Compact(context.Background(), []byte{0}, []byte{0xff}, false)
	default:
		return nil
	}
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
	a := r.chains[pub][i]
	if r.rng.IntN(20) == 0 {
		return r.pass(pub, i, Rejected)
	}
	if a.kind != EffectRemove && r.rng.IntN(3) == 0 && m.removedAbove(a) && a.xp == nil {
		return r.pass(pub, i, Superseded)
	}
	w, err := r.s.Begin(a.Ad)
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := r.put(w, a, m.frozen); err != nil || (m.frozen && len(a.mhs) > 0) {
		return err
	}
	if r.rng.IntN(8) == 0 {
		return nil // given up half way
	}
	e := Effect{Kind: a.kind, Verdict: Applied, Provider: &ProviderUpdate{Addrs: a.addrs, Extended: a.xp}}
	return r.do(modelOp{opApply, pub, i, Applied}, func() error { _, err := w.Commit(e); return err })
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
	err := r.after(r.ops[:n]).verify(s)
	if err != nil && n < len(r.ops) { // the canary follows its operation
		if r.after(r.ops[:n+1]).verify(s) == nil {
			n, err = n+1, nil
		}
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
