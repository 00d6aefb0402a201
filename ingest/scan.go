package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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
		if !s.feed.setScanning(false) {
			return nil
		}
		s.ensureLane(ctx)
		select {
		case <-s.feed.drained:
			return nil
		case <-ctx.Done():
		case <-s.w.wake:
			// The target may not be due yet; the session ends and the worker waits for it.
			if at, ok := s.w.targetDue(); !ok || at.After(time.Now()) {
				continue
			}
			if !s.feed.setScanning(true) {
				return nil
			}
		}
	}
	s.feed.setScanning(false)
	s.ensureLane(ctx)
	if err != nil && !errors.As(err, new(errAway)) {
		s.feed.stop()
	}
	return err
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
	head, err := pub.Head(ctx)
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
	if t.resync {
		if err := s.resync(ctx, head.Head, t.depth); err != nil {
			return err
		}
	}
	for _, ad := range t.requeue {
		if err := s.requeue(ctx, head.Head, ad); err != nil {
			return err
		}
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

// rememberAddr keeps the address that served the verified head. Of a publisher
// heard of for the first time it is on disk before anything else is done, so
// that a killed node resumes unasked. A further address goes behind those known
// before: a replayed old head is validly signed too, and must not push aside
// the address new content comes from. promoteAddr moves it up.
func (s *session) rememberAddr(pub Publisher, known []multiaddr.Multiaddr) error {
	a := pub.Addr()
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
func (s *session) promoteAddr() error {
	a := s.addr()
	known := parseAddrs(s.i.cfg.Store.PublisherAddrs(s.publisher))
	if a == nil || (len(known) > 0 && known[0].Equal(a)) {
		return nil
	}
	return s.setAddrs(mergeAddrs([]multiaddr.Multiaddr{a}, known))
}

func (s *session) setAddrs(addrs []multiaddr.Multiaddr) error {
	addrs = addrs[:min(len(addrs), maxPublisherAddrs)]
	texts := make([]string, len(addrs))
	for n, m := range addrs {
		texts[n] = m.String()
	}
	return s.i.cfg.Store.SetPublisherAddrs(s.publisher, texts)
}

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
	w := s.newWalk(store.Scan{Next: head, Pos: top + positionStride})
	w.depth, w.whole, w.fromHead = t.depth, t.explicit, true
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

// top is the highest position in use: that of the newest ad, or of a gap above.
func (s *session) top() (store.Position, error) {
	newest, _, err := s.i.cfg.Store.Newest(s.publisher)
	if err != nil {
		return 0, err
	}
	scans, err := s.i.cfg.Store.Scans(s.publisher)
	top := newest.Pos
	if len(scans) > 0 {
		top = max(top, scans[0].Pos)
	}
	return top, err
}

// walk is one walk back along a chain, from a place to a known ad or the
// genesis. It records what it passes as pending, together with the place it has
// come to: nothing above a gap counts as the chain's end.
type walk struct {
	s     *session
	at    store.Scan     // goes on here
	row   store.Position // of the place recorded on disk; 0: none is
	depth int            // so many ads are passed, those further back count as done; 0: no limit
	whole bool           // it is not cut at the end of a time slice

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
		case w.depth > 0 && n == w.depth:
			if err := w.flush(ctx, true); err != nil {
				return err
			}
			return s.i.cfg.Store.SetMark(s.publisher, store.AdRef{Ad: w.at.Next, Pos: w.at.Pos})
		case n == s.i.maxWalk:
			return w.stuck(ctx, fmt.Errorf("%w: more than %d ads in one walk, it goes on later", errOverBudget, n))
		case !w.whole && n >= leastWalk && (s.feed.over() || s.w.wantsTarget()):
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
	w.s.st.scanned(ref.Ad)
	w.s.i.stages.scanned(ref.Ad)
	w.at = store.Scan{Next: ad.PreviousID, Pos: w.at.Pos - 1}
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
		next = &store.Scan{Next: w.at.Next, Pos: w.at.Pos}
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
	ad, err := schema.DecodeAdvertisement(c, block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("ad %s from %s: %w", c, s.publisher, err)
	}
	return ad, block.Bytes, nil
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
