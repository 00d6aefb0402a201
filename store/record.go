package store

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
)

// The rules by which the outcome is that of applying each publisher's ads from
// oldest to newest, whatever the order of work:
//
//   - Metadata is a register: see register.
//   - Postings belong to a generation of their publisher, an interval of
//     positions no removal falls into. An ad joins the generation before it
//     only when everything older is done; otherwise a removal may still come
//     to stand between, and it gets one of its own.
//   - A removal at p ends its publisher's generations below p and remembers p
//     until the mark has passed it: an older ad applied later has no effect.
//   - Between publishers the order of application counts. A removal that is
//     the newest of its publisher takes what all others did so far with it,
//     and what they did that far stays removed; one that is not counts as
//     applied just before the newer one, and leaves the others alone.
//
//	 publisher's positions   2   4       6       9
//	 applied in the order    1.  2.      4.      3.      6 is a removal
//	 generations            [2───4]              [9]     2–4 ended by 6, 9 stays

// recordID returns the ID of a record's row; 0 if there is none.
func (t *tx) recordID(provider peer.ID, ctx []byte) (uint64, error) {
	n, err := t.providerNumber(provider)
	if err != nil || n == 0 {
		return 0, err
	}
	id, _, err := getRow(t.b, t.s.recordIDKey(n, ctx), decodeID)
	return id, err
}

// record returns the record of (provider, context) and its ID; ID 0 and an
// empty record if there is none.
func (t *tx) record(provider peer.ID, ctx []byte) (uint64, recordRow, error) {
	id, err := t.recordID(provider, ctx)
	if err != nil || id == 0 {
		return 0, recordRow{}, err
	}
	rec, ok, err := t.recordOf(id)
	if err == nil && (!ok || !bytes.Equal(rec.ctx, ctx)) {
		err = fmt.Errorf("record %d of %s is not that of its context: %w", id, provider, ErrCorrupt)
	}
	return id, rec, err
}

// recordOf reads the row of a record ID.
func (t *tx) recordOf(id uint64) (recordRow, bool, error) {
	rec, ok, err := getRow(t.b, idKey(prefixRecord, id), func(b []byte) (recordRow, error) { return decodeRecord(id, b) })
	if ok && rec.held() {
		rec.publisher, err = t.s.peers.name(t.b, rec.by)
	}
	return rec, ok, err
}

// newRecord gives a record there is none of its ID, and the row that leads to
// it.
func (t *tx) newRecord(rec *recordRow, provider peer.ID, ctx []byte) (id uint64, err error) {
	if rec.provider, err = t.makeProviderNumber(provider); err != nil {
		return 0, err
	}
	if id, err = t.newID(); err != nil {
		return 0, err
	}
	rec.ctx = ctx
	return id, t.set(t.s.recordIDKey(rec.provider, ctx), binary.AppendUvarint(nil, id))
}

// writeRecord writes a record's row.
func (t *tx) writeRecord(id uint64, rec recordRow) (err error) {
	rec.by = 0
	if rec.held() {
		if rec.by, err = t.makeNumber(rec.publisher); err != nil {
			return err
		}
	}
	return t.set(idKey(prefixRecord, id), rec.encode())
}

// dropRecord deletes the rows of a record that says nothing any more.
func (t *tx) dropRecord(id uint64, rec recordRow) error {
	if err := t.delete(t.s.recordIDKey(rec.provider, rec.ctx)); err != nil {
		return err
	}
	return t.delete(idKey(prefixRecord, id))
}

// empty tells whether the record says nothing any more.
func (w recordRow) empty() bool {
	return !w.held() && len(w.seens) == 0 && w.own.id == 0 && w.others == 0
}

// joinGeneration returns the record ID and first position of the generation
// an ad's postings go to; 0 if a removal newer than the ad was applied.
func (t *tx) joinGeneration(ad Ad) (id uint64, first Position, err error) {
	recID, rec, err := t.record(ad.Provider, ad.ContextID)
	if err != nil || ad.Pos <= rec.seens.of(ad.Publisher).removed {
		return 0, 0, err
	}
	pub, err := t.makeNumber(ad.Publisher)
	if err != nil {
		return 0, 0, err
	}
	gen, ok, err := t.generationAt(recID, rec, pub, ad.Pos)
	if err != nil {
		return 0, 0, err
	}
	if ok && ad.Pos <= gen.max {
		return gen.id, gen.first, nil
	}
	if mark := t.peek(ad.Publisher).mark; ok && ad.Prev.Defined() && ad.Prev.Equals(mark.Ad) && ad.Pos > mark.Pos {
		gen.max = ad.Pos
		return gen.id, gen.first, t.setGeneration(recID, rec, gen)
	}
	gen = generation{publisher: pub, first: ad.Pos, max: ad.Pos}
	if recID == 0 {
		if recID, err = t.newRecord(&rec, ad.Provider, ad.ContextID); err != nil {
			return 0, 0, err
		}
		rec.own = gen
		rec.own.id = recID
		return recID, ad.Pos, t.writeRecord(recID, rec)
	}
	if gen.id, err = t.newID(); err != nil {
		return 0, 0, err
	}
	rec.others++
	if err := t.set(idKey(prefixRecord, gen.id), encodeForward(recID)); err != nil {
		return 0, 0, err
	}
	if err := t.writeRecord(recID, rec); err != nil {
		return 0, 0, err
	}
	return gen.id, ad.Pos, t.setGeneration(recID, rec, gen)
}

// generationAt returns the generation of a publisher and record with the
// highest first position not above pos.
func (t *tx) generationAt(recID uint64, rec recordRow, pub uint32, pos Position) (gen generation, ok bool, err error) {
	if own := rec.own; own.id != 0 && own.publisher == pub && own.first <= pos {
		gen, ok = own, true
	}
	if rec.others == 0 {
		return gen, ok, nil
	}
	it, err := t.b.NewIter(bounds(generationPrefix(recID, pub), keyEnd(generationKey(recID, pub, pos))))
	if err != nil {
		return generation{}, false, err
	}
	if it.Last() {
		var other generation
		var value []byte
		if value, err = it.ValueAndErr(); err == nil {
			_, other, err = decodeGenerationRow(it.Key(), value)
		}
		if !ok || other.first > gen.first {
			gen, ok = other, true
		}
	}
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	return gen, ok && err == nil, err
}

// generation returns the generation of a publisher and record that begins at
// first.
func (t *tx) generation(recID uint64, rec recordRow, pub uint32, first Position) (gen generation, ok bool, err error) {
	gen, ok, err = t.generationAt(recID, rec, pub, first)
	return gen, ok && gen.first == first, err
}

// setGeneration writes a generation that is there already: into its record, or
// into its own row.
func (t *tx) setGeneration(recID uint64, rec recordRow, gen generation) error {
	if gen.id == recID {
		rec.own = gen
		return t.writeRecord(recID, rec)
	}
	return t.set(generationKey(recID, gen.publisher, gen.first), gen.encode())
}

// endGeneration removes a generation: its postings lead nowhere any more. The
// caller writes the record.
func (t *tx) endGeneration(recID uint64, rec *recordRow, gen generation) error {
	t.totals.postings -= min(gen.postings, t.totals.postings)
	t.totals.dead += gen.postings
	t.dead = append(t.dead, gen.id)
	if err := t.set(idKey(prefixDead, gen.id), binary.AppendUvarint(nil, gen.postings)); err != nil {
		return err
	}
	if gen.id == recID {
		rec.own = generation{}
		return nil
	}
	if rec.others == 0 {
		return fmt.Errorf("record %d has more generations than it counts: %w", recID, ErrCorrupt)
	}
	rec.others--
	if err := t.delete(idKey(prefixRecord, gen.id)); err != nil {
		return err
	}
	return t.delete(generationKey(recID, gen.publisher, gen.first))
}

// generations calls fn for every generation of a record. fn may end it.
func (t *tx) generations(recID uint64, rec recordRow, fn func(generation) error) error {
	if rec.own.id != 0 {
		if err := fn(rec.own); err != nil {
			return err
		}
	}
	if rec.others == 0 {
		return nil
	}
	return scanPrefix(t.b, idKey(prefixGeneration, recID), func(k, v []byte) error {
		_, gen, err := decodeGenerationRow(k, v)
		if err != nil {
			return err
		}
		return fn(gen)
	})
}

// loadRecord reads the record the ad is about.
func (c *change) loadRecord() (err error) {
	if checkRecord(c.ad) != nil { // check has seen to it that nothing needs it
		return nil
	}
	if c.pub, err = c.makeNumber(c.ad.Publisher); err != nil {
		return err
	}
	c.id, c.rec, err = c.record(c.ad.Provider, c.ad.ContextID)
	c.gone = c.ad.Pos <= c.rec.seens.of(c.ad.Publisher).removed
	return err
}

// changeRecord applies an ad to its record.
func (c *change) changeRecord(w *AdWriter, e Effect) error {
	if c.pub == 0 || (e.Kind == EffectNone && c.id == 0) {
		return nil
	}
	if e.Kind != EffectContent && c.id != 0 {
		if err := c.dropAttempt(); err != nil {
			return err
		}
	}
	held := c.rec.held()
	if err := c.effect(w, e); err != nil {
		return err
	}
	switch {
	case c.rec.held() && !held:
		c.totals.records++
	case held && !c.rec.held():
		c.totals.records -= min(1, c.totals.records)
	}
	return c.setRecord()
}

func (c *change) effect(w *AdWriter, e Effect) error {
	switch {
	case e.Kind == EffectNone:
		return nil
	case e.Kind == EffectRemove:
		return c.remove()
	case c.gone:
		return nil
	}
	if e.Kind == EffectContent && w.id != 0 {
		if err := c.keepGeneration(w); err != nil {
			return err
		}
	}
	rec := &c.rec
	if e.Verdict != Applied && !rec.held() {
		return nil
	}
	if rec.accepts(c.ad.Publisher, c.ad.Pos, c.again) {
		rec.publisher, rec.pos, rec.metadata = c.ad.Publisher, c.ad.Pos, c.ad.Metadata
	}
	rec.note(c.ad.Publisher, c.ad.Pos)
	return nil
}

// keepGeneration checks that what was put still counts, and counts it.
func (c *change) keepGeneration(w *AdWriter) error {
	gen, ok, err := c.generation(c.id, c.rec, c.pub, w.min)
	if err != nil {
		return err
	}
	if !ok || gen.id != w.id {
		return ErrConflict
	}
	// A generation made for this ad alone that counts nothing is new, also if
	// the ad was applied before.
	if c.counted && !(gen.first == gen.max && gen.postings == 0) {
		return nil
	}
	gen.postings += w.puts
	c.totals.postings += w.puts
	if gen.id == c.id {
		c.rec.own = gen
		return nil
	}
	return c.setGeneration(c.id, c.rec, gen)
}

// dropAttempt ends the generation that only this ad has put into, if an
// earlier attempt at it left one behind.
func (c *change) dropAttempt() error {
	gen, ok, err := c.generation(c.id, c.rec, c.pub, c.ad.Pos)
	if err != nil || !ok || gen.max != c.ad.Pos {
		return err
	}
	return c.endGeneration(c.id, &c.rec, gen)
}

func (c *change) remove() error {
	pub, pos, rec := c.ad.Publisher, c.ad.Pos, &c.rec
	own := rec.seens.of(pub)
	newest := !c.again && pos >= own.last && !(rec.publisher == pub && rec.pos > pos)

	var ended []generation
	err := c.generations(c.id, *rec, func(gen generation) error {
		if (gen.publisher == c.pub && gen.max < pos) || (gen.publisher != c.pub && newest) {
			ended = append(ended, gen)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, gen := range ended {
		if err := c.endGeneration(c.id, rec, gen); err != nil {
			return err
		}
	}
	if (rec.publisher == pub && rec.pos <= pos) || (rec.publisher != pub && newest) {
		rec.publisher, rec.pos, rec.metadata = "", 0, nil
	}
	if newest {
		for i := range rec.seens {
			rec.seens[i].removed = rec.seens[i].last
		}
	}
	own.last, own.removed = max(own.last, pos), max(own.removed, pos)
	rec.seens.set(own)
	return c.removeExtended()
}

// setRecord writes the record's row, or deletes it when it says nothing.
func (c *change) setRecord() (err error) {
	c.rec.prune(c.passed)
	switch {
	case c.rec.empty() && c.id == 0:
		return nil
	case c.rec.empty():
		return c.dropRecord(c.id, c.rec)
	case c.id == 0:
		if c.id, err = c.newRecord(&c.rec, c.ad.Provider, c.ad.ContextID); err != nil {
			return err
		}
	}
	if !c.rec.held() && len(c.rec.seens) > 0 {
		if err := c.tombstones(c.rec.seens, c.ad.Provider, c.ad.ContextID); err != nil {
			return err
		}
	}
	return c.writeRecord(c.id, c.rec)
}

// passed returns how far a publisher's chain is done, this change included:
// positions up to there need not be remembered. An ad that is to be applied
// again needs to know of all removals above it.
func (t *tx) passed(p peer.ID) Position {
	w := t.peek(p)
	passed := w.mark.Pos
	if w.again > 0 {
		passed = min(passed, w.againFrom-1)
	}
	if r, ok := t.s.redo[p]; ok { // more may be noted
		passed = min(passed, r.floor())
	}
	return passed
}

// tombstones remembers for rows that hold nothing but positions when they can
// go: when the marks of all their publishers have passed.
func (t *tx) tombstones(ss seens, provider peer.ID, ctx []byte) error {
	for _, s := range ss {
		key := tombstoneKey(s.publisher, s.last, provider, ctx)
		known, err := t.has(key)
		if err != nil {
			return err
		}
		if known {
			continue
		}
		t.progress(s.publisher).tombs++
		if err := t.set(key, nil); err != nil {
			return err
		}
	}
	return nil
}

// sweepRows bounds the tidying one commit does.
const sweepRows = 64

// sweep tidies up, for a few tombstones the publisher's mark has passed, the
// rows they point to.
func (t *tx) sweep(pub peer.ID) error {
	w, passed := t.peek(pub), t.passed(pub)
	swept := t.s.publisher(pub).swept
	if passed < swept { // the mark was moved back, or older ads are applied again
		swept = 0
	}
	if w.tombs == 0 || passed == swept {
		return nil
	}
	var keys [][]byte
	end := keyEnd(peerPosKey(prefixTombstone, pub, passed))
	err := scan(t.b, peerPosKey(prefixTombstone, pub, swept+1), end, func(k, _ []byte) error {
		if keys = append(keys, append([]byte(nil), k...)); len(keys) == sweepRows {
			return errStop
		}
		return nil
	})
	if err != nil {
		return err
	}
	swept = passed
	for i, k := range keys {
		_, pos, provider, ctx, err := parseTombstoneKey(k)
		if err != nil {
			return err
		}
		if i == sweepRows-1 {
			swept = pos - 1
		}
		if err := t.tidy(provider, ctx); err != nil {
			return err
		}
		if err := t.delete(k); err != nil {
			return err
		}
	}
	p := t.progress(pub)
	p.tombs -= min(uint64(len(keys)), p.tombs)
	t.after(func() { t.s.setSwept(pub, swept) })
	return nil
}

// tidy prunes the rows of a context and deletes those that say nothing more.
func (t *tx) tidy(provider peer.ID, ctx []byte) error {
	id, rec, err := t.record(provider, ctx)
	if err != nil {
		return err
	}
	if id != 0 {
		rec.prune(t.passed)
		if rec.empty() {
			err = t.dropRecord(id, rec)
		} else {
			err = t.writeRecord(id, rec)
		}
		if err != nil {
			return err
		}
	}
	key := contextKey(prefixExtended, provider, ctx)
	ext, ok, err := getRow(t.b, key, decodeExtended)
	if err != nil || !ok {
		return err
	}
	ext.prune(t.passed)
	return t.setOrDelete(key, ext.held() || len(ext.seens) > 0, ext.encode())
}

func (t *tx) setOrDelete(key []byte, set bool, value []byte) error {
	if set {
		return t.set(key, value)
	}
	return t.delete(key)
}

func checkRecord(ad Ad) error {
	if err := checkPeer("provider", ad.Provider); err != nil {
		return err
	}
	if len(ad.ContextID) > MaxContextIDBytes {
		return fmt.Errorf("context ID of %d bytes: %w", len(ad.ContextID), ErrInvalid)
	}
	if len(ad.Metadata) > MaxMetadataBytes {
		return fmt.Errorf("metadata of %d bytes: %w", len(ad.Metadata), ErrInvalid)
	}
	return nil
}
