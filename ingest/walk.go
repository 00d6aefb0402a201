package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
	"github.com/signpost-index/signpost/store"
)

const (
	// scanBatch ads are written at once, or those of scanDelay.
	scanBatch = 512
	scanDelay = 100 * time.Millisecond
	// leastWalk ads are passed before a walk gives way, so that announces without
	// end do not stop it.
	leastWalk = 16
	// maxKnown bounds the heads a session remembers besides the ledger: more than
	// there are gaps, so that these fit in.
	maxKnown = 4 * maxScans
	// maxScans bounds the gaps of one chain that are kept.
	maxScans = 1000
)

// walkFromHead walks back from a head that was not seen before. Positions run
// downward from one stride above everything known of the publisher.
func (s *session) walkFromHead(ctx context.Context, head cid.Cid, t target) error {
	if known, err := s.isKnown(head); known || err != nil {
		return err
	}
	if err := s.forgetHeads(); err != nil {
		return err
	}
	top, err := s.top()
	if err != nil {
		return err
	}
	w := s.newWalk(store.Scan{Next: head, Pos: top + positionStride, Depth: t.depth})
	w.fromHead = true
	if err := w.run(ctx); err != nil {
		return err
	}
	s.known[head] = true
	return s.promoteAddr()
}

// forgetHeads bounds what a long session remembers: the newest ad is enough.
func (s *session) forgetHeads() error {
	if len(s.known) < maxKnown {
		return nil
	}
	clear(s.known)
	if err := s.recall(); err != nil {
		return err
	}
	_, err := s.dueWalks()
	return err
}

// top is the highest position in use: that of the newest ad, or of a gap above;
// or of what was forgotten.
func (s *session) top() (store.Position, error) {
	return s.i.cfg.Store.Top(s.publisher)
}

// walk is one walk back along a chain, from a place to a known ad or the
// genesis. It records what it passes as pending, together with the place it has
// come to: nothing above a gap counts as the chain's end.
type walk struct {
	s    *session
	at   store.Scan     // goes on here
	row  store.Position // of the place recorded on disk; 0: none is
	last bool           // the depth ends at it

	fromHead bool // it began at a head, not at a place recorded

	lane    *lane // applies removals
	jobs    []job // passed and not on disk, newest first
	flushed time.Time
	streams bool // ads were given to the lanes before the walk was over
}

func (s *session) newWalk(at store.Scan) *walk {
	return &walk{s: s, at: at, flushed: time.Now(), lane: &lane{session: s}}
}

// goOn is a walk from a place recorded on disk.
func (s *session) goOn(sc store.Scan) *walk {
	w := s.newWalk(sc)
	w.row = sc.Pos
	delete(s.known, sc.Next)
	return w
}

// run walks. An ad that is missing or does not decode is a gap: it ends the
// walk, which is tried again later, and is no error. Nor is the end of a time
// slice, or a new head, which comes first: the walk goes on afterwards.
func (w *walk) run(ctx context.Context) error {
	s := w.s
	for n := 0; ; n++ {
		known, err := false, error(nil)
		if w.at.Next.Defined() {
			known, err = s.isKnown(w.at.Next)
		}
		switch {
		case err != nil:
			return errors.Join(w.flush(ctx, false), err)
		case !w.at.Next.Defined() || known:
			return w.flush(ctx, true)
		case w.last:
			if err := s.i.cfg.Store.SetMark(s.publisher, store.AdRef{Ad: w.at.Next, Pos: w.at.Pos}); err != nil {
				return err
			}
			return w.flush(ctx, true)
		case n == s.i.maxWalk:
			return w.stuck(ctx, fmt.Errorf("%w: more than %d ads in one walk, it goes on later", errOverBudget, n))
		case n >= leastWalk && (s.feed.over() || s.w.wantsTarget()):
			return w.flush(ctx, false)
		}
		ad, block, err := s.loadAd(ctx, w.at.Next)
		if err != nil {
			return w.stuck(ctx, err)
		}
		w.pass(ad, block)
		if w.at.Next.Defined() && (len(w.jobs) == scanBatch || time.Since(w.flushed) > scanDelay) {
			if err := w.flush(ctx, false); err != nil {
				return err
			}
		}
	}
}

func (w *walk) pass(ad *schema.Advertisement, block []byte) {
	ref := store.AdRef{Ad: w.at.Next, Prev: ad.PreviousID, Pos: w.at.Pos}
	w.jobs = append(w.jobs, job{PendingAd: store.PendingAd{AdRef: ref}, ad: ad, raw: w.s.i.toMirror(block), bytes: len(block)})
	w.s.use(1, 0)
	w.s.st.scanned(ref.Ad)
	w.s.i.metrics.adsWalked.Inc()
	w.s.i.stages.scanned(ref.Ad)
	w.at = store.Scan{Next: ad.PreviousID, Pos: w.at.Pos - 1, Depth: w.at.Depth}
	if w.at.Depth > 0 {
		w.at.Depth--
		w.last = w.at.Depth == 0
	}
}

// flush records what was passed; done says that the walk is over. Then it
// applies the removals among it, so that ads they supersede cost nothing, and
// gives the rest to the lanes: in the order of the chain if the whole walk is
// at hand, else newest first.
func (w *walk) flush(ctx context.Context, done bool) error {
	s, jobs := w.s, w.jobs
	w.jobs, w.flushed = nil, time.Now()
	if len(jobs) == 0 && !done && w.row == w.at.Pos {
		return nil
	}
	s.feed.expect(jobs)
	err := w.record(jobs, done)
	if err == nil {
		jobs, err = w.remove(ctx, jobs)
	}
	if err != nil {
		s.feed.push(nil, false)
		s.feed.look()
		return err
	}
	if done && !w.streams {
		slices.Reverse(jobs)
	}
	if w.fromHead && !w.streams {
		s.hasNewHead()
	}
	s.feed.push(jobs, w.fromHead && !w.streams)
	w.streams = true
	s.grow(ctx)
	return nil
}

func (w *walk) record(jobs []job, done bool) error {
	var next *store.Scan
	if !done {
		next = &store.Scan{Next: w.at.Next, Pos: w.at.Pos, Depth: w.at.Depth}
	}
	refs := make([]store.AdRef, len(jobs))
	for n, j := range jobs {
		refs[n] = j.AdRef
	}
	if err := w.s.i.cfg.Store.AddScanned(w.s.publisher, refs, w.row, next); err != nil {
		return fmt.Errorf("record %d scanned ads of %s: %w", len(refs), w.s.publisher, err)
	}
	w.s.i.handed.ask()
	w.row = 0
	if next != nil {
		w.row = next.Pos
	}
	return nil
}

// remove applies the removals and returns the other jobs.
func (w *walk) remove(ctx context.Context, jobs []job) ([]job, error) {
	for _, j := range jobs {
		if !j.ad.IsRm {
			continue
		}
		if err := w.lane.apply(ctx, j); err != nil {
			return nil, fmt.Errorf("apply removal %s of %s: %w", j.Ad, w.s.publisher, err)
		}
	}
	return slices.DeleteFunc(jobs, func(j job) bool { return j.ad.IsRm }), nil
}

// stuck ends a walk at an ad that could not be loaded.
func (w *walk) stuck(ctx context.Context, err error) error {
	s := w.s
	if ferr := w.flush(ctx, false); ferr != nil || ctx.Err() != nil {
		return errors.Join(ferr, ctx.Err())
	}
	k := kindOf(err)
	switch k {
	case troubleOurs:
		return err
	case troubleWay:
		return errAway{err}
	}
	scans, serr := s.i.cfg.Store.Scans(s.publisher)
	if serr != nil {
		return serr
	}
	trouble := worse(troubleAt(scans, w.at.Pos), err, k, time.Now(), s.i.cfg.AdRetryMin, s.i.cfg.AdRetryMax)
	if err := s.i.cfg.Store.SetScanTrouble(s.publisher, w.at.Pos, trouble); err != nil {
		return err
	}
	if len(scans) > maxScans {
		if err := s.i.cfg.Store.DropScan(s.publisher, scans[len(scans)-1].Pos); err != nil {
			return err
		}
	}
	s.known[w.at.Next] = true
	s.i.metrics.gaps.Inc()
	s.i.log.Warn("chain has a gap", "publisher", s.publisher, "ad", w.at.Next, "in", time.Until(trouble.Next), "attempts", trouble.Attempts, "err", err)
	return s.gap(err)
}

// gap notes the gap as the publisher's last error.
func (s *session) gap(err error) error {
	return s.i.cfg.Store.SetError(s.publisher, "chain has a gap: "+err.Error(), time.Now())
}

// troubleAt is what the walk that goes on at pos has met before.
func troubleAt(scans []store.Scan, pos store.Position) store.Trouble {
	for _, sc := range scans {
		if sc.Pos == pos {
			return sc.Trouble
		}
	}
	return store.Trouble{}
}

// loadAd returns the decoded ad, hash-checked, its signature not yet verified,
// and its block.
func (s *session) loadAd(ctx context.Context, c cid.Cid) (*schema.Advertisement, []byte, error) {
	if block, ok := s.mirrorAd(ctx, c); ok {
		if ad, err := schema.DecodeAdvertisement(c, block); err == nil {
			return ad, block, nil
		}
	}
	block, err := s.fetch(ctx, c, ipnisync.HintAdvertisement)
	if err != nil {
		return nil, nil, fmt.Errorf("fetch ad %s from %s: %w", c, s.publisher, err)
	}
	defer block.Release()
	end, err := s.i.turns.takeFor(ctx, s.publisher, len(block.Bytes))
	if err != nil {
		return nil, nil, err
	}
	defer end()
	ad, err := schema.DecodeAdvertisement(c, block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("ad %s from %s: %w", c, s.publisher, err)
	}
	return ad, block.Bytes, nil
}
