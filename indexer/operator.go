package indexer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/ingest"
	"github.com/signpost-index/signpost/store"
)

// localOperator is the node's store as an admin.Operator.
type localOperator struct{ ix *Indexer }

// Operator is the node's store as its operator sees it.
func (ix *Indexer) Operator() admin.Operator { return localOperator{ix} }

func (o localOperator) Store(context.Context) (admin.StoreStatus, error) {
	s, err := o.ix.store.Stats()
	if err != nil {
		return admin.StoreStatus{}, err
	}
	return admin.StoreStatus{
		Postings: s.Postings, Records: s.Records, Garbage: s.Garbage,
		Multihashes: s.Multihashes, MultihashesError: s.MultihashesError,
		Bytes: admin.StoreBytes{
			Total: s.Bytes, Postings: s.PostingsBytes, Rows: s.RowsBytes, Records: s.RecordsBytes,
			Ledger: s.LedgerBytes, Log: s.LogBytes, Obsolete: s.ObsoleteBytes,
		},
		RemovedProviders: s.RemovedProviders, LostShare: s.LostShare,
		Job: o.ix.jobs.last(),
	}, nil
}

func (o localOperator) StartJob(_ context.Context, kind admin.JobKind) error {
	return o.ix.jobs.start(kind)
}

func (o localOperator) RemoveProvider(_ context.Context, provider peer.ID) error {
	known, err := o.ix.store.RemoveProvider(provider)
	if err != nil {
		return err
	}
	if !known {
		return fmt.Errorf("provider %w", admin.ErrNotFound)
	}
	o.ix.log.Warn("provider removed on request, with all its content", "provider", provider)
	return nil
}

// Reindex starts a resync of every publisher of which content is taken.
func (o localOperator) Reindex(context.Context) (done admin.Reindexed, err error) {
	if o.ix.store.Frozen() {
		return done, fmt.Errorf("%w: nothing that was lost would come back", admin.ErrFrozen)
	}
	for _, p := range o.ix.store.Publishers() {
		err := o.reindex(p)
		switch {
		case errors.Is(err, ingest.ErrUnknownPublisher), errors.Is(err, announce.ErrNotAllowed), errors.Is(err, errClosedHere):
			if !o.chainKnown(p) {
				continue // there is nothing to lose
			}
			o.ix.log.Warn("publisher is not indexed again", "publisher", p, "err", err)
			done.PassedOver++
		case err != nil:
			return done, err
		default:
			done.Publishers++
		}
	}
	if err := o.ix.store.Sync(); err != nil {
		return done, err
	}
	o.ix.log.Info("all ads are applied again on request", "publishers", done.Publishers, "passedOver", done.PassedOver)
	return done, nil
}

var errClosedHere = errors.New("it is closed here, and its content is not taken")

// chainKnown tells whether anything of a publisher's chain was taken on, and not
// given up since.
func (o localOperator) chainKnown(publisher peer.ID) bool {
	p := o.ix.store.Progress(publisher)
	return p.Mark.Ad.Defined() || p.AppliedCount > 0 || p.Pending > 0
}

// reindex has one publisher applied again. The wish is kept, so one who is busy, or
// whose turn does not come yet, gets to it later.
func (o localOperator) reindex(p peer.ID) error {
	if !o.ix.store.Takes(p) {
		return errClosedHere
	}
	err := o.ix.ingester.Sync(p, ingest.SyncOptions{Resync: true})
	if !errors.Is(err, ingest.ErrBusy) {
		return err
	}
	if err := o.ix.store.AddRevisit(p, store.Revisit{All: true}); err != nil {
		return err
	}
	if err := o.ix.ingester.Notify(peer.AddrInfo{ID: p}, cid.Undef); err != nil && !errors.Is(err, ingest.ErrBusy) {
		return err
	}
	return nil
}

func (o localOperator) MarkWhole(_ context.Context, force bool) error {
	if n := len(o.ix.ingester.Syncing()); n > 0 && !force {
		return fmt.Errorf("%w: %d publishers are still being synced", admin.ErrBusy, n)
	}
	if err := o.ix.store.MarkWhole(); err != nil {
		return err
	}
	o.ix.log.Warn("store marked as whole on request: what is not found is a miss again")
	return nil
}

// storeJobs runs work on the whole store, one at a time.
type storeJobs struct {
	store  *store.Store
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu  sync.Mutex
	job *admin.StoreJob // running, or the last one; replaced, never edited
}

func newStoreJobs(st *store.Store, log *slog.Logger) *storeJobs {
	j := &storeJobs{store: st, log: log}
	j.ctx, j.cancel = context.WithCancel(context.Background())
	return j
}

// close ends a running job.
func (j *storeJobs) close() {
	j.cancel()
	j.wg.Wait()
}

func (j *storeJobs) last() *admin.StoreJob {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.job
}

func (j *storeJobs) start(kind admin.JobKind) error {
	work := map[admin.JobKind]func(*admin.StoreJob) error{
		admin.JobCompact: func(*admin.StoreJob) error { return j.store.Compact(j.ctx) },
		admin.JobCheck:   j.check,
		admin.JobRepair:  j.repair,
	}[kind]
	if work == nil {
		return fmt.Errorf("%w: no job %q", admin.ErrBadRequest, kind)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.job.Running() {
		return fmt.Errorf("%w: %s runs since %s", admin.ErrBusy, j.job.Kind, j.job.Started.UTC().Format(time.RFC3339))
	}
	if err := j.ctx.Err(); err != nil {
		return fmt.Errorf("%w: node is stopping", admin.ErrUnavailable)
	}
	begun := admin.StoreJob{Kind: kind, Started: time.Now()}
	j.job = &begun
	j.wg.Go(func() { j.run(begun, work) })
	return nil
}

func (j *storeJobs) run(job admin.StoreJob, work func(*admin.StoreJob) error) {
	j.log.Info("store job begins", "job", job.Kind)
	err := work(&job)
	job.Ended = time.Now()
	if err != nil {
		job.Error = err.Error()
		j.log.Warn("store job failed", "job", job.Kind, "elapsed", job.Ended.Sub(job.Started), "err", err)
	} else {
		j.log.Info("store job done", "job", job.Kind, "elapsed", job.Ended.Sub(job.Started))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.job = &job
}

func (j *storeJobs) check(job *admin.StoreJob) error {
	return j.store.Check(j.ctx, func(d store.Damage) error {
		if job.Damages++; job.Damages <= admin.MaxDamage {
			job.Damage = append(job.Damage, d.String())
			j.log.Error("store is damaged", "part", d.Part, "what", d.What, "err", d.Err)
		}
		return nil
	})
}

func (j *storeJobs) repair(job *admin.StoreJob) error {
	taken, err := j.store.Repair(j.ctx)
	job.Damages = len(taken)
	for _, d := range taken[:min(len(taken), admin.MaxDamage)] {
		job.Damage = append(job.Damage, d.String())
	}
	return err
}
