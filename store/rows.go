package store

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// One type for each kind of row, with its encoding. Decoders accept exactly
// what the encoders write.

// refRow is the value of an above or pending row; the position is in the key.
type refRow struct {
	ad, prev cid.Cid
}

func (w refRow) encode() []byte {
	return appendCID(appendCID(nil, w.ad), w.prev)
}

func decodeRef(b []byte) (refRow, error) {
	r := &reader{b: b}
	w := refRow{ad: r.cid(), prev: r.cid()}
	if !w.ad.Defined() {
		r.fail()
	}
	return w, r.done("ad reference")
}

// progressRow is how far a publisher is.
type progressRow struct {
	mark     AdRef
	markTime time.Time
	above    uint64 // rows under prefixAbove
	pending  uint64 // rows under prefixPending
	tombs    uint64 // rows under prefixTombstone
}

func (w progressRow) encode() []byte {
	b := appendCID(nil, w.mark.Ad)
	b = appendCID(b, w.mark.Prev)
	b = binary.AppendUvarint(b, uint64(w.mark.Pos))
	b = appendTime(b, w.markTime)
	b = binary.AppendUvarint(b, w.above)
	b = binary.AppendUvarint(b, w.pending)
	return binary.AppendUvarint(b, w.tombs)
}

func decodeProgress(b []byte) (progressRow, error) {
	r := &reader{b: b}
	w := progressRow{mark: AdRef{Ad: r.cid(), Prev: r.cid(), Pos: r.pos()}, markTime: r.time(),
		above: r.uvarint(), pending: r.uvarint(), tombs: r.uvarint()}
	if w.mark.Ad.Defined() != (w.mark.Pos != 0) {
		r.fail()
	}
	return w, r.done("progress")
}

// publisherRow is what is known of a publisher besides its progress.
type publisherRow struct {
	addrs         []string
	lastError     string
	lastErrorTime time.Time
	frozenAt      cid.Cid // mark when the latch fell; meaningful only while frozen
}

func (w publisherRow) encode() []byte {
	b := appendStrings(nil, w.addrs)
	b = appendString(b, w.lastError)
	b = appendTime(b, w.lastErrorTime)
	return appendCID(b, w.frozenAt)
}

func decodePublisher(b []byte) (publisherRow, error) {
	r := &reader{b: b}
	w := publisherRow{addrs: r.strings(), lastError: r.string(), lastErrorTime: r.time(), frozenAt: r.cid()}
	return w, r.done("publisher")
}

// ledgerRow is what became of an ad.
type ledgerRow struct {
	publisher peer.ID
	pos       Position
	verdict   Verdict
	reason    string
	time      time.Time
}

func (w ledgerRow) encode() []byte {
	b := appendString(nil, string(w.publisher))
	b = binary.AppendUvarint(b, uint64(w.pos))
	b = append(b, byte(w.verdict))
	b = appendString(b, w.reason)
	return appendTime(b, w.time)
}

func decodeLedger(b []byte) (ledgerRow, error) {
	r := &reader{b: b}
	w := ledgerRow{publisher: r.peer(), pos: r.pos(), verdict: Verdict(r.byte()), reason: r.string(), time: r.time()}
	if w.verdict == 0 || int(w.verdict) >= len(verdictNames) {
		r.fail()
	}
	return w, r.done("ledger entry")
}

// seen is the newest position of one publisher that touched a row, and the
// newest position a removal has reached: everything of that publisher at or
// below removed has no effect any more. removed ≤ last.
type seen struct {
	publisher     peer.ID
	last, removed Position
}

// seens holds at most one entry a publisher; entries the contiguous mark has
// passed say nothing new and are dropped when the row is next written.
type seens []seen

func (ss seens) of(p peer.ID) seen {
	for _, s := range ss {
		if s.publisher == p {
			return s
		}
	}
	return seen{publisher: p}
}

func (ss *seens) set(s seen) {
	for i := range *ss {
		if (*ss)[i].publisher == s.publisher {
			(*ss)[i] = s
			return
		}
	}
	*ss = append(*ss, s)
}

func (ss seens) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(ss)))
	for _, s := range ss {
		b = appendString(b, string(s.publisher))
		b = binary.AppendUvarint(b, uint64(s.last))
		b = binary.AppendUvarint(b, uint64(s.removed))
	}
	return b
}

func (r *reader) seens() seens {
	n := r.count(3)
	if n == 0 {
		return nil
	}
	ss := make(seens, n)
	for i := range ss {
		ss[i] = seen{publisher: r.peer(), last: r.pos(), removed: r.pos()}
		if ss[i].removed > ss[i].last {
			r.fail()
		}
	}
	return ss
}

// register is a value in which the newest ad of a publisher wins, and between
// publishers the one applied last: publisher and pos name the ad that wrote
// the current value; pos 0 with a publisher means it came by handoff.
//
// Any order of work within a publisher ends as oldest to newest would, because
// an ad older than that publisher's newest is not taken.
type register struct {
	publisher peer.ID
	pos       Position
	seens     seens
}

// accepts decides whether an ad may write the register. again says that the
// ad is at or below the contiguous mark, so it is applied a second time; it
// then must not push aside what other publishers wrote since.
func (g *register) accepts(p peer.ID, pos Position, again bool) bool {
	if g.publisher == p && pos < g.pos {
		return false
	}
	if again {
		return g.publisher == p || g.publisher == ""
	}
	return pos >= g.seens.of(p).last
}

// note remembers that an ad touched the register, whether it was taken or not.
func (g *register) note(p peer.ID, pos Position) {
	s := g.seens.of(p)
	s.last = max(s.last, pos)
	g.seens.set(s)
}

// prune drops what the contiguous marks have passed.
func (g *register) prune(markOf func(peer.ID) Position) {
	g.seens = slices.DeleteFunc(g.seens, func(s seen) bool { return s.last <= markOf(s.publisher) })
}

func (g *register) append(b []byte) []byte {
	b = appendString(b, string(g.publisher))
	b = binary.AppendUvarint(b, uint64(g.pos))
	return g.seens.append(b)
}

func (r *reader) register() register {
	g := register{publisher: r.peer(), pos: r.pos(), seens: r.seens()}
	if g.publisher == "" && g.pos != 0 {
		r.fail()
	}
	return g
}

// recordRow is the state of (provider, context ID) apart from its postings.
// Without metadata (pos 0) it only remembers removals.
type recordRow struct {
	register
	metadata []byte
}

func (w recordRow) held() bool { return w.pos != 0 }

func (w recordRow) encode() []byte {
	return appendString(w.register.append(nil), string(w.metadata))
}

func decodeRecord(b []byte) (recordRow, error) {
	r := &reader{b: b}
	w := recordRow{register: r.register(), metadata: r.bytes(MaxMetadataBytes)}
	if w.pos == 0 && (w.publisher != "" || len(w.metadata) > 0) {
		r.fail()
	}
	return w, r.done("record")
}

// generation is the set of postings one publisher put for a record between
// two removals. Its first position is in the key.
type generation struct {
	id       uint64   // record ID the postings carry
	max      Position // last position that joined
	postings uint64   // put by committed ads
}

func (w generation) encode() []byte {
	b := binary.AppendUvarint(nil, w.id)
	b = binary.AppendUvarint(b, uint64(w.max))
	return binary.AppendUvarint(b, w.postings)
}

func decodeGeneration(b []byte) (generation, error) {
	r := &reader{b: b}
	w := generation{id: r.uvarint(), max: r.pos(), postings: r.uvarint()}
	if w.id == 0 {
		r.fail()
	}
	return w, r.done("generation")
}

// ownerRow says which record a record ID belongs to.
type ownerRow struct {
	provider peer.ID
	ctx      []byte
}

func (w ownerRow) encode() []byte {
	return appendString(appendString(nil, string(w.provider)), string(w.ctx))
}

func decodeOwner(b []byte) (ownerRow, error) {
	r := &reader{b: b}
	w := ownerRow{provider: r.peer(), ctx: r.bytes(MaxContextIDBytes)}
	return w, r.done("record owner")
}

// extendedRow is one extended provider set; one without effect only remembers
// that newer ads took it away.
type extendedRow struct {
	register
	set ExtendedSet
}

func (w extendedRow) encode() []byte {
	b := w.register.append(nil)
	b = appendBool(b, w.set.Override)
	b = binary.AppendUvarint(b, uint64(len(w.set.Providers)))
	for _, p := range w.set.Providers {
		b = appendString(b, string(p.ID))
		b = appendStrings(b, p.Addrs)
		b = appendString(b, string(p.Metadata))
	}
	return b
}

func decodeExtended(b []byte) (extendedRow, error) {
	r := &reader{b: b}
	w := extendedRow{register: r.register(), set: ExtendedSet{Override: r.bool()}}
	if n := r.count(3); n > 0 {
		w.set.Providers = make([]ExtendedProvider, n)
		for i := range w.set.Providers {
			w.set.Providers[i] = ExtendedProvider{ID: r.peer(), Addrs: r.strings(), Metadata: r.bytes(maxRowString)}
		}
	}
	return w, r.done("extended providers")
}

// providerRow is a registry entry: two registers, the newest ad and the
// newest addresses.
type providerRow struct {
	last       register
	lastAd     cid.Cid
	lastAdTime time.Time
	addrsFrom  register
	addrs      []string
}

func (w providerRow) encode() []byte {
	b := w.last.append(nil)
	b = appendCID(b, w.lastAd)
	b = appendTime(b, w.lastAdTime)
	b = w.addrsFrom.append(b)
	return appendStrings(b, w.addrs)
}

func decodeProvider(b []byte) (providerRow, error) {
	r := &reader{b: b}
	w := providerRow{last: r.register(), lastAd: r.cid(), lastAdTime: r.time(),
		addrsFrom: r.register(), addrs: r.strings()}
	return w, r.done("provider")
}

// assignmentRow is an assignment; the publisher is in the key.
type assignmentRow struct {
	continued peer.ID
	time      time.Time
}

func (w assignmentRow) encode() []byte {
	return appendTime(appendString(nil, string(w.continued)), w.time)
}

func decodeAssignment(b []byte) (assignmentRow, error) {
	r := &reader{b: b}
	w := assignmentRow{continued: r.peer(), time: r.time()}
	return w, r.done("assignment")
}

// totals are the counts behind Stats.
type totals struct {
	postings, records uint64
}

func (w totals) encode() []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, w.postings), w.records)
}

func decodeTotals(b []byte) (totals, error) {
	r := &reader{b: b}
	w := totals{postings: r.uvarint(), records: r.uvarint()}
	return w, r.done("totals")
}
