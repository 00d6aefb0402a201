package e2e

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api/admin"
)

// ownerIndexer is an indexer that owns publishers and only listens.
type ownerIndexer struct {
	admin.Indexer // none: what is not below is not called
	id            peer.ID
	owns          []admin.Assignment
	admin, ingest *httptest.Server

	mu    sync.Mutex
	heads map[peer.ID]uint64
	taken int
	busy  bool // takes no announce
}

func startOwner(t *testing.T, id peer.ID, ids []peer.ID) *ownerIndexer {
	f := &ownerIndexer{id: id, heads: make(map[peer.ID]uint64)}
	for _, p := range ids {
		f.owns = append(f.owns, admin.Assignment{Publisher: p})
	}
	f.admin = httptest.NewServer(admin.NewHandler(f, admin.HandlerConfig{}))
	f.ingest = httptest.NewServer(announce.NewHandler(f.announced))
	t.Cleanup(f.admin.Close)
	t.Cleanup(f.ingest.Close)
	return f
}

func (f *ownerIndexer) Status(context.Context) (admin.Status, error) {
	return admin.Status{ID: f.id, Usage: 10}, nil
}
func (f *ownerIndexer) Assigned(context.Context) ([]admin.Assignment, error)   { return f.owns, nil }
func (f *ownerIndexer) Preferred(context.Context) ([]peer.ID, error)           { return nil, nil }
func (f *ownerIndexer) Sync(context.Context, peer.ID, admin.SyncOptions) error { return nil }
func (f *ownerIndexer) Assign(context.Context, peer.ID) error                  { return admin.ErrAlreadyAssigned }

func (f *ownerIndexer) announced(_ context.Context, a announce.Announce) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy {
		return announce.ErrUnavailable
	}
	f.heads[a.Publisher.ID] = max(f.heads[a.Publisher.ID], floodNumber(a.Head))
	f.taken++
	return nil
}

func taken(fakes []*ownerIndexer) (n int) {
	for _, f := range fakes {
		f.mu.Lock()
		n += f.taken
		f.mu.Unlock()
	}
	return n
}

func (f *ownerIndexer) setBusy(busy bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy = busy
}

// head is the newest announced of a publisher.
func (f *ownerIndexer) head(publisher peer.ID) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heads[publisher]
}

// ownerPool writes a pool file of owners.
func ownerPool(t *testing.T, dir string, owners ...*ownerIndexer) string {
	t.Helper()
	var lines strings.Builder
	for _, f := range owners {
		fmt.Fprintf(&lines, "find=%s/find ingest=%s admin=%s\n", f.admin.URL, f.ingest.URL, f.admin.URL)
	}
	file := filepath.Join(dir, "pool.txt")
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
