package assigner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
	"go.uber.org/goleak"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api/admin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mode is how a fake behaves towards whoever calls it.
type mode string

const (
	up        mode = "up"
	isDown    mode = "down" // connection refused
	hung      mode = "hung" // accepts, never answers
	hungSteps mode = "hung-steps"
)

// fakeIndexer is an admin.Indexer with an announce endpoint, in memory. What it
// is told to do it does as the reference would, a handoff of what the frozen
// indexer has no content of included.
type fakeIndexer struct {
	noRoles
	id    peer.ID
	fakes func(findURL string) *fakeIndexer // whom a handoff asks

	mu          sync.Mutex
	mode        mode
	frozen      bool
	strict      bool                // refuses a handoff of what the frozen indexer does not know
	assigned    map[peer.ID]peer.ID // publisher -> continued
	preferred   []peer.ID
	refuses     map[peer.ID]bool
	content     map[peer.ID]bool    // publishers it has ads of
	heads       map[peer.ID]cid.Cid // newest announce accepted
	asked       int                 // calls of Status
	announces   int                 // announces accepted
	synced      []peer.ID           // publishers it was asked to poll
	syncTakes   time.Duration       // how long that takes
	syncFails   int                 // how many of the next such calls fail
	syncErr     error               // what the others return
	syncing     int                 // such calls now
	mostSyncing int
	did         []string      // assignments and handoffs carried out
	acted       chan struct{} // signalled after did or heads grew; may be nil
}

var _ client = (*fakeIndexer)(nil)

// noRoles is what an indexer of others says to what only ours do.
type noRoles struct{}

func (noRoles) Node(context.Context) (admin.NodeStatus, error) {
	return admin.NodeStatus{}, admin.ErrNotFound
}
func (noRoles) Hold(context.Context, time.Duration, string) error { return admin.ErrNotSupported }
func (noRoles) Unfreeze(context.Context) error                    { return admin.ErrNotSupported }
func (noRoles) Roles(context.Context, string) (*admin.Roles, error) {
	return nil, admin.ErrNotSupported
}
func (noRoles) Close(context.Context, []peer.ID) ([]admin.Offer, error) {
	return nil, admin.ErrNotSupported
}
func (noRoles) TakeOver(context.Context, admin.TakeOver) ([]admin.Outcome, error) {
	return nil, admin.ErrNotSupported
}
func (noRoles) Open(context.Context, []peer.ID) ([]admin.Outcome, error) {
	return nil, admin.ErrNotSupported
}
func (noRoles) Backfill(context.Context, []peer.ID) ([]admin.Outcome, error) {
	return nil, admin.ErrNotSupported
}
func (noRoles) Release(context.Context, []peer.ID) ([]admin.Outcome, error) {
	return nil, admin.ErrNotSupported
}
func (noRoles) Coverage(context.Context) (admin.Coverage, error) {
	return admin.Coverage{}, admin.ErrNotSupported
}
func (noRoles) PoolMap(context.Context) (admin.PoolMap, error) {
	return admin.PoolMap{}, admin.ErrNotSupported
}
func (noRoles) Reindex(context.Context) (admin.Reindexed, error) {
	return admin.Reindexed{}, admin.ErrNotSupported
}
func (noRoles) MarkWhole(context.Context, bool) error           { return admin.ErrNotSupported }
func (noRoles) SetPoolMap(context.Context, admin.PoolMap) error { return admin.ErrNotSupported }

func newFake(id peer.ID) *fakeIndexer {
	return &fakeIndexer{
		id: id, mode: up,
		assigned: make(map[peer.ID]peer.ID), refuses: make(map[peer.ID]bool),
		content: make(map[peer.ID]bool), heads: make(map[peer.ID]cid.Cid),
		acted: make(chan struct{}, 1000),
	}
}

// lock answers as the fake's mode has it: nil, with mu held, or an error.
func (f *fakeIndexer) lock(ctx context.Context, isStep bool) error {
	f.mu.Lock()
	switch m := f.mode; {
	case m == isDown:
		f.mu.Unlock()
		return fmt.Errorf("%w: %w", admin.ErrUnavailable, syscall.ECONNREFUSED)
	case m == hung, m == hungSteps && isStep:
		f.mu.Unlock()
		<-ctx.Done()
		return fmt.Errorf("%w: %w", admin.ErrUnavailable, ctx.Err())
	}
	return nil
}

func (f *fakeIndexer) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeIndexer) Status(ctx context.Context) (admin.Status, error) {
	if err := f.lock(ctx, false); err != nil {
		return admin.Status{}, err
	}
	defer f.mu.Unlock()
	f.asked++
	return admin.Status{ID: f.id, Frozen: f.frozen, Usage: 12.5}, nil
}

func (f *fakeIndexer) Assigned(ctx context.Context) ([]admin.Assignment, error) {
	if err := f.lock(ctx, false); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	var as []admin.Assignment
	for publisher, continued := range f.assigned {
		as = append(as, admin.Assignment{Publisher: publisher, Continued: continued})
	}
	return as, nil
}

func (f *fakeIndexer) Preferred(ctx context.Context) ([]peer.ID, error) {
	if err := f.lock(ctx, false); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	return slices.Clone(f.preferred), nil
}

func (f *fakeIndexer) Assign(ctx context.Context, publisher peer.ID) error {
	if err := f.lock(ctx, true); err != nil {
		return err
	}
	defer f.mu.Unlock()
	return f.take(publisher, "", "assign "+string(publisher))
}

func (f *fakeIndexer) Handoff(ctx context.Context, publisher peer.ID, h admin.Handoff) error {
	frozen := f.fakes(h.FrozenURL)
	if frozen == nil || frozen.id != h.FrozenID {
		return admin.ErrUnavailable
	}
	if err := frozen.lock(ctx, false); err != nil {
		return err
	}
	known := frozen.content[publisher]
	frozen.mu.Unlock()
	if err := f.lock(ctx, true); err != nil {
		return err
	}
	defer f.mu.Unlock()
	if !known && f.strict {
		f.done("handoff " + string(publisher) + " from " + string(h.FrozenID) + ": not found")
		return admin.ErrNotFound
	}
	if !known {
		f.done("handoff " + string(publisher) + " from " + string(h.FrozenID) + ": nothing")
		return nil
	}
	err := f.take(publisher, h.FrozenID, "handoff "+string(publisher)+" from "+string(h.FrozenID))
	if err == nil {
		f.content[publisher] = true // it lists the provider from now on
	}
	return err
}

func (f *fakeIndexer) take(publisher, continued peer.ID, what string) error {
	_, twice := f.assigned[publisher]
	switch {
	case twice:
		return admin.ErrAlreadyAssigned
	case f.refuses[publisher]:
		return admin.ErrNotAllowed
	case f.frozen:
		return admin.ErrFrozen
	}
	f.assigned[publisher] = continued
	f.done(what)
	return nil
}

func (f *fakeIndexer) done(what string) {
	f.did = append(f.did, what)
	f.signal()
}

func (f *fakeIndexer) signal() {
	select {
	case f.acted <- struct{}{}:
	default:
	}
}

// announced is the announce endpoint.
func (f *fakeIndexer) announced(ctx context.Context, a announce.Announce) error {
	if err := f.lock(ctx, false); err != nil {
		return err
	}
	defer f.mu.Unlock()
	if _, ok := f.assigned[a.Publisher.ID]; !ok {
		return announce.ErrNotAllowed
	}
	f.heads[a.Publisher.ID] = a.Head
	f.announces++
	if !f.frozen {
		f.content[a.Publisher.ID] = true
	}
	f.signal()
	return nil
}

var errNotUsed = errors.New("the assigner does not call this")

func (f *fakeIndexer) Unassign(context.Context, peer.ID) error  { return errNotUsed }
func (f *fakeIndexer) Freeze(context.Context) error             { return errNotUsed }
func (f *fakeIndexer) Syncs(context.Context) ([]peer.ID, error) { return nil, errNotUsed }

// Sync notes whom it was asked to poll, and refuses as often as it was told.
func (f *fakeIndexer) Sync(ctx context.Context, publisher peer.ID, _ admin.SyncOptions) error {
	if err := f.lock(ctx, false); err != nil {
		return err
	}
	defer f.mu.Unlock()
	f.syncing++
	f.mostSyncing = max(f.mostSyncing, f.syncing)
	defer func() { f.syncing-- }()
	if d := f.syncTakes; d > 0 {
		f.mu.Unlock()
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		f.mu.Lock()
	}
	if f.syncFails > 0 {
		f.syncFails--
		return admin.ErrUnavailable
	}
	f.synced = append(f.synced, publisher)
	f.signal()
	return f.syncErr
}

// String shows assignments as "publisher<frozen@head".
func (f *fakeIndexer) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	words := []string{string(f.id)}
	if f.frozen {
		words = append(words, "(frozen)")
	}
	for _, publisher := range slices.Sorted(maps.Keys(f.assigned)) {
		w := string(publisher)
		if continued := f.assigned[publisher]; continued != "" {
			w += "<" + string(continued)
		}
		if head, ok := f.heads[publisher]; ok {
			w += "@" + headWord(head)
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

// head makes a CID that holds a word, and headWord reads it.
func head(word string) cid.Cid {
	mh, err := multihash.Encode([]byte(word), multihash.IDENTITY)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.DagJSON, mh)
}

func headWord(c cid.Cid) string {
	mh, err := multihash.Decode(c.Hash())
	if err != nil {
		panic(err)
	}
	return string(mh.Digest)
}

func announceOf(publisher peer.ID, headWord string) announce.Announce {
	addr := multiaddr.StringCast("/ip4/192.0.2.1/tcp/3104/http")
	return announce.Announce{
		Head: head(headWord), Direct: true,
		Publisher: peer.AddrInfo{ID: publisher, Addrs: []multiaddr.Multiaddr{addr}},
	}
}

// idleListener is a listener to which nobody connects; unlike a real one it
// lets a synctest bubble come to rest.
type idleListener struct {
	once   sync.Once
	closed chan struct{}
}

func newIdleListener() *idleListener { return &idleListener{closed: make(chan struct{})} }

func (l *idleListener) Accept() (net.Conn, error) {
	<-l.closed
	return nil, net.ErrClosed
}

func (l *idleListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *idleListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
