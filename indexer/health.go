package indexer

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost-index/signpost/api/health"
	"github.com/signpost-index/signpost/store"
)

const (
	// durableLagLong is how long commits may wait for their sync.
	durableLagLong = 5 * time.Second
	// lately is how long ago what happened is still worth a condition.
	lately = 10 * time.Minute
)

// newBoard joins what this node looks at.
func (ix *Indexer) newBoard() *health.Board {
	checks := []health.Check{
		{Code: health.DiskFilling, Look: ix.diskFilling},
		{Code: health.Frozen, Look: ix.frozen},
		{Code: health.DiskUnmeasured, Look: func(time.Time) string { return ix.disk.trouble() }},
		{Code: health.NoSpace, Look: func(time.Time) string { return text(ix.store.Condition().NoSpace) }},
		{Code: health.StoreFailed, Look: func(time.Time) string { return text(ix.store.Condition().Failed) }},
		{Code: health.StoreDamaged, Look: ix.storeDamaged},
		{Code: health.StoreSlow, Look: ix.storeSlow},
		{Code: health.PublisherGap, Look: func(time.Time) string { return ix.survey.result().broken() }},
		{Code: health.PublisherLagging, Look: func(time.Time) string { return ix.survey.result().lagging() }},
		{Code: health.PublishersUnreachable, Look: ix.book.unreachable},
	}
	if ix.mirror != nil || ix.mirrorFrom != nil {
		grown := &health.Growth{Within: lately, Counters: ix.ingester.MirrorFailures()}
		checks = append(checks, health.Check{Code: health.MirrorFailing, Look: grown.Said("%.0f advertisements or blocks")})
	}
	if ix.gossip != nil {
		grown := &health.Growth{Within: lately, Counters: []prometheus.Collector{ix.gossip.Dropped()}}
		checks = append(checks,
			health.Check{Code: health.GossipAlone, Look: func(time.Time) string { return health.Alone(ix.gossip.Peers()) }},
			health.Check{Code: health.AnnouncesDropped, Look: grown.Said("%.0f announces by gossip: the node was busy")})
	}
	if ix.cfg.Denylist != nil {
		checks = append(checks, health.Check{Code: health.DenylistStale, Look: func(time.Time) string { return ix.cfg.Denylist.Stale() }})
	}
	return health.New(health.Config{Checks: checks, Logger: ix.log, Registerer: ix.registry})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (ix *Indexer) diskFilling(time.Time) string {
	r := ix.disk.last.Load()
	if r == nil || !r.near || ix.store.Frozen() {
		return ""
	}
	left := "no growth in the last minute"
	if r.growing {
		left = r.left.Round(time.Second).String() + " left"
	}
	return fmt.Sprintf("%.1f %% of the fullest in use, the node freezes at %.1f %%; %s", r.percent, r.limit, left)
}

func (ix *Indexer) frozen(time.Time) string {
	if !ix.store.Frozen() {
		return ""
	}
	since, why := ix.store.FrozenSince()
	return fmt.Sprintf("since %s: %s", since.UTC().Format(time.RFC3339), why)
}

func (ix *Indexer) storeDamaged(time.Time) string {
	share := ix.store.Condition().LostShare
	if share == 0 {
		return ""
	}
	return fmt.Sprintf("%.4g of all multihashes may have lost something", share)
}

func (ix *Indexer) storeSlow(time.Time) string {
	c := ix.store.Condition()
	if c.Failed != nil || c.DurableLag < durableLagLong {
		return ""
	}
	return fmt.Sprintf("the oldest commit has waited for %s", c.DurableLag.Round(time.Second))
}

// trouble says in words that usage cannot be measured, or a freeze written.
func (d *diskWatch) trouble() string {
	if why := d.why.Load(); why != nil {
		return *why
	}
	return ""
}

// unreachable says in words that less than half of the publishers tried lately
// were reached.
func (b *publisherBook) unreachable(now time.Time) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	from := now.Add(-b.cfg.recent())
	tried, reached := 0, 0
	for _, e := range b.entries {
		if e.st.Phase == store.PhaseRemoved || e.last.at.IsZero() || e.last.at.Before(from) {
			continue
		}
		tried++
		if e.last.reached {
			reached++
		}
	}
	if tried == 0 || 2*reached >= tried {
		return ""
	}
	return fmt.Sprintf("%d of %d were reached at their last try", reached, tried)
}
