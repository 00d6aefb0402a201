package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/ingest/schema"
	"github.com/signpost-index/signpost/store"
)

// maxRevisitAds bounds the ads one revisit looks at.
const maxRevisitAds = 10_000_000

// maxRevisitRemoved bounds the removals one revisit keeps in memory, some 50
// bytes each.
const maxRevisitRemoved = 500_000

// errTooLong ends a revisit that would not come to its end at the next try
// either.
var errTooLong = errors.New("too much to look at again, give a depth")

// contextOf stands for the provider and context of an ad.
func contextOf(ad *schema.Advertisement) (key [16]byte) {
	provider, err := ad.ProviderID()
	if err != nil {
		provider = peer.ID(ad.Provider)
	}
	sum := sha256.Sum256(append([]byte(provider+"\x00"), ad.ContextID...))
	copy(key[:], sum[:])
	return key
}

// Wishes that bear on marks (store.Revisit's Skipped and Fill) rest while
// content is not taken, and look only at ads that are not here: those skipped
// above the floor, and those below the publisher's first range, which nobody
// has passed yet. So does a wish to follow ads that another indexer has: those at
// or below where the publisher was taken over, down to where it stood here.

// revisit goes back from the newest ad over ads this node has taken on as part
// of the publisher's chain, and has those that are wished applied again, at the
// positions they have. It goes from new to old and leaves out what a newer
// removal has superseded, so the order of applying them does not matter. The
// wish is on disk; the way is not: after a restart it begins anew, and what was
// noted to be applied again by then is. Of the worker's goroutine, or of its
// session's scanner.
type revisit struct {
	wish    store.Revisit
	next    cid.Cid        // to look at
	above   store.Position // of the ad before
	n       int            // ads looked at
	wanted  map[cid.Cid]bool
	removed map[[16]byte]bool // contexts newer ads have removed
	again   []store.AdRef     // not noted yet
	met     bool              // the ad at which following ends
	trouble store.Trouble     // with next
}

// dueRevisit returns the revisit that can go on; nil: there is none.
func (s *session) dueRevisit() (*revisit, error) {
	st := s.i.cfg.Store
	wish, ok, err := st.Revisit(s.publisher)
	if err != nil {
		return nil, err
	}
	if !ok || wish.Walked || ((wish.Skipped || wish.Fill) && !st.Takes(s.publisher)) {
		s.w.revisit = nil
		return nil, nil
	}
	rv := s.w.revisit
	if rv == nil || rv.wish.Number != wish.Number {
		newest, ok, err := st.Newest(s.publisher)
		if err != nil {
			return nil, err
		}
		if !ok { // it may have no chain yet
			newest.Pos = 0
		}
		rv = &revisit{wish: wish, next: newest.Ad, above: newest.Pos + 1, wanted: make(map[cid.Cid]bool), removed: make(map[[16]byte]bool)}
		for _, ad := range wish.Ads {
			rv.wanted[ad] = true
		}
		s.w.revisit = rv
	}
	if rv.trouble.Next.After(time.Now()) || s.pub.Load() == nil {
		return nil, nil
	}
	return rv, nil
}

// revisitDue is when the revisit goes on; ok is false if there is none.
func (w *worker) revisitDue() (at time.Time, ok bool) {
	if w.revisit == nil {
		return time.Time{}, false
	}
	return w.revisit.trouble.Next, true
}

// run goes on until it is done, the time slice is over, or a new head comes.
func (rv *revisit) run(ctx context.Context, s *session) error {
	for n := 0; ; n++ {
		if n >= leastWalk && (s.feed.over() || s.w.wantsTarget()) {
			return rv.note(s)
		}
		done, err := rv.step(ctx, s)
		switch {
		case err == nil && !done:
			rv.trouble = store.Trouble{}
		case err == nil, errors.Is(err, errTooLong):
			return rv.end(s, err)
		default:
			return rv.stuck(ctx, s, err)
		}
	}
}

// step looks at one ad; done: there is none left.
func (rv *revisit) step(ctx context.Context, s *session) (done bool, err error) {
	all := rv.wish.All && (rv.wish.Depth == 0 || rv.n < rv.wish.Depth)
	floor := rv.wish.Skipped && rv.above > rv.wish.Floor.Pos+1
	rv.met = rv.met || rv.next == rv.wish.Until.Ad
	follow := rv.wish.Follow && !rv.met
	if !rv.next.Defined() || (!all && len(rv.wanted) == 0 && !floor && !rv.wish.Fill && !follow) {
		return true, nil
	}
	if rv.n == maxRevisitAds || len(rv.removed) > maxRevisitRemoved {
		return false, fmt.Errorf("%w: more than %d ads or %d removals", errTooLong, maxRevisitAds, maxRevisitRemoved)
	}
	st, ok, err := s.i.cfg.Store.AdState(rv.next)
	if err != nil {
		return false, err
	}
	if !ok && !rv.wish.Fill && !follow {
		return true, nil
	}
	// An ad in the chains of two publishers has its place in the other's on
	// record. In this one it is right below the ad before: walks number so.
	pos := rv.above - 1
	if ok && st.Publisher == s.publisher {
		pos = st.Pos
	}
	switch {
	case rv.wish.Fill && rv.next == rv.wish.Top.Ad:
		pos = rv.wish.Top.Pos
	case follow && rv.next == rv.wish.Since.Ad:
		pos = rv.wish.Since.Pos
	}
	if pos == 0 {
		return !rv.wish.Fill, rv.noRoom()
	}
	ad, _, err := s.loadAd(ctx, rv.next)
	if err != nil {
		return false, err
	}
	if err := rv.look(s, store.AdRef{Ad: rv.next, Prev: ad.PreviousID, Pos: pos}, ad, all || rv.missing(st, ok, pos, s.publisher)); err != nil {
		return false, err
	}
	rv.next, rv.above = ad.PreviousID, pos
	rv.n++
	return false, nil
}

// missing tells whether an ad is one of those a wish that bears on marks is
// about.
func (rv *revisit) missing(st store.AdState, known bool, pos store.Position, publisher peer.ID) bool {
	switch {
	case rv.wish.Skipped && pos > rv.wish.Floor.Pos && known && st.Verdict == store.SkippedFrozen:
		return true
	case rv.wish.Follow && !rv.met && pos <= rv.wish.Since.Pos && (!known || st.Publisher != publisher || st.Verdict == store.MarkedDone || st.Verdict == store.Pending):
		return true
	case rv.wish.Fill && pos > rv.wish.Top.Pos:
		return known && st.Publisher == publisher && st.Verdict == store.MarkedDone // as another indexer has it
	case !rv.wish.Fill:
		return false
	case known && st.Publisher == publisher:
		return st.Verdict != store.Applied && st.Verdict != store.Superseded && st.Verdict != store.Rejected
	}
	return true
}

// noRoom ends the filling of a chain with more ads than there are positions.
func (rv *revisit) noRoom() error {
	if rv.wish.Fill {
		return fmt.Errorf("%w: no positions are left below", errTooLong)
	}
	return nil
}

// look decides about one ad.
func (rv *revisit) look(s *session, ref store.AdRef, ad *schema.Advertisement, all bool) error {
	key := contextOf(ad)
	superseded := rv.removed[key] && !ad.IsRm
	switch {
	case rv.wanted[ref.Ad]:
		if err := rv.requeue(s, ref, ad, superseded); err != nil {
			return err
		}
		delete(rv.wanted, ref.Ad)
	case all && !superseded:
		if rv.again = append(rv.again, ref); len(rv.again) >= scanBatch {
			if err := rv.note(s); err != nil {
				return err
			}
		}
	}
	if ad.IsRm {
		if _, err := s.judge(ad); err == nil {
			rv.removed[key] = true
		}
	}
	return nil
}

// note has the ads looked at applied again.
func (rv *revisit) note(s *session) error {
	if err := s.again(rv.again, rv.wish.Fill || rv.wish.Skipped || rv.wish.Follow); err != nil {
		return err
	}
	rv.again = rv.again[:0]
	return nil
}

// requeue has a rejected ad applied after all, unless a newer removal of its
// context makes that void: then it is superseded.
func (rv *revisit) requeue(s *session, ref store.AdRef, ad *schema.Advertisement, superseded bool) error {
	if !superseded {
		return s.again([]store.AdRef{ref}, true)
	}
	provider, err := ad.ProviderID()
	if err != nil {
		provider = s.publisher
	}
	j := job{PendingAd: store.PendingAd{AdRef: ref}, ad: &schema.Advertisement{}}
	_, err = s.commit(j, provider, store.Effect{Kind: store.EffectNone, Verdict: store.Superseded})
	return err
}

// end ends the wish: it is fulfilled as far as it can be.
func (rv *revisit) end(s *session, err error) error {
	if nerr := rv.note(s); nerr != nil {
		return nerr
	}
	givenUp := err != nil
	for ad := range rv.wanted {
		err = errors.Join(err, fmt.Errorf("requeue %s: %w", ad, ErrNotInChain))
	}
	ended := s.i.cfg.Store.RevisitWalked
	if givenUp {
		ended = s.i.cfg.Store.RevisitGivenUp
	}
	if derr := ended(s.publisher, rv.wish.Number); derr != nil {
		return derr
	}
	s.w.revisit = nil
	if err == nil {
		s.i.log.Info("ads looked at again", "publisher", s.publisher, "ads", rv.n)
		return nil
	}
	s.i.log.Warn("not all ads could be looked at again", "publisher", s.publisher, "ads", rv.n, "err", err)
	return s.i.cfg.Store.SetError(s.publisher, err.Error(), time.Now())
}

// stuck ends a session's part at an ad that could not be loaded.
func (rv *revisit) stuck(ctx context.Context, s *session, err error) error {
	if nerr := rv.note(s); nerr != nil || ctx.Err() != nil {
		return errors.Join(nerr, ctx.Err())
	}
	now, k := time.Now(), kindOf(err)
	switch {
	case k == troubleOurs:
		return err
	case k == troubleWay:
		return errAway{err}
	case hopeless(rv.trouble, k, now, s.i.cfg.GiveUpAfter):
		return rv.end(s, fmt.Errorf("given up at %s: %w", rv.next, err))
	}
	rv.trouble = worse(rv.trouble, err, k, now, s.i.cfg.AdRetryMin, s.i.cfg.AdRetryMax)
	return s.i.cfg.Store.SetError(s.publisher, "looking at ads again: "+err.Error(), now)
}

// again has ads applied again.
func (s *session) again(refs []store.AdRef, pending bool) error {
	if len(refs) == 0 {
		return nil
	}
	if err := s.i.cfg.Store.AddAgain(s.publisher, refs, pending); err != nil {
		return fmt.Errorf("note %d ads of %s to be applied again: %w", len(refs), s.publisher, err)
	}
	s.feed.look()
	return nil
}

// Requeue has a rejected ad applied after all, in the background, also after a
// restart. ErrBusy if too many wait for that; ErrNotRejected.
func (i *Ingester) Requeue(ad cid.Cid) (peer.ID, error) {
	st, ok, err := i.cfg.Store.AdState(ad)
	switch {
	case err != nil:
		return "", err
	case !ok || (st.Verdict != store.Rejected && st.Verdict != store.MarkedDone):
		return "", fmt.Errorf("requeue %s: %w", ad, ErrNotRejected)
	}
	if err := i.revisit(st.Publisher, store.Revisit{Ads: []cid.Cid{ad}}); err != nil {
		return "", err
	}
	return st.Publisher, i.enqueue(st.Publisher, target{})
}

func (i *Ingester) revisit(publisher peer.ID, wish store.Revisit) error {
	err := i.cfg.Store.AddRevisit(publisher, wish)
	if errors.Is(err, store.ErrFull) {
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}

// Skip gives up an ad that waits, or a gap of a publisher's chain, with a
// reason; the chain goes on as if the ad had been rejected. Skipping a gap
// counts everything older as done that no other walk has found. ErrNotPending.
func (i *Ingester) Skip(publisher peer.ID, ad cid.Cid, reason string) error {
	ref, gap, err := i.waiting(publisher, ad)
	if err != nil {
		return err
	}
	st := i.cfg.Store
	w, err := st.Begin(store.Ad{AdRef: ref, Publisher: publisher, Provider: publisher})
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Commit(store.Effect{Kind: store.EffectNone, Verdict: store.Rejected, Reason: "skipped on request: " + reason}); err != nil {
		return err
	}
	i.log.Warn("ad skipped on request", "publisher", publisher, "ad", ad, "gap", gap, "reason", reason)
	if gap {
		return st.DropScan(publisher, ref.Pos)
	}
	return nil
}

// waiting finds a pending ad or the gap that ad makes.
func (i *Ingester) waiting(publisher peer.ID, ad cid.Cid) (ref store.AdRef, gap bool, err error) {
	scans, err := i.cfg.Store.Scans(publisher)
	if err != nil {
		return ref, false, err
	}
	for _, sc := range scans {
		if sc.Next == ad {
			return store.AdRef{Ad: ad, Pos: sc.Pos}, true, nil
		}
	}
	st, ok, err := i.cfg.Store.AdState(ad)
	if err != nil {
		return ref, false, err
	}
	if ok && st.Publisher == publisher && st.Verdict == store.Pending && st.Pos > 0 {
		page, err := i.cfg.Store.Backlog(publisher, st.Pos-1, 1)
		if err != nil {
			return ref, false, err
		}
		if len(page) == 1 && page[0].Ad == ad {
			return page[0].AdRef, false, nil
		}
	}
	return ref, false, fmt.Errorf("skip %s of %s: %w", ad, publisher, ErrNotPending)
}
