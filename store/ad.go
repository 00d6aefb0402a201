package store

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/store/postings"
)

// AdWriter applies one advertisement: Begin, any number of Puts, Commit. What
// was Put may be found before the Commit if its record already has metadata;
// nothing else of the ad shows. An ad that was not committed, because of an
// error or a crash, is begun again and then has the same outcome as if it had
// been written once. So is one begun before the store failed and recovered: its
// Put and Commit give ErrFailed.
//
// An AdWriter is used by one goroutine. Any number of them may be at work at a
// time, also for ads of one publisher, which may be committed in any order: but
// only one for an ad, and only one for a record among those of a publisher.
// Writers of different publishers may write the same record.
type AdWriter struct {
	s    *Store
	life uint64 // of the store, when the ad was begun
	ad   Ad

	prepared bool
	id       uint64   // record ID of the generation joined; 0: nothing may be added any more
	min      Position // the generation's first position
	puts     uint64   // distinct multihashes put

	ended   bool
	verdict Verdict // recorded by Commit
	fresh   bool    // the record was not held before
}

var errEnded = errors.New("ad writer was committed or aborted")

// Begin starts writing ad. It writes nothing yet. ErrInvalid says what cannot
// be of any ad; Provider, ContextID and Metadata are judged when they are
// used. It does not keep the slices of ad.
func (s *Store) Begin(ad Ad) (*AdWriter, error) {
	if err := s.enterWrite(); err != nil {
		return nil, err
	}
	defer s.exit()
	if err := checkPeer("publisher", ad.Publisher); err != nil {
		return nil, err
	}
	if err := checkRef(ad.AdRef); err != nil {
		return nil, err
	}
	ad.ContextID = slices.Clone(ad.ContextID)
	ad.Metadata = slices.Clone(ad.Metadata)
	return &AdWriter{s: s, life: s.lives, ad: ad}, nil
}

// Put adds multihashes to the ad's record. It keeps neither mhs nor what it
// holds. Repetition is harmless. ErrFrozen and ErrNoSpace come at once and add
// nothing; ErrInvalid if a multihash is too long, before anything is added.
func (w *AdWriter) Put(mhs []multihash.Multihash) error {
	if w.ended {
		return errEnded
	}
	if err := w.enter(); err != nil {
		return err
	}
	defer w.s.exit()
	for _, mh := range mhs {
		if err := checkMultihash(mh); err != nil {
			return err
		}
	}
	err := w.put(mhs)
	if err != nil && !errors.Is(err, ErrFrozen) {
		err = fmt.Errorf("put %d multihashes of ad %s: %w", len(mhs), w.ad.Ad, err)
	}
	return err
}

func (w *AdWriter) put(mhs []multihash.Multihash) error {
	err := w.whileThawed(func() error {
		if err := w.s.space.admit(len(mhs) * len(postings.Hash{})); err != nil {
			return err
		}
		return w.prepare(len(mhs))
	})
	if err != nil || w.id == 0 {
		return err
	}
	buf := putBuffers.Get().(*putBuffer)
	defer buf.release()
	buf.hs = w.s.index.HashAll(buf.hs[:0], mhs)
	hs := buf.dedupe()
	err = w.whileThawed(func() error {
		err := w.s.logPostings(w.id, hs)
		if failed := w.s.disk.err(); failed != nil {
			return failed
		}
		return err
	})
	if err != nil {
		return err
	}
	w.puts += uint64(len(hs))
	w.s.metrics.puts.Add(float64(len(hs)))
	return nil
}

// whileThawed runs fn unless the latch is set, and keeps it from being set
// meanwhile.
func (w *AdWriter) whileThawed(fn func() error) error {
	w.s.latch.RLock()
	defer w.s.latch.RUnlock()
	if w.s.latched || w.s.held[w.ad.Publisher] {
		return ErrFrozen
	}
	return fn()
}

// prepare finds or makes the generation the ad belongs to, on the first Put.
// Its row is written before any posting that carries its ID.
func (w *AdWriter) prepare(mhs int) error {
	if w.prepared || mhs == 0 {
		return nil
	}
	if err := checkRecord(w.ad); err != nil {
		return err
	}
	_, err := w.s.update(func(t *tx) (err error) {
		if err := t.checkEpoch(w.ad); err != nil {
			return err
		}
		w.id, w.min, err = t.joinGeneration(w.ad)
		return err
	})
	w.prepared = err == nil
	return err
}

// Abort gives the ad up. What was Put stays and is used when the ad is begun
// again. Abort after Commit does nothing, so it can be deferred.
func (w *AdWriter) Abort() {
	w.ended = true
}

// Commit makes the ad's effect visible and records it as done, all in one
// atomic batch, durable when Durable has reached the returned number. After an
// error nothing of it has happened and the ad can be begun again; ErrConflict
// says that it must be, as its multihashes are lost. Committing an ad that was
// committed before changes nothing but its ledger entry; ads at or below the
// mark that are applied again, or after all, are applied oldest first.
//
// Content is refused with ErrFrozen as Put refuses it, even if all Puts were in
// before; removals, metadata and addresses go on while frozen.
func (w *AdWriter) Commit(e Effect) (Seq, error) {
	if w.ended {
		return 0, errEnded
	}
	if err := w.enter(); err != nil {
		return 0, err
	}
	defer w.s.exit()
	if err := w.check(e); err != nil {
		return 0, err
	}
	w.Abort()
	w.verdict = e.Verdict
	seq, err := w.s.update(func(t *tx) error { return t.commitAd(w, e) })
	if err != nil {
		return 0, fmt.Errorf("commit ad %s of %s: %w", w.ad.Ad, w.ad.Publisher, err)
	}
	w.s.metrics.commits.WithLabelValues(w.verdict.String()).Inc()
	return seq, nil
}

// Verdict is what Commit recorded: that of its Effect, or SkippedFrozen.
func (w *AdWriter) Verdict() Verdict { return w.verdict }

// Fresh tells, of an ad that was committed, whether its record was not held
// before.
func (w *AdWriter) Fresh() bool { return w.fresh }

func (w *AdWriter) check(e Effect) error {
	switch e.Verdict {
	case Applied:
	case Superseded, Rejected:
		if e.Kind != EffectNone {
			return fmt.Errorf("verdict %s with an effect: %w", e.Verdict, ErrInvalid)
		}
	case SkippedFrozen, MarkedDone:
		if e.Kind != EffectMetadata && e.Kind != EffectNone {
			return fmt.Errorf("verdict %s with effect %d: %w", e.Verdict, e.Kind, ErrInvalid)
		}
	default:
		return fmt.Errorf("verdict %s cannot be committed: %w", e.Verdict, ErrInvalid)
	}
	if e.Kind > EffectRemove {
		return fmt.Errorf("effect %d: %w", e.Kind, ErrInvalid)
	}
	if e.Kind != EffectNone || e.Provider != nil {
		if err := checkRecord(w.ad); err != nil {
			return err
		}
	}
	if e.Provider != nil {
		return checkUpdate(*e.Provider)
	}
	return nil
}

// commitAd does everything of one Commit. Progress is worked out before the
// rows are written, as they forget what the mark has passed.
func (t *tx) commitAd(w *AdWriter, e Effect) error {
	now := time.Now()
	ad := w.ad
	if err := t.checkEpoch(ad); err != nil {
		return err
	}
	if err := t.checkTakes(ad, e); err != nil {
		return err
	}
	c := &change{tx: t, ad: ad, again: ad.Pos <= t.peek(ad.Publisher).mark.Pos}
	if err := c.loadRecord(); err != nil {
		return err
	}
	w.fresh = !c.rec.held()
	known, err := t.done(ad.Publisher, ad.AdRef, now)
	if err != nil {
		return err
	}
	pub, err := t.makeNumber(ad.Publisher)
	if err != nil {
		return err
	}
	prior, ok, err := getRow(t.b, t.s.ledgerKey(ad.Ad), decodeLedger)
	if err != nil {
		return err
	}
	others, err := t.standsForOther(pub, ad.Ad, prior)
	if err != nil {
		return err
	}
	prior.forget(t, ad.Publisher, pub)
	c.counted = ok && prior.verdict == Applied && prior.publisher == pub || others && known
	if e.Kind == EffectContent && w.puts > 0 {
		t.progress(ad.Publisher).mhs += w.puts
	}
	if err := t.dropElsewhere(ad.Publisher, ad.Ad); err != nil {
		return err
	}
	if e.HeldOnly || e.Verdict == SkippedFrozen {
		if e, err = c.onlyHeld(e); err != nil {
			return err
		}
		w.verdict = e.Verdict
	}
	if err := c.changeRecord(w, e); err != nil {
		return err
	}
	if e.Provider != nil {
		if err := c.provider(*e.Provider, now); err != nil {
			return err
		}
	}
	if err := t.sweep(ad.Publisher); err != nil {
		return err
	}
	if err := t.dropCursor(ad.Publisher, ad.Pos); err != nil {
		return err
	}
	if err := t.dropAgain(ad.Publisher, ad.Pos); err != nil || others {
		return err
	}
	return t.setLedger(ad.Ad, ledgerRow{pub, ad.Pos, e.Verdict, now, e.Reason})
}

// onlyHeld is the part of an effect that is about what is held.
func (c *change) onlyHeld(e Effect) (Effect, error) {
	known, err := c.has(peerKey(prefixProvider, c.ad.Provider))
	if err != nil {
		return e, err
	}
	if !known {
		e.Provider = nil
	}
	if e.Verdict == Applied && (e.Kind == EffectMetadata && !c.rec.held() || e.Kind == EffectNone && !known) {
		e.Verdict = SkippedFrozen
	}
	if e.Provider == nil || e.Provider.Extended == nil || len(c.ad.ContextID) == 0 || c.rec.held() {
		return e, nil
	}
	if known, err = c.has(contextKey(prefixExtended, c.ad.Provider, c.ad.ContextID)); err != nil || known {
		return e, err
	}
	u := *e.Provider
	u.Extended, e.Provider = nil, &u
	return e, nil
}

// change is the effect of one ad on the rows.
type change struct {
	*tx
	ad      Ad
	pub     uint32 // number of the ad's publisher; 0: the ad is about no record
	id      uint64 // of rec; 0: there is none yet
	rec     recordRow
	again   bool // at or below the mark: applied a second time
	gone    bool // a removal of its record newer than the ad was applied
	counted bool // its postings are in the counts already
}
