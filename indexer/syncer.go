package indexer

import (
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/ingest"
)

// ingestSyncs is the ingester as the book of publishers uses it.
type ingestSyncs struct{ ix *Indexer }

func (s ingestSyncs) poll(info peer.AddrInfo) error {
	info.Addrs = multiaddrsOf(s.ix.store, info)
	if len(info.Addrs) == 0 && len(s.ix.store.PublisherAddrs(info.ID)) == 0 {
		return ingest.ErrUnknownPublisher
	}
	return s.ix.ingester.Notify(info, cid.Undef)
}

func (s ingestSyncs) reindex(publisher peer.ID) error {
	return s.ix.ingester.Sync(publisher, ingest.SyncOptions{Resync: true})
}

func (s ingestSyncs) reindexing() map[peer.ID]bool {
	running := make(map[peer.ID]bool)
	for _, id := range s.ix.ingester.Syncing() {
		running[id] = true
	}
	return running
}

// reindexed goes by the newest run of the publisher: an explicit sync is tried
// until it succeeds, unless it is forgotten, which the book notes itself.
func (s ingestSyncs) reindexed(publisher peer.ID, since time.Time) bool {
	st, ok := s.ix.ingester.Status(publisher)
	if !ok || len(st.ProcessingHistory) == 0 {
		return false
	}
	last := st.ProcessingHistory[0]
	return last.Error == "" && !last.StartTime.Before(since.Truncate(time.Second))
}

func (s ingestSyncs) forget(publisher peer.ID) { s.ix.ingester.Forget(publisher) }
