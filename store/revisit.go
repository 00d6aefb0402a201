package store

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// MaxRevisitAds bounds the ads one revisit names.
const MaxRevisitAds = 1024

// Revisit is a wish to look again at ads of a publisher that have a verdict.
// It is kept until it is done, so that neither a kill nor a publisher that is
// away ends it.
type Revisit struct {
	// All asks for the newest Depth ads to be applied again; 0: for all of them.
	All   bool
	Depth int
	// Ads were rejected and are to be applied after all.
	Ads []cid.Cid
	// Skipped asks for what was skipped above Floor, while the store was frozen or
	// the publisher closed. Until that is done the publisher stands at Floor.
	Skipped bool
	Floor   Stand
	// Fill asks for everything at or below Top that is not here, down to the
	// genesis: see Backfill.
	Fill bool
	Top  AdRef
	// Follow asks for what the ads at or below Since and above Until do to what is
	// held: the publisher was taken over at Since, and the ads between were not done
	// here. Their content is another indexer's. If Until is undefined it is asked for
	// down to the genesis; its position is 0 if that is not known.
	Follow       bool
	Since, Until AdRef
	// Walked says that the way back is over: all that is wished is noted to be
	// applied again.
	Walked bool
	// Number tells one wish of a publisher from the next; the store sets it.
	Number uint64
}

// merge adds a newer wish.
func (w *Revisit) merge(newer Revisit) {
	switch {
	case !newer.All:
	case !w.All:
		w.All, w.Depth = true, newer.Depth
	case w.Depth == 0 || newer.Depth == 0:
		w.Depth = 0
	default:
		w.Depth = max(w.Depth, newer.Depth)
	}
	for _, ad := range newer.Ads {
		if !slices.Contains(w.Ads, ad) {
			w.Ads = append(w.Ads, ad)
		}
	}
	if newer.Skipped && (!w.Skipped || newer.Floor.Pos < w.Floor.Pos) {
		w.Skipped, w.Floor = true, newer.Floor
	}
	if newer.Fill {
		w.Fill, w.Top = true, newer.Top
	}
	if newer.Follow {
		if !w.Follow { // else what is older is not followed to the end yet
			w.Until = newer.Until
		}
		w.Follow, w.Since = true, newer.Since
	}
	w.Walked = false
	w.Number++
}

func (w Revisit) check() error {
	if w.Depth < 0 || w.empty() || (w.Fill && !w.Top.Ad.Defined()) || (w.Follow && !w.Since.Ad.Defined()) {
		return fmt.Errorf("revisit of nothing: %w", ErrInvalid)
	}
	if len(w.Ads) > MaxRevisitAds {
		return fmt.Errorf("revisit of more than %d named ads: %w", MaxRevisitAds, ErrFull)
	}
	for _, ad := range w.Ads {
		if err := checkCID("ad", ad); err != nil {
			return err
		}
	}
	return nil
}

func (w Revisit) empty() bool {
	return !w.All && len(w.Ads) == 0 && !w.Skipped && !w.Fill && !w.Follow
}

// Bits of the first byte of a wish's row.
const (
	revisitAll = 1 << iota
	revisitSkipped
	revisitFill
	revisitWalked
	revisitFollow
)

func (w Revisit) flags() (f byte) {
	for bit, set := range map[byte]bool{revisitAll: w.All, revisitSkipped: w.Skipped, revisitFill: w.Fill, revisitWalked: w.Walked,
		revisitFollow: w.Follow} {
		if set {
			f |= bit
		}
	}
	return f
}

func (w Revisit) encode() []byte {
	b := []byte{w.flags()}
	b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(w.Depth)), w.Number)
	b = binary.AppendUvarint(b, uint64(len(w.Ads)))
	for _, ad := range w.Ads {
		b = appendCID(b, ad)
	}
	if w.Skipped {
		b = w.Floor.append(b)
	}
	if w.Fill {
		b = appendPos(appendCID(b, w.Top.Ad), w.Top.Pos)
	}
	if w.Follow {
		b = appendPos(appendCID(b, w.Since.Ad), w.Since.Pos)
		b = appendPos(appendCID(b, w.Until.Ad), w.Until.Pos)
	}
	return b
}

func decodeRevisit(b []byte) (Revisit, error) {
	r := &reader{b: b}
	f := r.byte()
	w := Revisit{All: f&revisitAll != 0, Skipped: f&revisitSkipped != 0, Fill: f&revisitFill != 0, Walked: f&revisitWalked != 0,
		Follow: f&revisitFollow != 0, Depth: int(r.uvarint()), Number: r.uvarint()}
	for range r.count(1) {
		w.Ads = append(w.Ads, r.cid())
	}
	if w.Skipped {
		w.Floor = r.stand()
	}
	if w.Fill {
		w.Top = AdRef{Ad: r.cid(), Pos: r.pos()}
	}
	if w.Follow {
		w.Since = AdRef{Ad: r.cid(), Pos: r.pos()}
		w.Until = AdRef{Ad: r.cid(), Pos: r.pos()}
	}
	if f != w.flags() || w.check() != nil {
		r.fail()
	}
	return w, r.done("revisit")
}

// AddRevisit adds to what is wished of a publisher. Errors: ErrFull if more ads
// are named than a wish may hold. It is durable with the next sync.
func (s *Store) AddRevisit(publisher peer.ID, wish Revisit) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := checkPeer("publisher", publisher); err != nil {
		return err
	}
	if err := wish.check(); err != nil {
		return err
	}
	_, err := s.update(func(t *tx) error { return t.addRevisit(publisher, wish) })
	if err != nil {
		return fmt.Errorf("note what is to be looked at again of %s: %w", publisher, err)
	}
	return nil
}

func (t *tx) addRevisit(publisher peer.ID, wish Revisit) error {
	key := peerKey(prefixRevisit, publisher)
	w, _, err := getRow(t.b, key, decodeRevisit)
	if err != nil {
		return err
	}
	w.merge(wish)
	if err := w.check(); err != nil {
		return err
	}
	return t.setRevisit(publisher, w)
}

// Revisit returns what is wished of a publisher, if anything.
func (s *Store) Revisit(publisher peer.ID) (wish Revisit, ok bool, err error) {
	if err := s.enter(); err != nil {
		return wish, false, err
	}
	defer s.exit()
	wish, ok, err = getRow(s.db, peerKey(prefixRevisit, publisher), decodeRevisit)
	if err != nil {
		return wish, false, fmt.Errorf("what is to be looked at again of %s: %w", publisher, err)
	}
	return wish, ok, nil
}

// Revisits lists the publishers of which something is wished.
func (s *Store) Revisits() ([]peer.ID, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	var ids []peer.ID
	err := scanPrefix(s.db, []byte{prefixRevisit}, func(k, _ []byte) error {
		id, err := parsePeerKey(prefixRevisit, k)
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list what is to be looked at again: %w", err)
	}
	return ids, nil
}

// DropRevisit ends the wish of this number; a newer one stays.
func (s *Store) DropRevisit(publisher peer.ID, number uint64) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	_, err := s.update(func(t *tx) error {
		key := peerKey(prefixRevisit, publisher)
		w, ok, err := getRow(t.b, key, decodeRevisit)
		if err != nil || !ok || w.Number != number {
			return err
		}
		return t.setRevisit(publisher, Revisit{})
	})
	if err != nil {
		return fmt.Errorf("end looking again at %s: %w", publisher, err)
	}
	return nil
}

// LeansOn notes that an ad of publisher was not stored because content of the
// same ad stands, applied in the chain of another: should that one be retired,
// the publisher's ads are to be looked at again.
func (s *Store) LeansOn(publisher, other peer.ID) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	key := appendPeer(peerKey(prefixLeans, other), publisher)
	_, err := s.update(func(t *tx) error {
		known, err := t.has(key)
		if err != nil || known {
			return err
		}
		return t.set(key, nil)
	})
	if err != nil {
		return fmt.Errorf("note that %s leans on %s: %w", publisher, other, err)
	}
	return nil
}

func parseLeansKey(k []byte) (other, publisher peer.ID, err error) {
	r := keyReader(prefixLeans, k)
	other, publisher = r.peerPart(), r.peerPart()
	return other, publisher, r.done("key")
}

// unlean has the publishers that lean on one that is retired looked at again.
func (t *tx) unlean(retired peer.ID) error {
	var leaning []peer.ID
	err := scanPrefix(t.b, peerKey(prefixLeans, retired), func(k, _ []byte) error {
		_, p, err := parseLeansKey(k)
		leaning = append(leaning, p)
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range leaning {
		if err := t.delete(appendPeer(peerKey(prefixLeans, retired), p)); err != nil {
			return err
		}
		if err := t.addRevisit(p, Revisit{All: true}); err != nil {
			return err
		}
	}
	return nil
}
