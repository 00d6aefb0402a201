package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/admin"
)

// ledger is a publisher that remembers what it has published. Its methods are for
// one goroutine.
type ledger struct {
	*chain
	ads  []ledgerAd // the oldest first
	want index      // what should be found
	// cutOff: a handoff came amid many ads in work. Of those above the handover
	// point that the old owner had begun, parts may be on both indexers.
	cutOff bool
}

// ledgerAd is an ad of a ledger; it has multihashes unless it is a removal.
type ledgerAd struct {
	cid  cid.Cid
	name string // of its context
	mhs  []multihash.Multihash
	gone bool // a later ad removes it
}

func newLedger(t testing.TB, name string) *ledger {
	t.Helper()
	return &ledger{chain: newChain(t, name), want: make(index)}
}

// publish adds n multihashes under a context of their own.
func (b *ledger) publish(n int) {
	b.t.Helper()
	name := fmt.Sprintf("context %d", len(b.ads))
	b.publishWith(name, n, bitswap)
}

func (b *ledger) publishWith(name string, n int, metadata []byte) {
	b.t.Helper()
	mhs := multihashes(b.id.String()+name, n)
	ad := b.ad(name, b.entries(mhs, 1000)[0])
	ad.Metadata = metadata
	b.ads = append(b.ads, ledgerAd{cid: b.push(ad), name: name, mhs: mhs})
	b.want.with(newHolding(b.id, []byte(name), metadata), mhs)
}

// withdraw publishes the removal of what the n-th ad published.
func (b *ledger) withdraw(n int) {
	b.t.Helper()
	a := &b.ads[n]
	a.gone = true
	b.want.with("", a.mhs)
	b.ads = append(b.ads, ledgerAd{cid: b.remove(a.name), name: a.name})
}

// withdrawOldest publishes the removal of the oldest that is published still.
func (b *ledger) withdrawOldest() {
	b.t.Helper()
	if n := slices.IndexFunc(b.ads, func(a ledgerAd) bool { return len(a.mhs) > 0 && !a.gone }); n >= 0 {
		b.withdraw(n)
	}
}

// place is where in the chain an ad of a range is: -1 before the genesis, the
// newest if the range grows.
func (b *ledger) place(ad string, undefined int) (int, error) {
	if ad == "" {
		return undefined, nil
	}
	n := slices.IndexFunc(b.ads, func(a ledgerAd) bool { return a.cid.String() == ad })
	if n < 0 {
		return 0, fmt.Errorf("range names %s, which is no ad of %s", ad, b.id)
	}
	return n, nil
}

// part is a piece of a chain on one indexer: ads after from, to to.
type part struct {
	on       *indexer
	from, to int
	grows    bool
}

// coverage is what the indexer says at its find port.
func (ix *indexer) coverage() (c admin.Coverage, err error) {
	a, err := get(ix.Find+admin.CoveragePath, "")
	if err != nil {
		return c, err
	}
	if a.status != 200 {
		return c, fmt.Errorf("%s: coverage: %d %s", ix.name, a.status, a.body)
	}
	return c, json.NewDecoder(bytes.NewReader(a.body)).Decode(&c)
}

// parts are all pieces of the ledger's chain in the pool, the oldest first, and how
// many indexers own the publisher.
func (b *ledger) parts(indexers []*indexer) (parts []part, owners []*indexer, err error) {
	for _, ix := range indexers {
		c, err := ix.coverage()
		if err != nil {
			return nil, nil, err
		}
		for _, p := range c.Publishers {
			if p.Publisher != b.id {
				continue
			}
			if p.Role == admin.RoleOwner {
				owners = append(owners, ix)
			}
			for _, r := range p.Ranges {
				from, ferr := b.place(r.From, -1)
				to, terr := b.place(r.To, len(b.ads)-1)
				if err := errors.Join(ferr, terr); err != nil {
					return nil, nil, fmt.Errorf("%s: %w", ix.name, err)
				}
				parts = append(parts, part{ix, from, to, r.To == ""})
			}
		}
	}
	slices.SortFunc(parts, func(a, b part) int {
		if a.from != b.from {
			return a.from - b.from
		}
		return a.to - b.to
	})
	return parts, owners, nil
}

// joined reports nil if the publisher has one owner, and the pieces of its chain
// make one whole chain without overlap. Pieces without an ad do not count.
func (b *ledger) joined(indexers []*indexer) error {
	parts, owners, err := b.parts(indexers)
	if err != nil {
		return err
	}
	if len(owners) != 1 {
		return fmt.Errorf("%s has %d owners: %s", b.id, len(owners), describe(parts))
	}
	at := -1
	for n, p := range parts {
		if p.from == p.to && !p.grows {
			continue
		}
		if p.from != at || p.grows != (n == len(parts)-1) || p.grows && p.on != owners[0] {
			return fmt.Errorf("pieces of %s do not join: %s; owner %s", b.id, describe(parts), owners[0].name)
		}
		at = p.to
	}
	if at != len(b.ads)-1 {
		return fmt.Errorf("pieces of %s do not reach the newest ad: %s", b.id, describe(parts))
	}
	return nil
}

// caughtUp reports nil if an owner has nothing undone up to the newest ad. The mark
// of who holds or is frozen says only that nothing there waits.
func (b *ledger) caughtUp(indexers []*indexer) error {
	newest := b.ads[len(b.ads)-1].cid.String()
	for _, ix := range indexers {
		c, err := ix.coverage()
		if err != nil {
			return err
		}
		for _, p := range c.Publishers {
			if p.Publisher == b.id && p.Role == admin.RoleOwner && !c.Frozen && p.Mark == newest && len(p.Gaps) == 0 && !p.More {
				return nil
			}
		}
	}
	return fmt.Errorf("no mark is at %s", newest)
}

func describe(parts []part) (text string) {
	for _, p := range parts {
		text += fmt.Sprintf(" %s(%d,%d]", p.on.name, p.from, p.to)
		if p.grows {
			text += "+"
		}
	}
	return text
}

// keepsToRanges reports nil if each indexer itself finds nothing of ads at or
// below the place where its own piece of the chain begins: what another one held
// before a handoff was not stored again because of it.
func (b *ledger) keepsToRanges(indexers []*indexer) error {
	parts, _, err := b.parts(indexers)
	if err != nil {
		return err
	}
	for _, ix := range indexers {
		lowest := len(b.ads)
		for _, p := range parts {
			if p.on == ix {
				lowest = min(lowest, p.from+1)
			}
		}
		none := make(index)
		for _, a := range b.ads[:lowest] {
			none.with("", b.few(a.mhs))
		}
		if err := none.check(ix.Find); err != nil {
			return fmt.Errorf("%s, whose piece of %s begins at ad %d: %w", ix.name, b.id, lowest, err)
		}
	}
	return nil
}

// few is what of an ad's multihashes each indexer is asked for by itself: all, or
// the first if the chain is long.
func (b *ledger) few(mhs []multihash.Multihash) []multihash.Multihash {
	if len(b.ads) > 1000 {
		return mhs[:min(1, len(mhs))]
	}
	return mhs
}

// onOneIndexer reports nil if each multihash that should be found is found on
// just one indexer.
func (b *ledger) onOneIndexer(indexers []*indexer) error {
	some := make(index)
	for _, a := range b.ads {
		for _, mh := range b.few(a.mhs) {
			some[string(mh)] = b.want[string(mh)]
		}
	}
	return some.each(func(key cid.Cid, want []holding) error {
		times := 0
		for _, ix := range indexers {
			got, err := findJSON(ix.Find, key)
			if err != nil {
				return err
			}
			times += len(got)
		}
		if times != len(want) && !(b.cutOff && len(want) > 0 && times > len(want)) {
			return fmt.Errorf("it is found %d times, want %d", times, len(want))
		}
		return nil
	})
}

// mustEnd waits until the pool has come to rest and holds what the story's
// publishers have published: all is found through the frontend, each publisher
// has one owner, and the pieces of its chain join.
func (p *pool) mustEnd(t testing.TB, ledgers ...*ledger) {
	t.Helper()
	for _, b := range ledgers {
		eventually(t, "one owner, and pieces that join", func() error { return b.joined(p.indexers) })
		eventually(t, "the owner has caught up", func() error { return b.caughtUp(p.indexers) })
		eventually(t, "everything is found through the frontend", func() error { return b.want.check(p.frontend) })
		if err := errors.Join(b.keepsToRanges(p.indexers), b.onOneIndexer(p.indexers)); err != nil {
			t.Error(err)
		}
	}
}

// untilSomewhere waits until some indexer has the ad indexed.
func (p *pool) untilSomewhere(t testing.TB, ad cid.Cid) {
	t.Helper()
	eventually(t, "ad "+ad.String()+" indexed at some indexer", func() error {
		var errs []error
		for _, ix := range p.indexers {
			st, err := getAdStatus(ix.Ingest, ad)
			if err == nil && st.Indexed {
				return nil
			}
			errs = append(errs, fmt.Errorf("%s: %+v, %w", ix.name, st, err))
		}
		return errors.Join(errs...)
	})
}

// owner returns the one indexer that owns the publisher and takes its ads.
func (p *pool) owner(t testing.TB, publisher peer.ID) *indexer {
	t.Helper()
	var found []*indexer
	eventually(t, fmt.Sprintf("publisher %s has one owner", publisher), func() error {
		var err error
		if found, err = ownersOf(p.indexers, publisher); err == nil && len(found) != 1 {
			err = fmt.Errorf("%d owners", len(found))
		}
		return err
	})
	return found[0]
}

// ownersOf are the indexers that own the publisher and are not frozen.
func ownersOf(indexers []*indexer, publisher peer.ID) (found []*indexer, err error) {
	for _, ix := range indexers {
		if !ix.running() {
			continue
		}
		c, err := ix.coverage()
		if err != nil {
			return nil, err
		}
		if !c.Frozen && slices.ContainsFunc(c.Publishers, func(p admin.CoveredPublisher) bool {
			return p.Publisher == publisher && p.Role == admin.RoleOwner
		}) {
			found = append(found, ix)
		}
	}
	return found, nil
}

// others are the indexers of the pool but one.
func (p *pool) others(but *indexer) (out []*indexer) {
	for _, ix := range p.indexers {
		if ix != but {
			out = append(out, ix)
		}
	}
	return out
}

// poolCommand runs signpost pool at the pool's assigner.
func (p *pool) command(t testing.TB, args ...string) result {
	t.Helper()
	return command(t, append([]string{"pool", args[0], "--admin", p.admin}, args[1:]...)...)
}
