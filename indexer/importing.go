package indexer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/ingest"
	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/store"
)

const (
	importTimeout = 60 * time.Second
	// maxImported bounds the providers taken over by one request.
	maxImported = 10_000
	// maxImportedAddrs bounds the addresses taken over of a publisher.
	maxImportedAddrs = 4
	// maxImportedBytes bounds the list: some 3 KB for each of maxImported.
	maxImportedBytes = 32 << 20
)

// ImportProviders takes over the address book of another indexer: providers
// this one does not know, with their publishers, which are then synced. What
// that indexer says of ads and extended providers is not believed; it comes
// with the chains.
func (r localRegistry) ImportProviders(ctx context.Context, baseURL string) error {
	ix := r.ix
	if ix.cfg.AssignedOnly {
		return fmt.Errorf("%w: in an assigner's pool the assigner says whom to follow", admin.ErrUnavailable)
	}
	if ix.store.Frozen() {
		return admin.ErrFrozen
	}
	ctx, cancel := context.WithTimeout(ctx, importTimeout)
	defer cancel()
	hc := ipnisync.NewHTTPClient(ix.cfg.AllowPrivate)
	defer hc.CloseIdleConnections()
	hc.Transport = boundedBodies{hc.Transport}
	client, err := find.NewClient(baseURL, hc)
	if err != nil {
		return fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
	}
	infos, err := client.Providers(ctx)
	if err != nil {
		ix.log.Warn("providers are not imported", "indexer", client, "err", err)
		return fmt.Errorf("%w: %w", admin.ErrUnavailable, err)
	}
	registered, waiting := 0, 0
	for _, info := range infos {
		if registered == maxImported {
			break
		}
		taken, err := ix.importProvider(info)
		switch {
		case errors.Is(err, ingest.ErrBusy):
			waiting++ // it is polled later
		case err != nil:
			return err
		}
		if taken {
			registered++
		}
	}
	ix.log.Info("providers imported on request", "indexer", client, "listed", len(infos), "registered", registered, "waiting", waiting)
	return nil
}

// importProvider registers a provider that is not known and may be, and has
// its publisher synced.
func (ix *Indexer) importProvider(info find.ProviderInfo) (taken bool, err error) {
	id, publisher := info.AddrInfo.ID, info.Publisher
	if id == "" || publisher == nil || len(publisher.Addrs) == 0 || !ix.policy.Load().mayPublish(publisher.ID, id) {
		return false, nil
	}
	if _, _, known, err := ix.store.ProviderEntry(id); err != nil || known {
		return false, err
	}
	entry := store.Provider{ID: id, Addrs: texts(info.AddrInfo.Addrs), Publisher: publisher.ID}
	if len(ix.store.PublisherAddrs(publisher.ID)) == 0 { // what the publisher itself has shown is worth more
		entry.PublisherAddrs = texts(publisher.Addrs[:min(len(publisher.Addrs), maxImportedAddrs)])
	}
	err = ix.store.RegisterProvider(entry)
	if errors.Is(err, store.ErrInvalid) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, ix.ingester.Notify(peer.AddrInfo{ID: publisher.ID, Addrs: publisher.Addrs}, cid.Undef)
}

// boundedBodies ends answers after maxImportedBytes, so that a longer one is
// cut JSON.
type boundedBodies struct{ http.RoundTripper }

func (b boundedBodies) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxImportedBytes), resp.Body}
	}
	return resp, err
}

// CloseIdleConnections is what http.Client asks its transport.
func (b boundedBodies) CloseIdleConnections() {
	if t, ok := b.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}
