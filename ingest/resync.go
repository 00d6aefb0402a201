package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/ingest/schema"
	"github.com/signpost-index/signpost/store"
)

// maxResyncAds bounds the ads one resync looks at.
const maxResyncAds = 10_000_000

// maxResyncRemoved bounds the removals one resync keeps in memory, some 50 bytes
// each.
const maxResyncRemoved = 500_000

// errTooLong ends a target that would not be reached at the next try either.
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

// resync notes the newest depth ads (all for 0) to be applied again, at the
// positions they have. It goes from new to old and leaves out what a newer
// removal has superseded, so the order of applying them does not matter.
func (s *session) resync(ctx context.Context, head cid.Cid, depth int) error {
	var again []store.AdRef
	err := s.walkKnown(ctx, head, depth, func(ref store.AdRef, _ *schema.Advertisement, superseded bool) (bool, error) {
		if superseded {
			return true, nil
		}
		if again = append(again, ref); len(again) < scanBatch {
			return true, nil
		}
		err := s.again(again, false)
		again = again[:0]
		return true, err
	})
	return errors.Join(err, s.again(again, false))
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

// walkKnown goes back from head over ads this node has taken on as part of the
// publisher's chain, and says of each whether a newer one has removed its
// context. It ends where fn says so, or at an ad never taken on.
func (s *session) walkKnown(ctx context.Context, head cid.Cid, depth int, fn func(store.AdRef, *schema.Advertisement, bool) (bool, error)) error {
	removed := make(map[[16]byte]bool)
	newest, _, err := s.i.cfg.Store.Newest(s.publisher)
	if err != nil {
		return err
	}
	pos := newest.Pos + 1
	for c, n := head, 0; c.Defined() && (depth == 0 || n < depth); n++ {
		if n == maxResyncAds || len(removed) > maxResyncRemoved {
			return fmt.Errorf("%w: more than %d ads or %d removals", errTooLong, maxResyncAds, maxResyncRemoved)
		}
		st, ok, err := s.i.cfg.Store.AdState(c)
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		// An ad in the chains of two publishers has its place in the other's on
		// record. In this one it is right below the ad before: walks number so.
		if pos--; st.Publisher == s.publisher {
			pos = st.Pos
		}
		if pos == 0 {
			return nil
		}
		ad, _, err := s.loadAd(ctx, c)
		if err != nil {
			return err
		}
		key := contextOf(ad)
		goOn, err := fn(store.AdRef{Ad: c, Prev: ad.PreviousID, Pos: pos}, ad, removed[key] && !ad.IsRm)
		if err != nil || !goOn {
			return err
		}
		if ad.IsRm {
			if _, err := s.judge(ad); err == nil {
				removed[key] = true
			}
		}
		c = ad.PreviousID
	}
	return nil
}

// requeue has a rejected ad applied after all, unless a newer removal of its
// context makes that void: then it is superseded.
func (s *session) requeue(ctx context.Context, head, wanted cid.Cid) error {
	found := false
	err := s.walkKnown(ctx, head, 0, func(ref store.AdRef, ad *schema.Advertisement, superseded bool) (bool, error) {
		if ref.Ad != wanted {
			return true, nil
		}
		found = true
		if !superseded {
			return false, s.again([]store.AdRef{ref}, true)
		}
		provider, err := ad.ProviderID()
		if err != nil {
			provider = s.publisher
		}
		j := job{PendingAd: store.PendingAd{AdRef: ref}, ad: &schema.Advertisement{}}
		_, err = s.commit(j, provider, store.Effect{Kind: store.EffectNone, Verdict: store.Superseded})
		return false, err
	})
	if err == nil && !found {
		err = fmt.Errorf("requeue %s: %w", wanted, ErrNotInChain)
	}
	return err
}

// Requeue has a rejected ad applied after all, in the background. ErrBusy if an
// explicit sync of its publisher is running; ErrNotRejected.
func (i *Ingester) Requeue(ad cid.Cid) (peer.ID, error) {
	st, ok, err := i.cfg.Store.AdState(ad)
	switch {
	case err != nil:
		return "", err
	case !ok || (st.Verdict != store.Rejected && st.Verdict != store.MarkedDone):
		return "", fmt.Errorf("requeue %s: %w", ad, ErrNotRejected)
	}
	return st.Publisher, i.enqueue(st.Publisher, target{explicit: true, requeue: []cid.Cid{ad}})
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
