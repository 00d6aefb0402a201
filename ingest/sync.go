package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/golang-lru/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/ingest/schema"
	"github.com/signpost-index/signpost/store"
)

// maxPublisherAddrs bounds the addresses remembered for a publisher, and
// maxAnnouncedAddrs those of announces that one sync tries; together they are
// what ipnisync takes.
const (
	maxPublisherAddrs = 4
	maxAnnouncedAddrs = 12
)

// pendingBatch is how many pending ads are written or read at once.
const pendingBatch = 512

// chainSync is one sync of one publisher: what it talks to and what it learned.
type chainSync struct {
	i         *Ingester
	publisher peer.ID
	pub       Publisher
	st        *statusEntry
	ads       *lru.Cache[cid.Cid, *schema.Advertisement]
	decoder   *schema.ChunkDecoder
	mark      cid.Cid // when the sync began: known even if another publisher's ledger entry hides it
	// recovered is closed when the store has lost what was not durable since the
	// sync began: what was read of it before may be wrong.
	recovered <-chan struct{}
}

// syncOnce brings the store from what it has to the publisher's signed head.
func (i *Ingester) syncOnce(ctx context.Context, publisher peer.ID, t target) error {
	if i.cfg.Allow != nil {
		if err := i.cfg.Allow(publisher); err != nil {
			return err
		}
	}
	known := parseAddrs(i.cfg.Store.PublisherAddrs(publisher))
	addrs := mergeAddrs(known, t.addrs)
	if t.announcedFirst {
		addrs = mergeAddrs(t.addrs, known)
	}
	if len(addrs) == 0 {
		return ErrUnknownPublisher
	}
	pub, err := i.cfg.Dial(peer.AddrInfo{ID: publisher, Addrs: addrs})
	if err != nil {
		return fmt.Errorf("dial publisher %s: %w", publisher, err)
	}
	recovered := i.cfg.Store.Recovered() // before anything is read of the chain
	cache, err := lru.New[cid.Cid, *schema.Advertisement](adCacheAds)
	if err != nil {
		return err
	}
	s := &chainSync{
		i: i, publisher: publisher, pub: pub, ads: cache,
		st:      i.status.entry(publisher),
		decoder: schema.NewChunkDecoder(schema.DefaultLimits),
		mark:    i.cfg.Store.Progress(publisher).Mark.Ad,

		recovered: recovered,
	}
	s.st.begin()
	err = s.run(ctx, t, known)
	s.st.end(err)
	return err
}

func (s *chainSync) run(ctx context.Context, t target, known []multiaddr.Multiaddr) error {
	head, err := s.pub.Head(ctx)
	if errors.Is(err, ipnisync.ErrNoHead) {
		return s.checkAnnounced(t, cid.Undef)
	}
	if err != nil {
		return fmt.Errorf("fetch head of %s: %w", s.publisher, err)
	}
	s.st.setHead(head.Head)
	if err := s.rememberAddr(known); err != nil {
		return err
	}
	if t.resync {
		return s.resync(ctx, head.Head, t.depth)
	}
	if err := s.scanHead(ctx, head.Head, t.depth); err != nil {
		return err
	}
	if err := s.closeGaps(ctx); err != nil {
		return err
	}
	if err := s.applyPending(ctx); err != nil {
		return err
	}
	return s.checkAnnounced(t, head.Head)
}

// checkAnnounced reports an announced CID that the chain does not contain: the
// head may lag behind its announce, so a later try can find it.
func (s *chainSync) checkAnnounced(t target, head cid.Cid) error {
	for _, n := range t.notices {
		if n.head != head && !s.isKnown(n.head) {
			return fmt.Errorf("%w: announced %s, signed head is %s", ErrNotInChain, n.head, head)
		}
	}
	return nil
}

// isKnown says whether ad was scanned or applied before as part of this
// publisher's chain.
func (s *chainSync) isKnown(ad cid.Cid) bool {
	if s.mark == ad {
		return true
	}
	st, ok, err := s.i.cfg.Store.AdState(ad)
	return err == nil && ok && st.Publisher == s.publisher
}

// rememberAddr keeps the address that served the verified head. Of a publisher
// heard of for the first time it is on disk before anything else is done, so
// that a killed node resumes unasked. A further address goes behind those known
// before: a replayed old head is validly signed too, and must not push aside
// the address new content comes from. promoteAddr moves it up.
func (s *chainSync) rememberAddr(known []multiaddr.Multiaddr) error {
	a := s.pub.Addr()
	if a == nil || slices.ContainsFunc(known, a.Equal) || len(known) >= maxPublisherAddrs {
		return nil
	}
	if err := s.setAddrs(mergeAddrs(known, []multiaddr.Multiaddr{a})); err != nil {
		return err
	}
	if len(known) > 0 {
		return nil
	}
	return s.i.cfg.Store.Sync()
}

// promoteAddr puts the address that served new ads first.
func (s *chainSync) promoteAddr() error {
	a := s.pub.Addr()
	known := parseAddrs(s.i.cfg.Store.PublisherAddrs(s.publisher))
	if a == nil || (len(known) > 0 && known[0].Equal(a)) {
		return nil
	}
	return s.setAddrs(mergeAddrs([]multiaddr.Multiaddr{a}, known))
}

func (s *chainSync) setAddrs(addrs []multiaddr.Multiaddr) error {
	addrs = addrs[:min(len(addrs), maxPublisherAddrs)]
	texts := make([]string, len(addrs))
	for n, m := range addrs {
		texts[n] = m.String()
	}
	return s.i.cfg.Store.SetPublisherAddrs(s.publisher, texts)
}

// scanHead walks back from head to the first known ad. Positions run downward
// from one stride above everything known of the publisher.
func (s *chainSync) scanHead(ctx context.Context, head cid.Cid, depth int) error {
	if s.isKnown(head) {
		return nil
	}
	top, err := s.topPosition()
	if err != nil {
		return err
	}
	if err := s.scan(ctx, head, top+positionStride, depth); err != nil {
		return err
	}
	return s.promoteAddr()
}

// topPosition is the largest position in use for the publisher.
func (s *chainSync) topPosition() (store.Position, error) {
	p := s.i.cfg.Store.Progress(s.publisher)
	top := p.Mark.Pos
	for _, a := range p.Applied {
		top = max(top, a.Pos)
	}
	last, ok, err := s.i.cfg.Store.LastPending(s.publisher)
	if err != nil {
		return 0, err
	}
	if ok {
		top = max(top, last.Pos)
	}
	return top, nil
}

// scan walks from ad c at position pos back to the first known ad or genesis
// and records what it passes as pending. What was walked before an error stays
// recorded; closeGaps goes on from there.
func (s *chainSync) scan(ctx context.Context, c cid.Cid, pos store.Position, depth int) error {
	batch := make([]store.AdRef, 0, pendingBatch)
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := s.i.cfg.Store.AddPending(s.publisher, batch)
		batch = batch[:0]
		return err
	}
	for n := 0; c.Defined() && !s.isKnown(c); n++ {
		if n == maxScanAds {
			return errors.Join(flush(), fmt.Errorf("chain of %s is longer than %d ads from %s", s.publisher, maxScanAds, c))
		}
		if depth > 0 && n == depth {
			if err := flush(); err != nil {
				return err
			}
			return s.i.cfg.Store.SetMark(s.publisher, store.AdRef{Ad: c, Pos: pos})
		}
		ad, err := s.loadAd(ctx, c)
		if err != nil {
			return errors.Join(flush(), err)
		}
		batch = append(batch, store.AdRef{Ad: c, Prev: ad.PreviousID, Pos: pos})
		s.st.scanned(c)
		if len(batch) == cap(batch) {
			if err := flush(); err != nil {
				return err
			}
		}
		c = ad.PreviousID
		pos--
	}
	return flush()
}

// closeGaps finds pending ads whose predecessor is unknown, left by a scan
// that was cut short, and scans from there.
func (s *chainSync) closeGaps(ctx context.Context) error {
	before := cid.Undef
	for after := store.Position(0); ; {
		refs, err := s.i.cfg.Store.NextPending(s.publisher, after, pendingBatch)
		if err != nil || len(refs) == 0 {
			return err
		}
		for _, r := range refs {
			if r.Prev.Defined() && r.Prev != before && !s.isKnown(r.Prev) {
				if err := s.scan(ctx, r.Prev, r.Pos-1, 0); err != nil {
					return err
				}
			}
			before, after = r.Ad, r.Pos
		}
	}
}

// applyPending applies pending ads, oldest first, until none is left.
func (s *chainSync) applyPending(ctx context.Context) error {
	s.st.setTotal(s.i.cfg.Store.Progress(s.publisher).Pending)
	for {
		refs, err := s.i.cfg.Store.NextPending(s.publisher, 0, pendingBatch)
		if err != nil || len(refs) == 0 {
			return err
		}
		for _, r := range refs {
			if err := s.apply(ctx, r); err != nil {
				return fmt.Errorf("apply ad %s of %s: %w", r.Ad, s.publisher, err)
			}
			s.st.applied()
		}
	}
}

// resync applies the newest depth ads again (all for 0), oldest first, at the
// positions they have; ads never seen go the usual way afterwards.
func (s *chainSync) resync(ctx context.Context, head cid.Cid, depth int) error {
	if err := s.scanHead(ctx, head, depth); err != nil {
		return err
	}
	if err := s.closeGaps(ctx); err != nil {
		return err
	}
	var again []store.AdRef
	for c := head; c.Defined() && (depth == 0 || len(again) < depth); {
		if len(again) == maxResyncAds {
			return fmt.Errorf("resync of more than %d ads: give a depth", maxResyncAds)
		}
		ad, err := s.loadAd(ctx, c)
		if err != nil {
			return err
		}
		st, ok, err := s.i.cfg.Store.AdState(c)
		if err != nil {
			return err
		}
		if !ok || st.Publisher != s.publisher {
			break // older than what this node ever took on
		}
		again = append(again, store.AdRef{Ad: c, Prev: ad.PreviousID, Pos: st.Pos})
		c = ad.PreviousID
	}
	s.st.setTotal(len(again))
	slices.Reverse(again)
	for _, r := range again {
		if err := s.apply(ctx, r); err != nil {
			return fmt.Errorf("apply ad %s of %s again: %w", r.Ad, s.publisher, err)
		}
		s.st.applied()
	}
	return s.applyPending(ctx)
}

// loadAd returns the decoded ad, hash-checked, its signature not yet verified.
func (s *chainSync) loadAd(ctx context.Context, c cid.Cid) (*schema.Advertisement, error) {
	if ad, ok := s.ads.Get(c); ok {
		return ad, nil
	}
	block, err := s.pub.Block(ctx, c, ipnisync.HintAdvertisement)
	if err != nil {
		return nil, fmt.Errorf("fetch ad %s from %s: %w", c, s.publisher, err)
	}
	s.i.metrics.bytesFetched.Add(float64(len(block)))
	ad, err := schema.DecodeAdvertisement(c, block)
	if err != nil {
		return nil, fmt.Errorf("ad %s from %s: %w", c, s.publisher, err)
	}
	if len(block) <= syncMemoryBytes/2/adCacheAds {
		s.ads.Add(c, ad)
	}
	return ad, nil
}

func parseAddrs(texts []string) []multiaddr.Multiaddr {
	var out []multiaddr.Multiaddr
	for _, t := range texts {
		if a, err := multiaddr.NewMultiaddr(t); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// mergeAddrs returns first followed by those of then that first does not have.
func mergeAddrs(first, then []multiaddr.Multiaddr) []multiaddr.Multiaddr {
	out := slices.Clone(first)
	for _, a := range then {
		if !slices.ContainsFunc(out, a.Equal) {
			out = append(out, a)
		}
	}
	return out
}
