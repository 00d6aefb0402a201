package indexer

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/ingest"
	"github.com/signpost-index/signpost/store"
)

// localIngest is the node's ingest as an admin.IngestOperator.
type localIngest struct{ ix *Indexer }

// IngestOperator is the node's ingest as its operator sees it.
func (ix *Indexer) IngestOperator() admin.IngestOperator { return localIngest{ix} }

// progressScan is how many pending ads are looked through for delayed ones.
const progressScan = 10_000

func (o localIngest) Progress(_ context.Context, publisher peer.ID) (admin.Progress, error) {
	st := o.ix.store
	p := st.Progress(publisher)
	out := admin.Progress{
		Publisher: publisher, Addrs: st.PublisherAddrs(publisher),
		Mark: cidText(p.Mark.Ad), MarkTime: p.MarkTime, Durable: cidText(st.DurableProgress(publisher).Mark.Ad),
		Above: p.AppliedCount, Pending: p.Pending,
	}
	out.LastError, out.LastErrorTime = st.PublisherError(publisher)
	status, known := o.ix.ingester.Status(publisher)
	if known && status.Scan != nil {
		out.Running = session(status)
	}
	scans, err := st.Scans(publisher)
	if err != nil {
		return out, err
	}
	for _, sc := range scans {
		if sc.Trouble.Attempts > 0 {
			out.Gaps = append(out.Gaps, trouble(sc.Next, sc.Trouble))
		}
	}
	ads, err := st.Backlog(publisher, 0, progressScan)
	if err != nil {
		return out, err
	}
	for _, a := range ads {
		if a.Trouble.Attempts > 0 && len(out.Delayed) < admin.MaxTrouble {
			out.Delayed = append(out.Delayed, trouble(a.Ad, a.Trouble))
		}
	}
	if !known && len(out.Addrs) == 0 && out.Mark == "" && out.Pending == 0 && len(scans) == 0 {
		return out, fmt.Errorf("publisher %w", admin.ErrNotFound)
	}
	return out, nil
}

func session(s ingest.SyncStatus) *admin.Session {
	out := &admin.Session{Since: s.Scan.StartTime, Scanned: s.Scan.AdsScanned}
	if p := s.Processing; p != nil {
		out.Done, out.Failed, out.CurrentAd = p.AdsProcessed, p.ErrorCount, p.CurrentAd
	}
	if d := s.Download; d != nil {
		out.Bytes, out.Multihashes = d.BytesDownloaded, d.MultihashCount
	}
	return out
}

func trouble(ad cid.Cid, t store.Trouble) admin.Trouble {
	return admin.Trouble{Ad: ad.String(), Attempts: int(t.Attempts), Since: t.Since, Next: t.Next, Reason: t.Reason}
}

func cidText(c cid.Cid) string {
	if !c.Defined() {
		return ""
	}
	return c.String()
}

func (o localIngest) Requeue(_ context.Context, ad cid.Cid) error {
	publisher, err := o.ix.ingester.Requeue(ad)
	if err == nil {
		o.ix.log.Info("ad requeued on request", "publisher", publisher, "ad", ad)
	}
	return adError(err)
}

func (o localIngest) Skip(_ context.Context, publisher peer.ID, ad cid.Cid, reason string) error {
	return adError(o.ix.ingester.Skip(publisher, ad, reason))
}

// adError gives an error of the ingester its kind.
func adError(err error) error {
	switch {
	case errors.Is(err, ingest.ErrNotRejected), errors.Is(err, ingest.ErrNotPending):
		return fmt.Errorf("%w: %w", admin.ErrNotFound, err)
	case errors.Is(err, ingest.ErrBusy):
		return fmt.Errorf("%w: %w", admin.ErrBusy, err)
	}
	return err
}
