package store

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// One type for each kind of row, with its encoding. Decoders accept exactly
// what the encoders write.

// refRow is the value of an above row; the position is in the key.
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

// ledgerRow is what became of an ad. There is one for every ad ever met, so it
// is small: the publisher is a number, the time is kept in milliseconds.
type ledgerRow struct {
	publisher uint32
	pos       Position
	verdict   Verdict
	time      time.Time
	reason    string
}

func (w ledgerRow) encode() []byte {
	b := binary.AppendUvarint(nil, uint64(w.publisher))
	b = appendPos(b, w.pos)
	b = append(b, byte(w.verdict))
	b = binary.AppendVarint(b, w.time.UnixMilli()-ledgerEpoch)
	return append(b, w.reason...)
}

// ledgerEpoch is 2025-01-01 in Unix milliseconds: times of the ledger count
// from there.
const ledgerEpoch = 1_735_689_600_000

func decodeLedger(b []byte) (ledgerRow, error) {
	r := &reader{b: b}
	w := ledgerRow{publisher: r.number(), pos: r.pos(), verdict: Verdict(r.byte()), time: time.UnixMilli(ledgerEpoch + r.varint())}
	w.reason = string(r.take(len(r.b), maxReasonBytes))
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
		b = appendPos(b, s.last)
		b = appendPos(b, s.removed)
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
	b = appendPos(b, g.pos)
	return g.seens.append(b)
}

func (r *reader) register() register {
	g := register{publisher: r.peer(), pos: r.pos(), seens: r.seens()}
	if g.publisher == "" && g.pos != 0 {
		r.fail()
	}
	return g
}

// recordRow is the state of (provider, context ID). Without metadata (pos 0) it
// only remembers removals. Its register's publisher is encoded as number by,
// which tx.record and tx.setRecord translate.
type recordRow struct {
	provider uint32
	ctx      []byte
	register
	by       uint32
	metadata []byte
	// own is the generation whose postings carry the record's own ID, others
	// the number of further generations, which have rows of their own.
	own    generation
	others uint64
}

func (w recordRow) held() bool { return w.pos != 0 }

// Flags of a record row; its first byte. A forward has none.
const (
	recordFlag   = 1 << iota // set in every record
	recordHeld               // by, pos, metadata follow
	recordSeen               // seens follow
	recordOwn                // own follows
	recordOwnBy              // own.publisher is by
	recordOwnOne             // own.first and own.max are one
	recordOwnNow             // own.max is pos
	recordOthers             // others follows
)

func (w recordRow) flags() byte {
	f := byte(recordFlag)
	set := func(flag byte, is bool) {
		if is {
			f |= flag
		}
	}
	set(recordHeld, w.held())
	set(recordSeen, len(w.seens) > 0)
	if w.own.id != 0 {
		set(recordOwn, true)
		set(recordOwnBy, w.held() && w.own.publisher == w.by)
		set(recordOwnOne, w.own.first == w.own.max)
		set(recordOwnNow, w.held() && w.own.max == w.pos)
	}
	set(recordOthers, w.others > 0)
	return f
}

func (w recordRow) encode() []byte {
	f := w.flags()
	b := append(make([]byte, 0, 64+len(w.ctx)+len(w.metadata)), f)
	b = binary.AppendUvarint(b, uint64(w.provider))
	b = appendString(b, string(w.ctx))
	if f&recordHeld != 0 {
		b = binary.AppendUvarint(b, uint64(w.by))
		b = appendPos(b, w.pos)
		b = appendString(b, string(w.metadata))
	}
	if f&recordSeen != 0 {
		b = w.seens.append(b)
	}
	if f&recordOwn != 0 {
		if f&recordOwnBy == 0 {
			b = binary.AppendUvarint(b, uint64(w.own.publisher))
		}
		if f&recordOwnNow == 0 {
			b = appendPos(b, w.own.max)
		}
		if f&recordOwnOne == 0 {
			b = appendPos(b, w.own.first)
		}
		b = binary.AppendUvarint(b, w.own.postings)
	}
	if f&recordOthers != 0 {
		b = binary.AppendUvarint(b, w.others)
	}
	return b
}

// decodeRecord decodes the row of record id.
func decodeRecord(id uint64, b []byte) (recordRow, error) {
	r := &reader{b: b}
	f := r.byte()
	w := recordRow{provider: r.number(), ctx: r.bytes(MaxContextIDBytes)}
	if f&recordHeld != 0 {
		w.by, w.pos, w.metadata = r.number(), r.pos(), r.bytes(MaxMetadataBytes)
	}
	if f&recordSeen != 0 {
		w.seens = r.seens()
	}
	if f&recordOwn != 0 {
		w.own = generation{id: id, publisher: w.by, max: w.pos}
		if f&recordOwnBy == 0 {
			w.own.publisher = r.number()
		}
		if f&recordOwnNow == 0 {
			w.own.max = r.pos()
		}
		w.own.first = w.own.max
		if f&recordOwnOne == 0 {
			w.own.first = r.pos()
		}
		w.own.postings = r.uvarint()
	}
	if f&recordOthers != 0 {
		w.others = r.uvarint()
	}
	if f != w.flags() {
		r.fail()
	}
	return w, r.done("record")
}

// isForward tells rows of IDs that only point to their record.
func isForward(b []byte) bool { return len(b) > 0 && b[0] == 0 }

// encodeForward is the row of a generation's ID that is not the record's own.
func encodeForward(record uint64) []byte { return binary.AppendUvarint([]byte{0}, record) }

func decodeForward(b []byte) (record uint64, err error) {
	r := &reader{b: b}
	if r.byte() != 0 {
		r.fail()
	}
	record = r.uvarint()
	if record == 0 {
		r.fail()
	}
	return record, r.done("forward to record")
}

// decodeID decodes the row of (provider, context).
func decodeID(b []byte) (uint64, error) {
	r := &reader{b: b}
	id := r.uvarint()
	if id == 0 {
		r.fail()
	}
	return id, r.done("record ID")
}

// generation is the set of postings one publisher put for a record between
// two removals. In a row of its own, publisher and first are in the key.
type generation struct {
	id         uint64 // record ID the postings carry; 0: none
	publisher  uint32
	first, max Position // first and last position that joined
	postings   uint64   // put by committed ads
}

func (w generation) encode() []byte {
	b := binary.AppendUvarint(nil, w.id)
	b = appendPos(b, w.max)
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

func decodeGenerationRow(k, v []byte) (record uint64, gen generation, err error) {
	record, publisher, first, err := parseGenerationKey(k)
	if err != nil {
		return 0, gen, err
	}
	gen, err = decodeGeneration(v)
	gen.publisher, gen.first = publisher, first
	return record, gen, err
}

// deadRow is the value of a record ID that was removed: how many postings are
// to be reclaimed.
func decodeDead(b []byte) (postings uint64, err error) {
	r := &reader{b: b}
	postings = r.uvarint()
	return postings, r.done("dead record ID")
}

// cursorRow is how far the entries of an ad in work are put.
type cursorRow struct {
	ad     cid.Cid
	id     uint64 // record ID of the generation the postings went to
	first  Position
	puts   uint64
	cursor []byte // the caller's
}

func (w cursorRow) encode() []byte {
	b := appendCID(nil, w.ad)
	b = binary.AppendUvarint(b, w.id)
	b = appendPos(b, w.first)
	b = binary.AppendUvarint(b, w.puts)
	return appendString(b, string(w.cursor))
}

func decodeCursor(b []byte) (cursorRow, error) {
	r := &reader{b: b}
	w := cursorRow{ad: r.cid(), id: r.uvarint(), first: r.pos(), puts: r.uvarint(), cursor: r.bytes(MaxCursorBytes)}
	if !w.ad.Defined() || w.id == 0 {
		r.fail()
	}
	return w, r.done("cursor")
}

// decodeNumber decodes the number of a peer.
func decodeNumber(b []byte) (uint32, error) {
	r := &reader{b: b}
	n := r.number()
	return n, r.done("number of a peer")
}

// decodePeer decodes the peer of a number.
func decodePeer(b []byte) (peer.ID, error) {
	if len(b) == 0 || len(b) > maxPeerBytes {
		return "", fmt.Errorf("decode peer of %d bytes: %w", len(b), ErrCorrupt)
	}
	return peer.ID(b), nil
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

// totals are the counts behind Stats.
type totals struct {
	postings, records uint64
	dead              uint64 // postings of removed record IDs, not reclaimed
	lastPeer          uint32 // number given out last
}

func (w totals) encode() []byte {
	b := binary.AppendUvarint(binary.AppendUvarint(nil, w.postings), w.records)
	return binary.AppendUvarint(binary.AppendUvarint(b, w.dead), uint64(w.lastPeer))
}

func decodeTotals(b []byte) (totals, error) {
	r := &reader{b: b}
	w := totals{postings: r.uvarint(), records: r.uvarint(), dead: r.uvarint()}
	last := r.uvarint()
	if last > math.MaxUint32 {
		r.fail()
	}
	w.lastPeer = uint32(last)
	return w, r.done("totals")
}
