package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/store"
)

// scanner takes targets and walks that are due until the feed is drained.
func (s *session) scanner(ctx context.Context) error {
	if err := s.recall(); err != nil {
		s.feed.stop()
		return err
	}
	var err error
	for err == nil && ctx.Err() == nil && !s.feed.over() {
		if t, ok := s.w.takeTarget(); ok {
			err = s.pursue(ctx, t)
			continue
		}
		var walks []store.Scan
		if walks, err = s.dueWalks(); err != nil {
			break
		}
		if len(walks) > 0 {
			err = s.goOn(walks[0]).run(ctx)
			continue
		}
		var again *revisit
		if again, err = s.dueRevisit(); err != nil {
			break
		}
		if again != nil {
			err = again.run(ctx, s)
			continue
		}
		if !s.feed.setScanning(false) {
			return nil
		}
		s.ensureLane(ctx)
		if !s.rest(ctx) {
			return nil
		}
	}
	s.feed.setScanning(false)
	s.ensureLane(ctx)
	if err != nil && !errors.As(err, new(errAway)) {
		s.feed.stop()
	}
	return err
}

// rest waits while lanes work until there may be something to scan; false: the
// session has come to its end.
func (s *session) rest(ctx context.Context) bool {
	for {
		select {
		case <-s.feed.drained:
			return false
		case <-ctx.Done():
			return true
		case <-s.growLater(): // lanes that hang let no others begin
			s.grow(ctx)
		case <-s.w.wake:
			// The target may not be due yet; the session ends and the worker waits for it.
			if at, ok := s.w.targetDue(); !ok || at.After(time.Now()) {
				return true
			}
			return s.feed.setScanning(true)
		}
	}
}

// ensureLane sees to it that somebody drains the feed.
func (s *session) ensureLane(ctx context.Context) {
	s.grow(ctx)
	s.mu.Lock()
	none := s.lanes == 0
	s.mu.Unlock()
	if none {
		s.feed.settle()
	}
}

// recall reads what the chain's walks may end at.
func (s *session) recall() error {
	st := s.i.cfg.Store
	if mark := st.Progress(s.publisher).Mark.Ad; mark.Defined() {
		s.known[mark] = true
	}
	newest, ok, err := st.Newest(s.publisher)
	if err == nil && ok {
		s.known[newest.Ad] = true
	}
	return err
}

// dueWalks returns the walks that can go on, newest first.
func (s *session) dueWalks() ([]store.Scan, error) {
	scans, err := s.i.cfg.Store.Scans(s.publisher)
	if err != nil {
		return nil, err
	}
	for _, sc := range scans {
		s.known[sc.Next] = true
	}
	now := time.Now()
	return slices.DeleteFunc(scans, func(sc store.Scan) bool { return sc.Trouble.Next.After(now) }), nil
}

// pursue reaches for a target. Its failure is the target's; an error is one
// that ends the session.
func (s *session) pursue(ctx context.Context, t target) error {
	err := s.reach(ctx, t)
	select {
	case <-s.recovered: // what was known of the chain is not, perhaps
		err = errRecovered
	case <-ctx.Done():
		err = context.Cause(ctx)
	default:
	}
	if err == nil {
		s.w.targetDone(t)
		return nil
	}
	s.w.targetFailed(t, err)
	if ctx.Err() != nil {
		return nil
	}
	if !s.w.stranger() && !isOurs(err) {
		if serr := s.i.cfg.Store.SetError(s.publisher, err.Error(), time.Now()); serr != nil {
			return errors.Join(err, serr)
		}
	}
	if isOurs(err) {
		return err
	}
	return nil
}

// reach fetches the signed head and walks back from it to the first known ad.
func (s *session) reach(ctx context.Context, t target) error {
	known := parseAddrs(s.i.cfg.Store.PublisherAddrs(s.publisher))
	addrs := mergeAddrs(known, t.addrs)
	if t.announcedFirst {
		addrs = mergeAddrs(t.addrs, known)
	}
	if len(addrs) == 0 {
		return ErrUnknownPublisher
	}
	pub, err := s.i.cfg.Dial(peer.AddrInfo{ID: s.publisher, Addrs: addrs})
	if err != nil {
		return fmt.Errorf("dial publisher %s: %w", s.publisher, err)
	}
	hctx, span := s.i.span(ctx, "fetch head", "publisher", s.publisher)
	head, err := pub.Head(hctx)
	span.end(err)
	if s.i.cfg.Reached != nil && ctx.Err() == nil {
		s.i.cfg.Reached(s.publisher, err)
	}
	if errors.Is(err, ipnisync.ErrNoHead) {
		return s.checkAnnounced(t, cid.Undef)
	}
	if err != nil {
		return fmt.Errorf("fetch head of %s: %w", s.publisher, err)
	}
	s.pub.Store(&source{pub})
	s.st.setHead(head.Head)
	if err := s.rememberAddr(pub, known); err != nil {
		return err
	}
	s.i.stages.announced(head.Head, t.since)
	if err := s.walkFromHead(ctx, head.Head, t); err != nil {
		return err
	}
	return s.checkAnnounced(t, head.Head)
}

// checkAnnounced reports an announced CID that the chain does not contain: the
// head may lag behind its announce, so a later try can find it.
func (s *session) checkAnnounced(t target, head cid.Cid) error {
	for _, n := range t.notices {
		known := n.head == head
		if !known {
			var err error
			if known, err = s.isKnown(n.head); err != nil {
				return err
			}
		}
		if !known {
			return fmt.Errorf("%w: announced %s, signed head is %s", ErrNotInChain, n.head, head)
		}
	}
	return nil
}

// isKnown says whether ad was scanned or applied before as part of this
// publisher's chain, or another walk goes on there.
func (s *session) isKnown(ad cid.Cid) (bool, error) {
	if s.known[ad] {
		return true, nil
	}
	st, ok, err := s.i.cfg.Store.AdState(ad)
	return err == nil && ok && st.Publisher == s.publisher, err
}
