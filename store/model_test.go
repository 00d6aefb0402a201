package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/libp2p/go-libp2p/core/peer"
)

// fromAnyAd: the model does not say which ad a set is from.
var fromAnyAd = cmpopts.IgnoreFields(ExtendedSet{}, "Publisher", "Pos")

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
	opRemoveProvider // that of pub; pub modelPublishers is the shared one
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
}

func newWorld(rng *rand.Rand) *world {
	return &world{rng: rng, attempts: make(map[*modelAd]map[int]bool)}
}

// providerID is the provider of a publisher's ads; that of modelPublishers is
// the one all share.
func providerID(i int) peer.ID {
	if i == modelPublishers {
		return "shared"
	}
	return peer.ID(fmt.Sprintf("provider-%d", i))
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
	// registered are the applied ads that count for the registry.
	registered map[*modelAd]bool
	done       [modelPublishers]map[int]bool
	pending    [modelPublishers]map[int]bool
	frozen     bool
	ops        []modelOp
}

func (w *world) after(ops []modelOp) *model {
	m := &model{w: w, ops: ops, records: make(map[recordKey][]applied), ledger: make(map[*modelAd]Verdict), registered: make(map[*modelAd]bool)}
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
			m.registered[a] = true
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
	case opRemoveProvider:
		id := providerID(op.pub)
		for key := range m.records {
			if key.provider == id {
				delete(m.records, key)
			}
		}
		for a := range m.registered {
			if a.Provider == id {
				delete(m.registered, a)
			}
		}
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
			if !a.xp.held() {
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
	if err := moveAll(s); err != nil {
		return err
	}
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
		if op.kind == opFreeze || op.kind == opUnfreeze || op.kind == opPending || op.kind == opRemoveProvider {
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
			if a.Provider == id && m.done[pub][i] && m.registered[a] {
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
			if want := states[recordKey{id, string(ctx)}].xp; !cmp.Equal(got, want, fromAnyAd) {
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
	backlog, err := s.Backlog(publisherID(pub), 0, 1<<20)
	var next []AdRef
	for _, ad := range backlog {
		next = append(next, ad.AdRef)
	}
	if err == nil && !slices.Equal(next, holes) {
		err = fmt.Errorf("backlog of %d: %v, want %v", pub, adNames(next), adNames(holes))
	}
	if err != nil {
		return err
	}
	last, ok, err := s.LastPending(publisherID(pub))
	if err == nil && (ok != (len(holes) > 0) || (ok && last != holes[len(holes)-1])) {
		err = fmt.Errorf("last pending of %d: %v %v, want the last of %v", pub, last.Pos, ok, adNames(holes))
	}
	return err
}
