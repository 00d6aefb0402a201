package indexer

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/store"
)

// withCoverage adds what is held to the find API, for frontends.
func (ix *Indexer) withCoverage(h http.Handler) http.Handler {
	if !ix.cfg.AssignedOnly {
		return h
	}
	return api.Below(admin.CoveragePath, admin.NewCoverageHandler(ix.Roles(), admin.HandlerConfig{Logger: ix.log}), h)
}

// Coverage says what is held, or was a second ago. It may leave something out that came since; it
// names nothing that is not on disk.
func (r localRoles) Coverage(context.Context) (admin.Coverage, error) {
	if err := r.mode(); err != nil {
		return admin.Coverage{}, err
	}
	cache := &r.ix.covered
	cache.mu.Lock()
	defer cache.mu.Unlock()
	if time.Since(cache.last.AsOf) < coverageAge {
		return cache.last, nil
	}
	c, err := r.coverage()
	if err == nil {
		cache.last = c
	}
	return c, err
}

// coverageAge is how long an answer serves: anybody may ask.
const coverageAge = time.Second

// coverageCache keeps the last answer.
type coverageCache struct {
	mu   sync.Mutex
	last admin.Coverage // not to be changed
}

func (r localRoles) coverage() (admin.Coverage, error) {
	c := admin.Coverage{ID: r.ix.id, AsOf: time.Now().UTC(), Frozen: r.ix.store.Frozen(), HeldSeconds: r.ix.disk.heldFor().Seconds()}
	version, states, err := r.states("")
	if err != nil {
		return c, err
	}
	c.Version, c.Frozen = version, c.Frozen && r.ix.store.Frozen()
	for _, st := range states {
		if r.ix.book.isGone(st.Publisher) {
			continue // what it published was removed, and is not here again yet
		}
		p := admin.CoveredPublisher{Publisher: st.Publisher, Role: roleOf(st.Role), Ranges: rangesOf(st.Ranges), Mark: cidText(st.Ad), Height: st.Height, Top: st.Top, More: st.Behind || st.Unsure}
		if n := len(p.Ranges); n > 0 && p.Ranges[n-1].To != "" {
			p.Mark = p.Ranges[n-1].To // what came since was left out
		}
		for _, l := range st.Lacks() {
			p.Lacks = append(p.Lacks, admin.Lack{Indexer: l.From, Ads: cidTexts(l.Ads)})
		}
		p.Also = cidTexts(st.Also())
		// What a frozen one hears of above where it stands it skips.
		if !c.Frozen && st.Role == store.RoleOwner && (st.Pending > 0 || st.Walks > 0) {
			r.gaps(&p)
		}
		c.Publishers = append(c.Publishers, p)
	}
	return c, nil
}

func cidTexts(cids []cid.Cid) (texts []string) {
	for _, c := range cids {
		texts = append(texts, c.String())
	}
	return texts
}

// gaps adds what is known above the mark and not held.
func (r localRoles) gaps(p *admin.CoveredPublisher) {
	progress := r.ix.store.DurableProgress(p.Publisher)
	p.More = p.More || progress.Pending > len(progress.Holes)
	add := func(ad string) {
		if len(p.Gaps) == admin.MaxOfferedAds {
			p.More = true
			return
		}
		p.Gaps = append(p.Gaps, ad)
	}
	for _, sc := range progress.Scans {
		add(cidText(sc.Next))
	}
	for _, ad := range progress.Holes {
		add(cidText(ad.Ad))
	}
}
