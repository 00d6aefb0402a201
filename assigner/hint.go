package assigner

import (
	"context"
	"sync"
	"time"

	"github.com/signpost-index/signpost/api/admin"
)

// hintEvery is how often changed facts are left at the indexers.
const hintEvery = 10 * time.Second

// readHint takes the pool map an indexer keeps, if it is the newest one met. Only
// members that have not been read are known by it.
func (a *Assigner) readHint(ctx context.Context, ix client) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.CallTimeout)
	defer cancel()
	m, err := ix.PoolMap(ctx)
	if err != nil {
		if !foreign(err) {
			a.log.Debug("pool map not read", "err", err)
		}
		return
	}
	if a.pool.takeHint(&m) && a.intents.lost {
		a.takeDrains(m)
	}
}

// takeDrains wishes what an assigner whose intents file is lost was asked for.
func (a *Assigner) takeDrains(m admin.PoolMap) {
	for _, mm := range m.Members {
		if !mm.Draining || a.intents.Current().Drained(mm.ID) {
			continue
		}
		d := Drain{Indexer: mm.ID, Wish: Wish{Since: m.Time, Reason: "known from an indexer's pool map"}}
		err := a.intents.Change(func(in Intents) (Intents, error) { return in.drain(d) })
		a.log.Warn("indexer is drained, as its pool map says; the intents file is lost or there is none", "indexer", mm.ID, "err", err)
		a.events.add(Event{Kind: EventMember, Indexer: mm.ID, Text: "is drained, as its pool map says"})
	}
}

// maxMapVersion is where versions of pool maps end that are taken for one.
const maxMapVersion = 1 << 62

func (p *pool) takeHint(m *admin.PoolMap) (newer bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hint != nil && p.hint.Version >= m.Version || m.Version >= maxMapVersion {
		return false
	}
	p.hint = m
	for _, n := range p.nodes {
		p.useHint(n)
	}
	wake(p.changed)
	return true
}

// useHint gives a member that was never read the facts the pool map has of it.
func (p *pool) useHint(n *node) {
	if p.hint == nil || n.facts != nil && !n.hinted {
		return
	}
	for _, m := range p.hint.Members {
		if m.Admin != n.member.Admin || m.ID == "" || p.hasID(m) {
			continue
		}
		n.facts, n.hinted = factsOf(m), true
		p.cfg.log.Info("indexer was not read yet; what it had is known from a pool map",
			"indexer", m.ID, "url", m.Admin, "publishers", len(m.Publishers), "of", p.hint.Time)
	}
}

func (p *pool) hasID(m admin.MappedMember) bool {
	for _, n := range p.nodes {
		if n.facts != nil && n.facts.id == m.ID && n.member.Admin != m.Admin {
			return true
		}
	}
	return false
}

// mapNow is what is to be left at the indexers, and at which.
func (p *pool) mapNow(now time.Time) (m admin.PoolMap, to []client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m.Time = now
	m.Version = uint64(now.UnixMilli())
	if p.hint != nil {
		m.Version = max(m.Version, p.hint.Version+1)
	}
	for _, n := range p.nodes {
		if n.facts == nil {
			continue
		}
		mm := n.facts.mapped(n.member.Admin)
		mm.Draining = p.wishes().Drained(mm.ID)
		m.Members = append(m.Members, mm)
		if n.up() && !n.facts.plain {
			to = append(to, n.indexer)
		}
	}
	return m, to
}

// leaveHints leaves the pool map at all indexers within reach whenever facts have
// changed, until ctx ends.
func (a *Assigner) leaveHints(ctx context.Context) error {
	var left uint64
	ticker := time.NewTicker(hintEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if n := a.pool.learned(); n != left {
			left = n
			a.leaveHint(ctx)
		}
	}
}

func (a *Assigner) leaveHint(ctx context.Context) {
	m, to := a.pool.mapNow(time.Now())
	m.Assigner = a.id
	ctx, cancel := context.WithTimeout(ctx, a.cfg.CallTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, ix := range to {
		wg.Go(func() {
			if err := ix.SetPoolMap(ctx, m); err != nil && ctx.Err() == nil {
				a.log.Debug("pool map not left", "err", err)
			}
		})
	}
	wg.Wait()
}

// wished says that the operator's wishes changed.
func (p *pool) wished() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changes++
	wake(p.changed)
}

// learned grows whenever a look brought other facts, or wishes changed.
func (p *pool) learned() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changes
}
