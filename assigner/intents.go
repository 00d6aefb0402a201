package assigner

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
)

// Bounds of Intents.
const (
	maxAddedLines  = 1000
	maxWishes      = 10_000 // of each other kind
	maxPinned      = 64     // indexers of one pin
	maxCopies      = 64
	maxReasonBytes = 256
)

// Intents are an operator's wishes. What is so stands at the indexers; this is
// what should be. A value is replaced, never edited: its methods return another.
// Lists are in ascending order of what they are about, added members in the order
// they came.
type Intents struct {
	// Added are members besides those of the pool file, Removed members of either
	// that are left out.
	Added   []admin.PoolLine `json:",omitempty"`
	Removed []Removal        `json:",omitempty"`
	// Drains are indexers to be emptied.
	Drains []Drain `json:",omitempty"`
	// Copies are publishers with a replication of their own.
	Copies []Copies `json:",omitempty"`
	// Pins are publishers that go to certain indexers and to no other.
	Pins   []Pin  `json:",omitempty"`
	Policy Policy `json:",omitzero"`
	// NoRebalance: publishers are not moved to even out load.
	NoRebalance bool `json:",omitzero"`
}

// Removal is a member that is left out of the pool, by its admin URL, its ID or
// both.
type Removal struct {
	Admin   string  `json:",omitempty"`
	Indexer peer.ID `json:",omitempty"`
	Wish
}

// Drain is an indexer whose publishers go to others.
type Drain struct {
	Indexer peer.ID
	Paused  bool `json:",omitzero"` // nothing moves, and nothing comes
	Wish
}

// Wish is when, why and by whom something was asked for. The two texts are for
// people, of one line and at most 256 bytes; they may be empty.
type Wish struct {
	Since  time.Time `json:",omitzero"`
	By     string    `json:",omitempty"`
	Reason string    `json:",omitempty"`
}

// Copies is the replication of one publisher, from 1 to 64.
type Copies struct {
	Publisher peer.ID
	Copies    int
}

// Pin binds a publisher to indexers, 1 to 64.
type Pin struct {
	Publisher peer.ID
	Indexers  []peer.ID
}

// Policy is which publishers the pool takes: all but the exceptions, or with
// Deny none but them.
type Policy struct {
	Deny   bool      `json:",omitzero"`
	Except []peer.ID `json:",omitempty"`
}

// Allows reports whether the pool takes the publisher.
func (p Policy) Allows(publisher peer.ID) bool {
	_, except := slices.BinarySearch(p.Except, publisher)
	return p.Deny == except
}

// Drained reports whether the indexer is to be emptied.
func (in Intents) Drained(indexer peer.ID) bool {
	_, ok := search(in.Drains, indexer, Drain.about)
	return ok
}

func (in Intents) drainPaused(indexer peer.ID) bool {
	i, ok := search(in.Drains, indexer, Drain.about)
	return ok && in.Drains[i].Paused
}

// CopiesOf is the replication of the publisher, or def if it has none of its own.
func (in Intents) CopiesOf(publisher peer.ID, def int) int {
	if i, ok := search(in.Copies, publisher, Copies.about); ok {
		return in.Copies[i].Copies
	}
	return def
}

// PinnedTo returns the indexers the publisher goes to and no other, or nil if it
// may go anywhere. The caller does not change them.
func (in Intents) PinnedTo(publisher peer.ID) []peer.ID {
	if i, ok := search(in.Pins, publisher, Pin.about); ok {
		return in.Pins[i].Indexers
	}
	return nil
}

// removes reports whether the member at the admin URL, whose ID may not be known
// yet, is left out.
func (in Intents) removes(adminURL string, id peer.ID) bool {
	return slices.ContainsFunc(in.Removed, func(r Removal) bool { return r.is(adminURL, id) })
}

func (r Removal) is(adminURL string, id peer.ID) bool {
	return r.Admin != "" && r.Admin == adminURL || r.Indexer != "" && r.Indexer == id
}

func (d Drain) about() peer.ID  { return d.Indexer }
func (c Copies) about() peer.ID { return c.Publisher }
func (p Pin) about() peer.ID    { return p.Publisher }

func search[T any](list []T, id peer.ID, about func(T) peer.ID) (int, bool) {
	return slices.BinarySearchFunc(list, id, func(t T, id peer.ID) int { return cmp.Compare(about(t), id) })
}

// put returns list with t in its place, instead of what it has about the same.
func put[T any](list []T, t T, about func(T) peer.ID) ([]T, error) {
	i, found := search(list, about(t), about)
	list = slices.Clone(list)
	if found {
		list[i] = t
		return list, nil
	}
	if len(list) >= maxWishes {
		return nil, fmt.Errorf("%w: there are %d such wishes already, which is all there is room for", admin.ErrRefused, maxWishes)
	}
	return slices.Insert(list, i, t), nil
}

// drop returns list without what it has about id; ok is false if that is nothing.
func drop[T any](list []T, id peer.ID, about func(T) peer.ID) (_ []T, ok bool) {
	i, found := search(list, id, about)
	if !found {
		return list, false
	}
	return slices.Delete(slices.Clone(list), i, i+1), true
}

// add puts a line into the pool. A member that was removed, and is named by the
// same admin URL, comes back.
func (in Intents) add(l admin.PoolLine) (Intents, error) {
	for _, old := range in.Added {
		if old.String() == l.String() || l.Admin != "" && old.Admin == l.Admin || l.Name() != "" && old.Name() == l.Name() {
			return in, fmt.Errorf("%w: it was added already, as %s", admin.ErrRefused, old)
		}
	}
	if len(in.Added) >= maxAddedLines {
		return in, fmt.Errorf("%w: %d members were added already: write them into the pool file", admin.ErrRefused, maxAddedLines)
	}
	in.Added = append(slices.Clone(in.Added), l)
	in.Removed = slices.DeleteFunc(slices.Clone(in.Removed), func(r Removal) bool { return l.Admin != "" && r.Admin == l.Admin })
	return in, nil
}

// removeName takes the line back that was added with a DNS name.
func (in Intents) removeName(name string) Intents {
	in.Added = slices.DeleteFunc(slices.Clone(in.Added), func(l admin.PoolLine) bool { return l.Name() == name })
	return in
}

// remove leaves a member out. One that was added is no longer added; if the pool
// file or a DNS name brings it as well, elsewhere says so, it is left out of those.
func (in Intents) remove(r Removal, elsewhere bool) (Intents, error) {
	if r.Admin == "" && r.Indexer == "" {
		return in, fmt.Errorf("%w: name the indexer by its admin URL or its peer ID", admin.ErrBadRequest)
	}
	in.Added = slices.DeleteFunc(slices.Clone(in.Added), func(l admin.PoolLine) bool { return l.Admin != "" && l.Admin == r.Admin })
	if r.Indexer != "" {
		in.Drains, _ = drop(in.Drains, r.Indexer, Drain.about)
	}
	if !elsewhere || in.removes(r.Admin, r.Indexer) {
		return in, nil
	}
	if len(in.Removed) >= maxWishes {
		return in, fmt.Errorf("%w: %d members are removed already: take them out of the pool file", admin.ErrRefused, maxWishes)
	}
	r.Wish = r.Wish.plain()
	in.Removed = append(slices.Clone(in.Removed), r)
	slices.SortFunc(in.Removed, func(a, b Removal) int {
		return cmp.Or(cmp.Compare(a.Admin, b.Admin), cmp.Compare(a.Indexer, b.Indexer))
	})
	return in, nil
}

func (in Intents) drain(d Drain) (_ Intents, err error) {
	d.Wish = d.Wish.plain()
	in.Drains, err = put(in.Drains, d, Drain.about)
	return in, err
}

func (in Intents) undrain(indexer peer.ID) (Intents, error) {
	var ok bool
	if in.Drains, ok = drop(in.Drains, indexer, Drain.about); !ok {
		return in, fmt.Errorf("%w: indexer %s is not drained", admin.ErrNotFound, indexer)
	}
	return in, nil
}

// pauseDrain has a drain stop, or go on.
func (in Intents) pauseDrain(indexer peer.ID, paused bool) (_ Intents, err error) {
	i, ok := search(in.Drains, indexer, Drain.about)
	if !ok {
		return in, fmt.Errorf("%w: indexer %s is not drained", admin.ErrNotFound, indexer)
	}
	d := in.Drains[i]
	d.Paused = paused
	in.Drains, err = put(in.Drains, d, Drain.about)
	return in, err
}

// setCopies gives a publisher a replication of its own; 0 takes it away.
func (in Intents) setCopies(publisher peer.ID, copies int) (_ Intents, err error) {
	switch {
	case copies == 0:
		in.Copies, _ = drop(in.Copies, publisher, Copies.about)
		return in, nil
	case copies < 0 || copies > maxCopies:
		return in, fmt.Errorf("%w: %d copies: want 1 to %d, or 0 for the pool's setting", admin.ErrBadRequest, copies, maxCopies)
	}
	in.Copies, err = put(in.Copies, Copies{publisher, copies}, Copies.about)
	return in, err
}

// pin binds a publisher to indexers; none frees it.
func (in Intents) pin(publisher peer.ID, indexers []peer.ID) (_ Intents, err error) {
	indexers = slices.Compact(slices.Sorted(slices.Values(indexers)))
	switch {
	case len(indexers) == 0:
		in.Pins, _ = drop(in.Pins, publisher, Pin.about)
		return in, nil
	case len(indexers) > maxPinned:
		return in, fmt.Errorf("%w: %d indexers: want at most %d", admin.ErrBadRequest, len(indexers), maxPinned)
	}
	in.Pins, err = put(in.Pins, Pin{publisher, indexers}, Pin.about)
	return in, err
}

// setAllowed allows or denies one publisher.
func (in Intents) setAllowed(publisher peer.ID, allowed bool) (_ Intents, err error) {
	self := func(id peer.ID) peer.ID { return id }
	if allowed == !in.Policy.Deny {
		in.Policy.Except, _ = drop(in.Policy.Except, publisher, self)
		return in, nil
	}
	in.Policy.Except, err = put(in.Policy.Except, publisher, self)
	return in, err
}

// setDefault allows or denies all publishers, and forgets the exceptions.
func (in Intents) setDefault(allowed bool) Intents {
	in.Policy = Policy{Deny: !allowed}
	return in
}

func (in Intents) setRebalance(on bool) Intents {
	in.NoRebalance = !on
	return in
}

// plain is w as it can be written into a line.
func (w Wish) plain() Wish {
	w.By, w.Reason = plainText(w.By), plainText(w.Reason)
	w.Since = w.Since.UTC().Truncate(time.Second)
	return w
}

// plainText is s on one line, printable, and at most maxReasonBytes long.
func plainText(s string) string {
	s = api.PlainText(s, maxReasonBytes)
	for len(s) > maxReasonBytes {
		s = s[:len(s)-1]
	}
	return api.PlainText(s, 0) // a character cut in two is gone
}
