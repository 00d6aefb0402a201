package indexer

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/signpost-index/signpost/api/admin"
)

// rateEvery is how often multihashes are counted for their rate.
const rateEvery = 5 * time.Second

// ingestRate is how fast content comes, averaged over about a minute. It is
// safe for concurrent use.
type ingestRate struct {
	count func() uint64

	mu   sync.Mutex
	seen forecast
}

// run counts until ctx ends.
func (r *ingestRate) run(ctx context.Context) error {
	tick := time.NewTicker(rateEvery)
	defer tick.Stop()
	for {
		r.look()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (r *ingestRate) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen.see(time.Now(), float64(r.count()))
}

// perSecond is the rate, multihashes a second.
func (r *ingestRate) perSecond() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen.rate()
}

// localNode is the node as an admin.Node.
type localNode struct{ ix *Indexer }

// Node is the node as a whole.
func (ix *Indexer) Node() admin.Node { return localNode{ix} }

func (n localNode) Node(context.Context) (admin.NodeStatus, error) {
	st := n.ix.store
	s := admin.NodeStatus{
		ID: n.ix.id, Version: n.ix.cfg.Version, Started: n.ix.since, Frozen: st.Frozen(), HeldSeconds: n.ix.disk.heldFor().Seconds(), FreezePercent: n.ix.cfg.FreezePercent, Usage: n.ix.disk.percent(),
		StoredBytes: st.DiskUsage(), QuotaBytes: n.ix.cfg.DiskQuotaBytes, MultihashesPerSecond: n.ix.rate.perSecond(),
	}
	var why string
	s.FrozenSince, why = st.FrozenSince()
	if by, text, ok := strings.Cut(why, ": "); ok {
		s.FrozenBy, s.FrozenWhy = admin.FrozenBy(by), text
	}
	publishers := st.Publishers()
	s.Publishers = len(publishers)
	for _, id := range publishers {
		s.PendingAds += st.Progress(id).Pending
	}
	s.LostShare = st.Condition().LostShare
	if left, err := st.Reapplying(); err == nil {
		s.Reindexing = &left
	} else {
		n.ix.log.Error("how far a reindex is cannot be told", "err", err)
	}
	if r := n.ix.disk.last.Load(); r != nil {
		s.FreezePercent = r.limit
		s.NearFreeze = r.near
		if r.growing {
			left := r.left.Seconds()
			s.FreezeSeconds = &left
		}
		for _, v := range r.volumes {
			if !v.quota {
				s.Disks = append(s.Disks, diskOf(v))
			}
		}
	}
	return s, nil
}

func diskOf(v volume) admin.Disk {
	return admin.Disk{
		Dirs: v.dirs, UsedBytes: v.usage.used, TotalBytes: v.usage.total, FreeBytes: v.usage.free, MinFreeBytes: v.minFree,
		Usage: v.percent(), GrowthBytesPerSecond: v.growth.rate(),
	}
}

// Hold is on disk when it returns nil.
func (n localNode) Hold(_ context.Context, d time.Duration, reason string) error {
	return n.ix.disk.holdFor(d, reason)
}

// Unfreeze has what was skipped meanwhile fetched.
func (n localNode) Unfreeze(context.Context) error {
	if err := n.ix.disk.unfreeze(); err != nil {
		return err
	}
	return n.ix.book.revisitLeaning()
}
