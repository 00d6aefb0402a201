package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/assigner"
)

// assignWithin is how soon a new publisher has an indexer, whatever the others do.
const assignWithin = 5 * time.Second

// TestNodeThatNeverAnswers, stopped or replaced by something that accepts and says
// nothing: new publishers go to others within seconds; those of the node are not
// given away during the grace, and after it go to others, which fetch all from the
// publisher. When the node is back, one owner remains.
func TestNodeThatNeverAnswers(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		hang func(ix *indexer) (comeBack func())
	}{
		{"stopped", func(ix *indexer) func() {
			ix.hang()
			return func() { ix.signal(syscall.SIGCONT) }
		}},
		{"a listener in its place", func(ix *indexer) func() {
			ix.kill()
			silent := listenSilently(ix.t, ix.Find, ix.Ingest, ix.Admin)
			return func() { silent.close(); ix.restart() }
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			const grace = 3 * time.Second
			dir := workDir(t)
			p := startPool(t, dir, 3, "--grace", grace.String(), "--journal", filepath.Join(dir, "journal"))
			b := newLedger(t, "on a node that hangs: "+tc.name)
			for range 3 {
				b.publish(20)
			}
			b.announce(p.announce)
			hung := p.owner(t, b.id)
			untilDone(t, hung.Ingest, b.chain)

			comeBack := tc.hang(hung)
			since := time.Now()
			b.publish(20)
			b.announce(p.announce)
			fresh := p.newcomers(t, "right away "+tc.name, 2, hung)
			eventually(t, "the node is down to the assigner", func() error { return p.stateIs(hung, assigner.StateDown, assigner.StateLost) })
			fresh = append(fresh, p.newcomers(t, "once it is down "+tc.name, 3, hung)...)
			eventually(t, "its publisher has another owner", func() error {
				owners, err := ownersOf(p.others(hung), b.id)
				if err == nil && len(owners) != 1 {
					err = fmt.Errorf("%d owners", len(owners))
				}
				return err
			})
			if after := time.Since(since); after < grace {
				t.Errorf("its publisher was given away after %v, want not within %v", after, grace)
			}
			b.publish(20)
			b.announce(p.announce)
			untilIndexed(t, p.ownerAmong(t, p.others(hung), b.id).Ingest, b.head)
			b.want.mustFind(t, p.ownerAmong(t, p.others(hung), b.id).Find, "at the new owner, from the publisher")

			comeBack()
			p.owner(t, b.id)
			b.publish(20)
			b.withdraw(1)
			b.announce(p.announce)
			untilIndexed(t, p.owner(t, b.id).Ingest, b.head)
			eventually(t, "everything is found", func() error { return b.want.check(p.frontend) })
			if owners, err := ownersOf(p.indexers, b.id); err != nil || len(owners) != 1 {
				t.Errorf("%d owners in the end, %v", len(owners), err)
			}
			p.mustEnd(t, fresh...)
		})
	}
}

// TestPublisherGivenToANodeThatHasJustHungGoesElsewhere: nobody can know yet that
// the node hangs, which has the least to do. Once it has not answered for as long
// as a call may take, another gets the publisher; when it is back one owner
// remains.
func TestPublisherGivenToANodeThatHasJustHungGoesElsewhere(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	p := startPool(t, dir, 2, "--journal", filepath.Join(dir, "journal"))
	busy := newLedger(t, "on the node that goes on")
	busy.publish(100)
	busy.announce(p.announce)
	goesOn := p.owner(t, busy.id)
	untilDone(t, goesOn.Ingest, busy.chain)
	hung := p.others(goesOn)[0]
	hung.signal(syscall.SIGSTOP)
	b := newLedger(t, "new, and nobody knows yet")
	b.publish(20)
	began := time.Now()
	b.announce(p.announce)
	p.ownerAmong(t, []*indexer{goesOn}, b.id)
	took := time.Since(began)
	t.Logf("a publisher given to a node that had just hung was at another after %v", took.Round(time.Millisecond))
	if took > 2*assignWithin {
		t.Errorf("that took %v, want %v at most", took, 2*assignWithin)
	}
	hung.signal(syscall.SIGCONT)
	b.publish(20)
	b.announce(p.announce)
	untilIndexed(t, p.owner(t, b.id).Ingest, b.head)
	eventually(t, "everything is found", func() error { return b.want.check(p.frontend) })
	p.owner(t, b.id)
	p.mustEnd(t, busy)
}

// newcomers are publishers never announced before: each is owned by another
// indexer than the one that hangs, soon.
func (p *pool) newcomers(t *testing.T, name string, n int, but *indexer) (ledgers []*ledger) {
	t.Helper()
	for i := range n {
		b := newLedger(t, fmt.Sprintf("new, %s, %d", name, i))
		b.publish(20)
		began := time.Now()
		b.announce(p.announce)
		ix := p.ownerAmong(t, p.others(but), b.id)
		if took := time.Since(began); took > assignWithin {
			t.Errorf("%s was assigned after %v, want within %v", name, took, assignWithin)
		}
		untilDone(t, ix.Ingest, b.chain)
		ledgers = append(ledgers, b)
	}
	return ledgers
}

func (p *pool) ownerAmong(t *testing.T, some []*indexer, publisher peer.ID) *indexer {
	t.Helper()
	return (&pool{indexers: some}).owner(t, publisher)
}

// stateIs reports nil if the assigner takes the indexer to be in one of these states.
func (p *pool) stateIs(ix *indexer, states ...assigner.State) error {
	a, err := get(p.announce+assigner.PoolPath, "")
	if err != nil {
		return err
	}
	var page assigner.PoolPage
	if err := json.Unmarshal(a.body, &page); err != nil {
		return err
	}
	for _, m := range page.Members {
		if m.Admin == ix.Admin {
			if !slices.Contains(states, m.State) {
				return fmt.Errorf("%s is %s: %s", ix.name, m.State, m.Error)
			}
			return nil
		}
	}
	return fmt.Errorf("%s is not in the pool", ix.name)
}

// silentListeners accept connections and never say anything.
type silentListeners struct {
	lns   []net.Listener
	mu    sync.Mutex
	conns []net.Conn
	wg    sync.WaitGroup
}

func listenSilently(t testing.TB, urls ...string) *silentListeners {
	t.Helper()
	s := new(silentListeners)
	t.Cleanup(s.close)
	for _, u := range urls {
		ln, err := net.Listen("tcp", hostport(u))
		if err != nil {
			t.Fatal(err)
		}
		s.lns = append(s.lns, ln)
		s.wg.Go(func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				s.mu.Lock()
				s.conns = append(s.conns, conn)
				s.mu.Unlock()
			}
		})
	}
	return s
}

// close may be called again.
func (s *silentListeners) close() {
	for _, ln := range s.lns {
		_ = ln.Close()
	}
	s.wg.Wait()
	for _, conn := range s.conns {
		_ = conn.Close()
	}
}

// TestRestartedAssignerKnowsOfANodeThatIsDown by the pool map that it left at the
// others: it does not give away what the node has, announced or not, and assigns
// publishers that are new within seconds, without waiting for the node.
func TestRestartedAssignerKnowsOfANodeThatIsDown(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	p := startPool(t, dir, 3, "--journal", filepath.Join(dir, "journal"))
	b := newLedger(t, "on a node that is down")
	b.publish(20)
	b.publish(20)
	b.announce(p.announce)
	down := p.owner(t, b.id)
	untilDone(t, down.Ingest, b.chain)
	for _, ix := range p.others(down) {
		eventually(t, "the pool map is left", func() error { return ix.mapNames(down, b.id) })
	}
	p.assigner.kill()
	down.kill()
	client.CloseIdleConnections()
	p.restartAssigner(t)
	b.publish(20)
	b.announce(p.announce)
	fresh := p.newcomers(t, "after the restart", 3, down)
	eventually(t, "the node is down to the assigner", func() error { return p.stateIs(down, assigner.StateDown) })
	fresh = append(fresh, p.newcomers(t, "later", 2, down)...)
	if owners, err := ownersOf(p.others(down), b.id); err != nil || len(owners) != 0 {
		t.Errorf("the publisher of the node that is down was given to %d others, %v", len(owners), err)
	}
	down.restart()
	untilIndexed(t, down.Ingest, b.head)
	p.mustEnd(t, append(fresh, b)...)
}

// mapNames reports nil if the pool map at ix says that of has the publisher.
func (ix *indexer) mapNames(of *indexer, publisher peer.ID) error {
	m, err := ix.api().PoolMap(ix.t.Context())
	if err != nil {
		return err
	}
	for _, member := range m.Members {
		if member.ID.String() == of.ID && slices.ContainsFunc(member.Publishers, func(p admin.MappedPublisher) bool { return p.Publisher == publisher }) {
			return nil
		}
	}
	return fmt.Errorf("the map of %s does not name it", ix.name)
}
