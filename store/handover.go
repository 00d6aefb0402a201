package store

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Closed is where a publisher was closed.
type Closed struct {
	Publisher peer.ID
	Stand     // Ad undefined: nothing is held
	// Applied are ads above whose content is here, at most MaxElsewhere.
	Applied []cid.Cid
	Err     error // ErrNotFound: neither owned nor held
}

// CloseRoles makes the store the holder of publishers it owns: from then on no
// Put for their ads succeeds, not of writers already begun either. When it
// returns nil, that is on disk, together with the mark at which each stood, the
// Freeze mark if the store is frozen, and the end of its last range; and so is
// everything up to it. Of those it holds already it returns the same again.
func (s *Store) CloseRoles(publishers []peer.ID, at time.Time) ([]Closed, error) {
	if err := s.enterWrite(); err != nil {
		return nil, err
	}
	defer s.exit()
	s.admin.Lock()
	defer s.admin.Unlock()
	closed, as, err := s.closeOwned(publishers, at)
	if err != nil {
		return nil, fmt.Errorf("close: %w", err)
	}
	if len(as) > 0 {
		if err := s.syncWrites("close"); err != nil {
			return nil, err
		}
		s.showRoles(as)
	}
	return closed, nil
}

// closeOwned waits for Puts under way, as closeLatch does: an ad that is skipped
// because its publisher is closed is above the mark, and later in the log.
func (s *Store) closeOwned(publishers []peer.ID, at time.Time) (closed []Closed, as []Assignment, err error) {
	s.latch.Lock()
	defer s.latch.Unlock()
	_, err = s.update(func(t *tx) error {
		for _, pub := range publishers {
			a, known := s.assignments[pub]
			if i := slices.IndexFunc(as, func(b Assignment) bool { return b.Publisher == pub }); i >= 0 {
				a = as[i] // named twice
			}
			switch {
			case !known || a.Role == roleLeft:
				closed = append(closed, Closed{Publisher: pub, Err: ErrNotFound})
				continue
			case a.Role == RoleOwner:
				if a, err = t.closeRole(a, at); err != nil {
					return err
				}
				as = append(as, a)
			}
			closed = append(closed, Closed{Publisher: pub, Stand: a.stop, Applied: a.applied})
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for _, a := range as {
		s.held[a.Publisher] = true
	}
	return closed, as, nil
}

func (t *tx) closeRole(a Assignment, at time.Time) (Assignment, error) {
	pub := a.Publisher
	a.Role, a.Time, a.stop = RoleHolder, at, t.stand(pub)
	if t.s.frozen.Load() {
		info := t.s.publisher(pub).info
		a.stop = Stand{info.frozenAt, info.frozenPos, info.frozenHeight}
		if a.stop.Ad.Defined() && a.stop.Pos == 0 {
			a.stop = t.recall(pub, a.stop)
		}
	}
	a = a.ended(a.stop)
	above, err := t.appliedAbove(pub, a.stop)
	if err != nil {
		return a, err
	}
	// Of a frozen store the mark may have passed those that were above it.
	for _, ad := range above {
		if len(a.applied) < MaxElsewhere && !slices.Contains(a.applied, ad) {
			a.applied = append(slices.Clip(a.applied), ad)
		}
	}
	w, ok, err := getRow(t.b, peerKey(prefixRevisit, pub), decodeRevisit)
	if err != nil {
		return a, err
	}
	if ok { // what it stands at now is what the wish stood for; what is followed stays
		w.Skipped, w.Fill, w.Walked, w.Floor, w.Top = false, false, false, Stand{}, AdRef{}
		w.Number++
		if err := t.setRevisit(pub, w); err != nil {
			return a, err
		}
	}
	return a, t.setAssignment(a)
}

// keepApplied remembers, as the latch falls, which ads above the marks of
// publishers owned are here: the marks go on and forget them.
func (t *tx) keepApplied() error {
	for pub, a := range t.s.assignments {
		if a.Role != RoleOwner {
			continue
		}
		var err error
		if a.applied, err = t.appliedAbove(pub, t.stand(pub)); err != nil {
			return err
		}
		if len(a.applied) == 0 {
			continue
		}
		if err := t.setAssignment(a); err != nil {
			return err
		}
		t.after(func() { t.s.assignments[pub] = a })
	}
	return nil
}

// dropApplied forgets it when the store thaws.
func (t *tx) dropApplied() error {
	for pub, a := range t.s.assignments {
		if a.Role != RoleOwner || len(a.applied) == 0 {
			continue
		}
		a.applied = nil
		if err := t.setAssignment(a); err != nil {
			return err
		}
		t.after(func() { t.s.assignments[pub] = a })
	}
	return nil
}

// appliedScan bounds the ads looked at for those that are applied.
const appliedScan = 4 * MaxElsewhere

// appliedAbove lists ads done above an ad whose content is here.
func (t *tx) appliedAbove(pub peer.ID, at Stand) (ads []cid.Cid, err error) {
	w := t.peek(pub)
	if w.above == 0 {
		return nil, nil
	}
	refs, err := listRefs(t.b, prefixAbove, pub, max(at.Pos, w.mark.Pos), appliedScan)
	for _, ref := range refs {
		if err != nil || len(ads) == MaxElsewhere {
			break
		}
		var entry ledgerRow
		var known bool
		entry, known, err = t.known(pub, Stand{Ad: ref.Ad})
		if known && entry.verdict == Applied {
			ads = append(ads, ref.Ad)
		}
	}
	return ads, err
}

// Takeover is a publisher that another indexer has closed.
type Takeover struct {
	Publisher, From peer.ID
	Time            time.Time
	// Mark is where to go on; undefined: the whole chain is new. Its position is
	// that of a publisher of which nothing is known here.
	Mark      AdRef
	Height    uint64
	Place     Place     // of Mark, if that is known
	Applied   []cid.Cid // ads above Mark whose content From has, at most MaxElsewhere
	Providers []Provider
	Addrs     []string // where the publisher is reached, if that is not known here
}

func (o Takeover) check() error {
	if len(o.From) > maxPeerBytes {
		return checkPeer("indexer", o.From)
	}
	if err := checkMark(o.Publisher, o.Mark); err != nil {
		return err
	}
	if len(o.Applied) > MaxElsewhere {
		return fmt.Errorf("%d ads held elsewhere: %w", len(o.Applied), ErrInvalid)
	}
	for _, ad := range o.Applied {
		if err := checkCID("ad", ad); err != nil {
			return err
		}
	}
	for _, p := range o.Providers {
		if err := checkProvider(p); err != nil {
			return err
		}
	}
	return checkAddrs(o.Addrs)
}

// TakeOver makes the store the owner of publishers from their marks on: role,
// range, mark, height, providers and ads held elsewhere are there together after
// a crash or not at all. Errors are by publisher: ErrFrozen, ErrInvalid. All
// whose error is nil are on disk. Of a publisher that is owned it changes
// nothing, so it can be repeated.
//
// If this store knows the chain above the mark, what it skipped there is applied
// after all; if it knows the chain but not the mark, it begins anew there. Ads below
// the mark that are not done here, as they wait or were never met, are followed
// (Revisit): what they do to what is held is applied, their content is not taken.
func (s *Store) TakeOver(batch []Takeover) []error {
	publishers := make([]peer.ID, len(batch))
	for n, o := range batch {
		publishers[n] = o.Publisher
	}
	return s.changeRoles("take over", publishers, func(t *tx, n int) (Assignment, error) {
		return t.takeOver(batch[n])
	})
}

func (t *tx) takeOver(o Takeover) (Assignment, error) {
	pub := o.Publisher
	a := t.s.assignments[pub]
	if a.Role == RoleOwner {
		return a, errStop
	}
	if err := o.check(); err != nil {
		return a, err
	}
	a = a.ended(t.stand(pub)) // it was unassigned: what it had ends where it stood
	at, err := t.goOnAt(o)
	if err != nil {
		return a, err
	}
	for _, p := range o.Providers {
		if err := t.registerProvider(p, at.Pos); err != nil {
			return a, err
		}
	}
	if len(o.Addrs) > 0 && len(t.s.publisher(pub).info.addrs) == 0 {
		if err := t.setPublisherAddrs(pub, o.Addrs); err != nil {
			return a, err
		}
	}
	if a.lacking()+len(o.Applied) > MaxElsewhere {
		o.Applied = nil // they are stored twice
	}
	if err := t.setElsewhere(pub, o.Applied); err != nil {
		return a, err
	}
	a = a.withLack(o.From, o.Applied)
	a.Publisher, a.Continued, a.Role, a.Time, a.stop, a.applied = pub, o.From, RoleOwner, o.Time, Stand{}, nil
	a = a.withRange(Range{From: at.Ad}, at.Pos)
	return a, t.setAssignment(a)
}

// goOnAt sets the mark of a publisher that is taken over, and returns where its
// new range begins.
func (t *tx) goOnAt(o Takeover) (Stand, error) {
	pub, at := o.Publisher, Stand{o.Mark.Ad, o.Mark.Pos, o.Height}
	knows := t.peek(pub).chain()
	if !at.Ad.Defined() {
		if knows {
			return Stand{}, t.beginAnew(pub)
		}
		return Stand{}, nil
	}
	if knows {
		entry, known, err := t.known(pub, at)
		if err != nil {
			return at, err
		}
		if known {
			return t.goOnAtKnown(o, at, entry.pos)
		}
		return t.goOnAnew(o, at)
	}
	return t.goOnFrom(o, at)
}

// goOnAnew goes on at an ad that was not met in a chain that is known.
func (t *tx) goOnAnew(o Takeover, at Stand) (Stand, error) {
	pub := o.Publisher
	until := t.peek(pub).mark.Ad
	w, ok, err := getRow(t.b, peerKey(prefixRevisit, pub), decodeRevisit)
	if err != nil {
		return at, err
	}
	if ok && w.Follow {
		until = w.Until.Ad
	}
	if err := t.beginAnew(pub); err != nil {
		return at, err
	}
	if at, err = t.goOnFrom(o, at); err != nil {
		return at, err
	}
	return at, t.addRevisit(pub, Revisit{Follow: true, Since: AdRef{Ad: at.Ad, Pos: at.Pos}, Until: AdRef{Ad: until}})
}

// goOnFrom sets the mark to an ad above all that is known.
func (t *tx) goOnFrom(o Takeover, at Stand) (Stand, error) {
	pub := o.Publisher
	if epoch := t.peek(pub).epoch; at.Pos <= epoch {
		at.Pos = epoch + anewStride
	}
	if err := t.setMark(pub, AdRef{Ad: at.Ad, Prev: o.Mark.Prev, Pos: at.Pos}); err != nil {
		return at, err
	}
	t.progress(pub).height = at.Height
	t.isAt(pub, at.Pos, o.Place)
	return at, nil
}

// anewStride is the room for older ads below a mark above an epoch, as
// ingest leaves between two walks.
const anewStride = Position(1) << 32

// goOnAtKnown goes on at an ad of the chain as it is known here.
func (t *tx) goOnAtKnown(o Takeover, at Stand, pos Position) (Stand, error) {
	pub := o.Publisher
	at.Pos = pos
	w := t.progress(pub)
	if pos > w.mark.Pos {
		between := Revisit{Follow: true, Since: AdRef{Ad: at.Ad, Pos: pos}, Until: AdRef{Ad: w.mark.Ad, Pos: w.mark.Pos}}
		if err := t.addRevisit(pub, between); err != nil {
			return at, err
		}
		if err := t.setMark(pub, AdRef{Ad: at.Ad, Pos: pos}); err != nil {
			return at, err
		}
		if w.mark.Pos == pos {
			w.height = at.Height
			t.isAt(pub, pos, o.Place)
		}
	}
	w.height = max(w.height, at.Height)
	return at, t.redoAbove(pub, at)
}

// beginAnew forgets how far a publisher is. Positions from now on are higher
// than all so far, so what the ledger says of its ads does not count any more.
func (t *tx) beginAnew(pub peer.ID) error {
	top, err := t.top(pub)
	if err != nil {
		return err
	}
	w := t.progress(pub)
	for _, prefix := range []byte{prefixAbove, prefixPending, prefixScan, prefixAgain} {
		all := peerKey(prefix, pub)
		if err := t.b.DeleteRange(all, keyEnd(all), nil); err != nil {
			return err
		}
	}
	t.setRuns(pub, t.runs(pub).ended(w.mark.Pos))
	// A walk under way gives its ads places within a stride above.
	*w = progressRow{epoch: top + anewStride, mhs: w.mhs, tombs: w.tombs}
	if err := t.setElsewhere(pub, nil); err != nil {
		return err
	}
	if err := t.dropCursors(pub, top); err != nil {
		return err
	}
	return t.setRevisit(pub, Revisit{})
}

// errForgotten ends work on an ad that was begun before its publisher began
// anew.
var errForgotten = fmt.Errorf("publisher was released or begun anew meanwhile: %w", ErrInvalid)

func (t *tx) checkEpoch(ad Ad) error {
	if ad.Pos <= t.peek(ad.Publisher).epoch {
		return errForgotten
	}
	return nil
}

// Release ends that a publisher is owned or held, and removes the given
// providers, as RetirePublisher does; progress is forgotten, so that its chain
// is fetched anew should it be assigned again. It is durable when Release
// returns nil. known is false if nothing is known of it.
func (s *Store) Release(publisher peer.ID, providers []peer.ID, gone func(peer.ID) bool) (known bool, err error) {
	if err := s.enterWrite(); err != nil {
		return false, err
	}
	defer s.exit()
	if err := checkPeer("publisher", publisher); err != nil {
		return false, err
	}
	s.admin.Lock()
	defer s.admin.Unlock()
	_, err = s.update(func(t *tx) error {
		if known = s.assignments[publisher].Role != 0 || t.peek(publisher).chain(); !known {
			return errStop
		}
		for _, p := range providers {
			if err := t.retireProvider(p, gone); err != nil {
				return err
			}
		}
		if err := errors.Join(t.unlean(publisher), t.beginAnew(publisher)); err != nil {
			return err
		}
		t.setClosed(publisher, false)
		return t.delete(peerKey(prefixAssignment, publisher))
	})
	if errors.Is(err, errStop) {
		return false, nil
	}
	if err == nil {
		err = s.syncWrites("release")
	}
	if err != nil {
		return false, fmt.Errorf("release %s: %w", publisher, err)
	}
	s.forgetRole(publisher)
	s.wakeReclaim()
	return true, nil
}

func (s *Store) forgetRole(publisher peer.ID) {
	s.latch.Lock()
	defer s.latch.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view.Lock()
	defer s.view.Unlock()
	delete(s.assignments, publisher)
	delete(s.held, publisher)
}
