package store

import (
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

// joinGeneration returns the record ID and first position of the generation
// an ad's postings go to; 0 if a removal newer than the ad was applied.
func (t *tx) joinGeneration(ad Ad) (id uint64, first Position, err error) {
	gone, err := t.removedAbove(ad)
	if err != nil || gone {
		return 0, 0, err
	}
	first, gen, ok, err := t.generationAt(ad)
	if err != nil {
		return 0, 0, err
	}
	if ok && ad.Pos <= gen.max {
		return gen.id, first, nil
	}
	if mark := t.peek(ad.Publisher).mark; ok && ad.Prev.Defined() && ad.Prev.Equals(mark.Ad) && ad.Pos > mark.Pos {
		gen.max = ad.Pos
		return gen.id, first, t.setGeneration(ad, first, gen)
	}
	if gen.id, err = t.newID(); err != nil {
		return 0, 0, err
	}
	gen = generation{id: gen.id, max: ad.Pos}
	t.s.alive.add(gen.id)
	if err := t.set(ownerKey(gen.id), ownerRow{ad.Provider, ad.ContextID}.encode()); err != nil {
		return 0, 0, err
	}
	return gen.id, ad.Pos, t.setGeneration(ad, ad.Pos, gen)
}

// removedAbove tells whether a removal newer than the ad has taken its record.
func (t *tx) removedAbove(ad Ad) (bool, error) {
	if checkRecord(ad) != nil {
		return false, nil
	}
	var rec recordRow
	err := loadRow(t.b, contextKey(prefixRecord, ad.Provider, ad.ContextID), decodeRecord, &rec)
	return ad.Pos <= rec.seens.of(ad.Publisher).removed, err
}

// generationAt returns the generation of the ad's publisher and record with
// the highest first position not above the ad's.
func (t *tx) generationAt(ad Ad) (first Position, gen generation, ok bool, err error) {
	prefix := generationPrefix(ad.Provider, ad.ContextID, ad.Publisher)
	it, err := t.b.NewIter(bounds(prefix, keyEnd(generationKey(ad.Provider, ad.ContextID, ad.Publisher, ad.Pos))))
	if err != nil {
		return 0, generation{}, false, err
	}
	if it.Last() {
		ok = true
		var value []byte
		if value, err = it.ValueAndErr(); err == nil {
			gen, err = decodeGeneration(value)
		}
		first = Position(binary.BigEndian.Uint64(it.Key()[len(prefix):]))
	}
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	return first, gen, ok && err == nil, err
}

func (t *tx) setGeneration(ad Ad, first Position, gen generation) error {
	return t.set(generationKey(ad.Provider, ad.ContextID, ad.Publisher, first), gen.encode())
}

// endGeneration removes a generation: its postings lead nowhere any more.
func (t *tx) endGeneration(key []byte, gen generation) error {
	t.totals.postings -= min(gen.postings, t.totals.postings)
	t.dead = append(t.dead, gen.id)
	if err := t.delete(ownerKey(gen.id)); err != nil {
		return err
	}
	return t.delete(key)
}

// record applies an ad to its record.
func (c *change) record(w *AdWriter, e Effect) error {
	if checkRecord(c.ad) != nil { // check has seen to it that nothing needs it
		return nil
	}
	if e.Kind != EffectContent {
		if err := c.dropAttempt(); err != nil {
			return err
		}
	}
	if e.Kind == EffectNone {
		return nil
	}
	var rec recordRow
	if err := loadRow(c.b, contextKey(prefixRecord, c.ad.Provider, c.ad.ContextID), decodeRecord, &rec); err != nil {
		return err
	}
	held := rec.held()
	if err := c.effect(&rec, w, e); err != nil {
		return err
	}
	switch {
	case rec.held() && !held:
		c.totals.records++
	case held && !rec.held():
		c.totals.records -= min(1, c.totals.records)
	}
	return c.setRecord(c.ad.Provider, c.ad.ContextID, rec)
}

func (c *change) effect(rec *recordRow, w *AdWriter, e Effect) error {
	if e.Kind == EffectRemove {
		return c.remove(rec)
	}
	if c.gone {
		return nil
	}
	if e.Kind == EffectContent && w.id != 0 {
		if err := c.keepGeneration(w); err != nil {
			return err
		}
	}
	if e.Verdict == SkippedFrozen && !rec.held() {
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
	gen, ok, err := getRow(c.b, generationKey(c.ad.Provider, c.ad.ContextID, c.ad.Publisher, w.min), decodeGeneration)
	if err != nil {
		return err
	}
	if !ok || gen.id != w.id {
		return ErrConflict
	}
	if c.counted {
		return nil
	}
	gen.postings += w.puts
	c.totals.postings += w.puts
	return c.setGeneration(c.ad, w.min, gen)
}

// dropAttempt ends the generation that only this ad has put into, if an
// earlier attempt at it left one behind.
func (c *change) dropAttempt() error {
	first, gen, ok, err := c.generationAt(c.ad)
	if err != nil || !ok || first != c.ad.Pos || gen.max != c.ad.Pos {
		return err
	}
	return c.endGeneration(generationKey(c.ad.Provider, c.ad.ContextID, c.ad.Publisher, first), gen)
}

func (c *change) remove(rec *recordRow) error {
	pub, pos := c.ad.Publisher, c.ad.Pos
	own := rec.seens.of(pub)
	newest := !c.again && pos >= own.last && !(rec.publisher == pub && rec.pos > pos)

	prefix := contextKey(prefixGeneration, c.ad.Provider, c.ad.ContextID)
	err := scanPrefix(c.b, prefix, func(k, v []byte) error {
		_, _, by, _, err := parseGenerationKey(k)
		if err != nil {
			return err
		}
		gen, err := decodeGeneration(v)
		if err != nil {
			return err
		}
		if (by == pub && gen.max < pos) || (by != pub && newest) {
			return c.endGeneration(k, gen)
		}
		return nil
	})
	if err != nil {
		return err
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

// setRecord writes a record's row, or deletes it when it says nothing.
func (c *change) setRecord(provider peer.ID, ctx []byte, rec recordRow) error {
	key := contextKey(prefixRecord, provider, ctx)
	rec.prune(c.passed)
	if rec.held() {
		return c.set(key, rec.encode())
	}
	if len(rec.seens) == 0 {
		return c.delete(key)
	}
	if err := c.tombstones(rec.seens, provider, ctx); err != nil {
		return err
	}
	return c.set(key, rec.encode())
}

// passed returns how far a publisher's chain is done, this change included:
// positions up to there need not be remembered.
func (t *tx) passed(p peer.ID) Position { return t.peek(p).mark.Pos }

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
	w := t.peek(pub)
	swept := t.s.publisher(pub).swept
	if w.mark.Pos < swept { // the mark was moved back
		swept = 0
	}
	if w.tombs == 0 || w.mark.Pos == swept {
		return nil
	}
	var keys [][]byte
	end := keyEnd(peerPosKey(prefixTombstone, pub, w.mark.Pos))
	err := scan(t.b, peerPosKey(prefixTombstone, pub, swept+1), end, func(k, _ []byte) error {
		if keys = append(keys, append([]byte(nil), k...)); len(keys) == sweepRows {
			return errStop
		}
		return nil
	})
	if err != nil {
		return err
	}
	swept = w.mark.Pos
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
	key := contextKey(prefixRecord, provider, ctx)
	rec, ok, err := getRow(t.b, key, decodeRecord)
	if err != nil {
		return err
	}
	if ok {
		rec.prune(t.passed)
		if err := t.setOrDelete(key, rec.held() || len(rec.seens) > 0, rec.encode()); err != nil {
			return err
		}
	}
	key = contextKey(prefixExtended, provider, ctx)
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
