package assigner

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

const (
	// pollWithin is when at the latest an owner has been asked to poll all it
	// owns, counted from when it was first read. What fails is asked again until
	// then; pollSpread is the part in which each is asked for the first time.
	pollWithin = 60 * time.Second
	pollSpread = 40 * time.Second
	// pollWorkers is how many of these calls go to one indexer at once.
	pollWorkers = 4
	pollRetry   = 5 * time.Second
	// pollLook is how often a member that has not been read is looked at for it.
	pollLook = 250 * time.Millisecond
)

// pollOnce asks n, once it has been read and this assigner acts, to poll the
// publishers that it owns then: announces made while no assigner ran are lost,
// and this makes up for them. It does so once in a run.
func (a *Assigner) pollOnce(ctx context.Context, n *node) {
	for a.standby.untilActive(ctx) {
		if publishers, read := a.pool.toPoll(n); read {
			a.poll(ctx, n, publishers)
			return
		}
		if !sleep(ctx, pollLook) {
			return
		}
	}
}

// toPoll returns the publishers n owns, if it has been read.
func (p *pool) toPoll(n *node) (publishers []peer.ID, read bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return n.owned(), n.facts != nil && !n.hinted
}

// poll asks for each publisher, spread evenly over pollSpread, and again for
// what failed while there is time.
func (a *Assigner) poll(ctx context.Context, n *node, publishers []peer.ID) {
	within, cancel := context.WithTimeout(ctx, pollWithin)
	defer cancel()
	gap := pollSpread / time.Duration(max(len(publishers), 1))
	left, err := a.pollRound(within, n, publishers, gap)
	for len(left) > 0 && sleep(within, pollRetry) {
		left, err = a.pollRound(within, n, left, 0)
	}
	if ctx.Err() != nil {
		return
	}
	a.metrics.polls.WithLabelValues("failed").Add(float64(len(left)))
	if len(left) > 0 {
		a.log.Warn("publishers not polled after the start: new ads of theirs are found when they announce or the indexer polls by itself",
			"indexer", n.member.Admin, "publishers", len(left), "of", len(publishers), "err", err)
		return
	}
	a.log.Info("indexer asked to poll its publishers", "indexer", n.member.Admin, "publishers", len(publishers))
}

// pollRound asks once for each publisher, the next gap after the last. It
// returns those that failed or were not reached in time, and the last error.
func (a *Assigner) pollRound(ctx context.Context, n *node, publishers []peer.ID, gap time.Duration) (left []peer.ID, err error) {
	due := make(chan peer.ID)
	var wg sync.WaitGroup
	var mu sync.Mutex // guards left and err
	for range pollWorkers {
		wg.Go(func() {
			for publisher := range due {
				if failure := a.pollPublisher(ctx, n, publisher); failure != nil {
					mu.Lock()
					left, err = append(left, publisher), failure
					mu.Unlock()
				}
			}
		})
	}
	sent := 0
	for sent < len(publishers) && hand(ctx, due, publishers[sent]) {
		sent++
		if sent < len(publishers) && !sleep(ctx, gap) {
			break
		}
	}
	close(due)
	wg.Wait()
	return append(left, publishers[sent:]...), err
}

func hand(ctx context.Context, due chan<- peer.ID, publisher peer.ID) bool {
	select {
	case <-ctx.Done():
		return false
	case due <- publisher:
		return true
	}
}

// pollPublisher asks n to poll one publisher, unless an announce was there first.
func (a *Assigner) pollPublisher(ctx context.Context, n *node, publisher peer.ID) error {
	if !a.standby.untilActive(ctx) {
		return ctx.Err()
	}
	ix, needed := a.pool.pollTarget(n, publisher)
	if !needed {
		a.metrics.polls.WithLabelValues("heard").Inc()
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.CallTimeout)
	defer cancel()
	switch err := ix.Sync(ctx, publisher, admin.SyncOptions{}); {
	case err == nil:
		a.metrics.polls.WithLabelValues("asked").Inc()
	case errors.Is(err, admin.ErrSyncRunning):
		a.metrics.polls.WithLabelValues("running").Inc()
	default:
		return err
	}
	return nil
}

// pollTarget returns whom to ask, and whether that is needed: not if an owner
// has taken an announce of the publisher since the start, and the others have it
// queued, or if it is no longer n's.
func (p *pool) pollTarget(n *node, publisher peer.ID) (ix admin.Indexer, needed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.kept.get(publisher)
	return n.indexer, n.isOwner(publisher) && (k == nil || k.takenSeq == 0)
}
