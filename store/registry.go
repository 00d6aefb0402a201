package store

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/libp2p/go-libp2p/core/peer"
)

// held says whether the set has any effect: an override without providers hides
// the chain-level set.
func (w extendedRow) held() bool { return w.set.held() }

func (s ExtendedSet) held() bool { return len(s.Providers) > 0 || s.Override }

// provider applies the registry part of an ad.
func (c *change) provider(u ProviderUpdate, now time.Time) error {
	if u.Time.IsZero() {
		u.Time = now
	}
	pub, pos := c.ad.Publisher, c.ad.Pos
	var w providerRow
	key := peerKey(prefixProvider, c.ad.Provider)
	if err := loadRow(c.b, key, decodeProvider, &w); err != nil {
		return err
	}
	if w.last.accepts(pub, pos, c.again) {
		w.last.publisher, w.last.pos = pub, pos
		w.lastAd, w.lastAdTime = c.ad.Ad, u.Time
	}
	w.last.note(pub, pos)
	w.last.prune(c.passed)
	if len(u.Addrs) > 0 {
		if w.addrsFrom.accepts(pub, pos, c.again) {
			w.addrsFrom.publisher, w.addrsFrom.pos = pub, pos
			w.addrs = u.Addrs
		}
		w.addrsFrom.note(pub, pos)
	}
	w.addrsFrom.prune(c.passed)
	if err := c.set(key, w.encode()); err != nil {
		return err
	}
	if len(u.PublisherAddrs) > 0 {
		if err := c.setPublisherAddrs(pub, u.PublisherAddrs); err != nil {
			return err
		}
	}
	if u.Extended == nil {
		return nil
	}
	return c.extended(*u.Extended)
}

// extended replaces the extended set of the ad's context. A context removed
// by a newer ad takes none.
func (c *change) extended(set ExtendedSet) error {
	if c.gone && len(c.ad.ContextID) > 0 {
		return nil
	}
	var w extendedRow
	if err := loadRow(c.b, contextKey(prefixExtended, c.ad.Provider, c.ad.ContextID), decodeExtended, &w); err != nil {
		return err
	}
	return c.setExtended(w, set)
}

// removeExtended takes the extended set of a removed context away. The set of
// the whole chain, which has the empty context ID, is not part of a context.
func (c *change) removeExtended() error {
	if len(c.ad.ContextID) == 0 {
		return nil
	}
	w, ok, err := getRow(c.b, contextKey(prefixExtended, c.ad.Provider, c.ad.ContextID), decodeExtended)
	if err != nil || !ok {
		return err
	}
	return c.setExtended(w, ExtendedSet{})
}

func (c *change) setExtended(w extendedRow, set ExtendedSet) error {
	pub, pos := c.ad.Publisher, c.ad.Pos
	if w.accepts(pub, pos, c.again) {
		w.set, w.publisher, w.pos = set, pub, pos
		if !w.held() {
			w.set, w.publisher, w.pos = ExtendedSet{}, "", 0
		}
	}
	w.note(pub, pos)
	w.prune(c.passed)
	if !w.held() {
		if err := c.tombstones(w.seens, c.ad.Provider, c.ad.ContextID); err != nil {
			return err
		}
	}
	key := contextKey(prefixExtended, c.ad.Provider, c.ad.ContextID)
	return c.setOrDelete(key, w.held() || len(w.seens) > 0, w.encode())
}

// RegisterProvider takes over what another indexer knows of a provider:
// addresses, last ad, publisher and its addresses, unless the provider's last
// ad known here is later; and the extended sets of contexts that have none
// here. FrozenAt and LastError of p are not taken over.
func (s *Store) RegisterProvider(p Provider) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := checkProvider(p); err != nil {
		return err
	}
	if _, err := s.update(func(t *tx) error { return t.registerProvider(p, 0) }); err != nil {
		return fmt.Errorf("register provider %s: %w", p.ID, err)
	}
	return nil
}

// registerProvider registers what was so at a position of the publisher's chain:
// older ads of it change nothing.
func (t *tx) registerProvider(p Provider, at Position) error {
	if p.Publisher == "" {
		at = 0
	}
	key := peerKey(prefixProvider, p.ID)
	w, ok, err := getRow(t.b, key, decodeProvider)
	if err != nil {
		return err
	}
	if !ok || !w.lastAdTime.After(p.LastAdTime) {
		w.last.publisher, w.last.pos = p.Publisher, at
		w.lastAd, w.lastAdTime = p.LastAd, p.LastAdTime
		if len(p.Addrs) > 0 {
			w.addrsFrom.publisher, w.addrsFrom.pos = p.Publisher, at
			w.addrs = p.Addrs
		}
		if err := t.set(key, w.encode()); err != nil {
			return err
		}
		if p.Publisher != "" && len(p.PublisherAddrs) > 0 {
			if err := t.setPublisherAddrs(p.Publisher, p.PublisherAddrs); err != nil {
				return err
			}
		}
	}
	sets := p.Contextual
	if p.Extended != nil {
		sets = append([]ContextualSet{{ExtendedSet: *p.Extended}}, sets...)
	}
	for _, set := range sets {
		key := contextKey(prefixExtended, p.ID, set.ContextID)
		known, err := t.has(key)
		if err != nil {
			return err
		}
		if known || !set.held() {
			continue
		}
		row := extendedRow{register: register{publisher: p.Publisher, pos: at}, set: set.ExtendedSet}
		if err := t.set(key, row.encode()); err != nil {
			return err
		}
	}
	return nil
}

// Provider returns a registry entry; false if there is none.
func (s *Store) Provider(id peer.ID) (Provider, bool, error) {
	if err := s.enter(); err != nil {
		return Provider{}, false, err
	}
	defer s.exit()
	if checkPeer("provider", id) != nil {
		return Provider{}, false, nil
	}
	snap := s.db.NewSnapshot()
	defer snap.Close()
	w, ok, err := getRow(snap, peerKey(prefixProvider, id), decodeProvider)
	if err != nil || !ok {
		return Provider{}, false, err
	}
	p, err := s.readProvider(snap, id, w)
	return p, err == nil, err
}

// ProviderEntry returns the retrieval addresses of a provider and the publisher
// of its last ad, "" if there was none; false if it is not in the registry. It
// reads one row, where Provider may read a thousand.
func (s *Store) ProviderEntry(id peer.ID) (addrs []string, publisher peer.ID, ok bool, err error) {
	if err := s.enter(); err != nil {
		return nil, "", false, err
	}
	defer s.exit()
	if checkPeer("provider", id) != nil {
		return nil, "", false, nil
	}
	w, ok, err := getRow(s.db, peerKey(prefixProvider, id), decodeProvider)
	return w.addrs, w.last.publisher, ok, err
}

// ProviderView is what answers to lookups say of a provider.
type ProviderView struct {
	Known      bool // it is in the registry
	Addrs      []string
	Publisher  peer.ID // of its last ad, "" if there was none
	Chain      *ExtendedSet
	Contextual bool // some context has extended providers of its own
}

// ProviderView reads what answers say of a provider, besides its records.
func (s *Store) ProviderView(id peer.ID) (v ProviderView, err error) {
	if v.Addrs, v.Publisher, v.Known, err = s.ProviderEntry(id); err != nil || !v.Known {
		return v, err
	}
	if err := s.enter(); err != nil {
		return v, err
	}
	defer s.exit()
	it, err := s.db.NewIter(bounds(peerKey(prefixExtended, id), keyEnd(peerKey(prefixExtended, id))))
	if err != nil {
		return v, fmt.Errorf("read extended providers of %s: %w", id, err)
	}
	chain := contextKey(prefixExtended, id, nil)
	for ok := it.First(); ok && !v.Contextual; ok = it.Next() {
		v.Contextual = !bytes.Equal(it.Key(), chain)
	}
	if err = it.Close(); err == nil {
		v.Chain, err = readExtended(s.db, id, nil)
	}
	if err != nil {
		return v, fmt.Errorf("read extended providers of %s: %w", id, err)
	}
	return v, nil
}

// Changes is a number that is another one after each change of anything but
// postings, before the call that made the change returns. What was read after Changes
// returned a number is still so as long as it returns the same.
func (s *Store) Changes() uint64 { return s.changes.Load() }

// Providers returns the whole registry, in the order of provider IDs.
func (s *Store) Providers() ([]Provider, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.exit()
	snap := s.db.NewSnapshot()
	defer snap.Close()
	var all []Provider
	err := scanPrefix(snap, []byte{prefixProvider}, func(k, v []byte) error {
		id, err := parsePeerKey(prefixProvider, k)
		if err != nil {
			return err
		}
		w, err := decodeProvider(v)
		if err != nil {
			return err
		}
		p, err := s.readProvider(snap, id, w)
		all = append(all, p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list providers: %w", err)
	}
	return all, nil
}

// readProvider completes an entry with its extended sets and with what is
// known of its publisher.
func (s *Store) readProvider(r pebble.Reader, id peer.ID, w providerRow) (Provider, error) {
	p := Provider{ID: id, Addrs: w.addrs, LastAd: w.lastAd, LastAdTime: w.lastAdTime, Publisher: w.last.publisher}
	err := scanPrefix(r, peerKey(prefixExtended, id), func(k, v []byte) error {
		_, ctx, err := parseContextKey(prefixExtended, k)
		if err != nil {
			return err
		}
		x, err := decodeExtended(v)
		switch {
		case err != nil || !x.held():
		case len(ctx) == 0:
			p.Extended = &x.set
		default:
			p.Contextual = append(p.Contextual, ContextualSet{ctx, x.set})
		}
		if err == nil && len(p.Contextual) == MaxListed {
			err = errStop
		}
		return err
	})
	s.view.RLock()
	defer s.view.RUnlock()
	info := s.publisher(p.Publisher).info
	p.PublisherAddrs, p.LastError, p.LastErrorTime = info.addrs, info.lastError, info.lastErrorTime
	p.FrozenAt, p.FrozenAtTime = s.frozenAt(p.Publisher)
	return p, err
}

// Extended returns the extended sets that hold for a record: the one of the
// whole chain and the one of its context; nil where there is none.
func (s *Store) Extended(provider peer.ID, contextID []byte) (chain, contextual *ExtendedSet, err error) {
	if err := s.enter(); err != nil {
		return nil, nil, err
	}
	defer s.exit()
	if checkPeer("provider", provider) != nil || len(contextID) > MaxContextIDBytes {
		return nil, nil, nil
	}
	snap := s.db.NewSnapshot()
	defer snap.Close()
	if chain, err = readExtended(snap, provider, nil); err == nil && len(contextID) > 0 {
		contextual, err = readExtended(snap, provider, contextID)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read extended providers of %s: %w", provider, err)
	}
	return chain, contextual, nil
}

func readExtended(r pebble.Reader, provider peer.ID, ctx []byte) (*ExtendedSet, error) {
	w, ok, err := getRow(r, contextKey(prefixExtended, provider, ctx), decodeExtended)
	if err != nil || !ok || !w.held() {
		return nil, err
	}
	w.set.Publisher, w.set.Pos = w.publisher, w.pos
	return &w.set, nil
}

// SetError notes the last error met with a publisher; it shows in all its
// providers. The empty string takes it away.
func (s *Store) SetError(publisher peer.ID, text string, at time.Time) error {
	if len(text) > maxReasonBytes {
		text = text[:maxReasonBytes]
	}
	if text == "" {
		at = time.Time{}
	}
	return s.updateInfo("note error of", publisher, func(info *publisherRow) {
		info.lastError, info.lastErrorTime = text, at
	})
}

// PublisherAddrs returns where a publisher was last reached; nil if unknown.
// The caller must not change the slice.
func (s *Store) PublisherAddrs(publisher peer.ID) []string {
	s.view.RLock()
	defer s.view.RUnlock()
	return s.publisher(publisher).info.addrs
}

// SetPublisherAddrs notes where a publisher is reached.
func (s *Store) SetPublisherAddrs(publisher peer.ID, addrs []string) error {
	if err := checkAddrs(addrs); err != nil {
		return err
	}
	return s.updateInfo("note addresses of", publisher, func(info *publisherRow) {
		info.addrs = append([]string(nil), addrs...)
	})
}

func (s *Store) updateInfo(what string, publisher peer.ID, change func(*publisherRow)) error {
	if err := s.enterWrite(); err != nil {
		return err
	}
	defer s.exit()
	if err := checkPeer("publisher", publisher); err != nil {
		return err
	}
	_, err := s.update(func(t *tx) error {
		info := t.s.publisher(publisher).info
		change(&info)
		return t.setInfo(publisher, info)
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, publisher, err)
	}
	return nil
}

func (t *tx) setPublisherAddrs(pub peer.ID, addrs []string) error {
	info := t.s.publisher(pub).info
	if slices.Equal(info.addrs, addrs) {
		return nil
	}
	info.addrs = append([]string(nil), addrs...)
	return t.setInfo(pub, info)
}

func (t *tx) setInfo(pub peer.ID, info publisherRow) error {
	t.after(func() {
		p := t.s.publisher(pub)
		p.info = info
		t.s.publishers[pub] = p
	})
	return t.set(peerKey(prefixPublisher, pub), info.encode())
}
