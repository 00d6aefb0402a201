package e2e

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/signpost-index/signpost/api/admin"
)

// fullStory is a pool whose indexers have small disks of their own.
type fullStory struct {
	t     *testing.T
	p     *pool
	b     *ledger
	disks map[*indexer]string
	batch int // ads published at once
	mhs   int // of an ad
	heads []cid.Cid
}

// What the nodes of a fullStory are told about their disks. Beyond the limit there is
// room for what memory still holds and for compactions, as the reserve by default
// sees to, which is for larger disks.
const (
	fullFreezeAt = 75
	fullReserve  = 16 << 20
)

// TestNodesWithSmallDisksFillAndHandOff: a publisher goes on and on, until its
// node freezes because its disk, a real one, is used to the limit, with room left. It goes
// on at another node, nothing is lost or stored twice, and removals of what the
// frozen node holds take effect there within a minute.
func TestNodesWithSmallDisksFillAndHandOff(t *testing.T) {
	t.Parallel()
	size, room := 128<<20, 4<<20
	s := &fullStory{t: t, b: newLedger(t, "fills disks"), disks: make(map[*indexer]string), batch: 250, mhs: 4}
	if os.Getenv("SIGNPOST_SOAK") == "1" {
		size, room, s.mhs = 256<<20, 24<<20, 20
	}
	s.b.cutOff = true
	s.start(size)
	s.publish()
	full := s.p.owner(t, s.b.id)
	untilDone(t, full.Ingest, s.b.chain) // from now on there is a mark
	s.fillBut(full, room)
	s.untilHandedOff(full)
	to := s.p.owner(t, s.b.id)
	for range 3 {
		s.publish()
	}
	untilIndexed(t, to.Ingest, s.b.head)

	s.withdrawn(full, to)
	s.mustBeSound(full)
	full.kill()
	client.CloseIdleConnections()
	full.restart()
	s.withdrawn(full, to)
	s.publish()
	untilIndexed(t, to.Ingest, s.b.head)
	s.p.mustEnd(t, s.b)
	s.mustBeSound(full)
	t.Logf("%d ads, %d multihashes", len(s.b.ads), len(s.b.want))
}

func (s *fullStory) start(size int) {
	s.t.Helper()
	dir := workDir(s.t)
	s.p = &pool{dir: dir}
	for n := range 3 {
		name := fmt.Sprintf("indexer-%d", n+1)
		disk := smallDisk(s.t, filepath.Join(dir, "disk of "+name), size)
		ix := startIndexer(s.t, dir, name, "--assigned-only", "--data", filepath.Join(disk, "data"),
			"--freeze-at", fmt.Sprint(fullFreezeAt), "--disk-reserve", fmt.Sprint(fullReserve),
			"--store-memory", "64MiB", "--ingest-memory", "32MiB")
		s.disks[ix] = disk
		s.p.indexers = append(s.p.indexers, ix)
	}
	s.p.file = writePool(s.t, dir, s.p.indexers...)
	s.p.startAssigner(s.t, anyPort, "--journal", filepath.Join(dir, "journal"))
	s.p.frontend = startFrontend(s.t, dir, s.p.file)
}

// fillBut puts a file of somebody else's on the disk of an indexer, which leaves
// so many bytes until it is used to the limit.
func (s *fullStory) fillBut(ix *indexer, room int) {
	s.t.Helper()
	size, free := fileSystem(s.t, s.disks[ix])
	n := int(size*fullFreezeAt/100-(size-free)) - room
	if err := os.WriteFile(filepath.Join(s.disks[ix], "somebody else's"), bytes.Repeat([]byte{1}, n), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// publish publishes and announces a batch, of which metadata take most room on
// disk. It stays at most two batches ahead of the pool.
func (s *fullStory) publish() {
	s.t.Helper()
	for range s.batch {
		metadata := make([]byte, 1000)
		_, _ = rand.Read(metadata) // never fails
		s.b.publishWith(fmt.Sprintf("context %d", len(s.b.ads)), s.mhs, append(bitswap[:2:2], metadata...))
	}
	s.heads = append(s.heads, s.b.head)
	s.b.announce(s.p.announce)
	if len(s.heads) < 3 {
		return
	}
	s.p.untilSomewhere(s.t, s.heads[len(s.heads)-3])
}

// untilHandedOff publishes until the node is frozen and another owns the publisher.
func (s *fullStory) untilHandedOff(full *indexer) {
	s.t.Helper()
	var frozen time.Time
	for began := time.Now(); ; {
		s.publish()
		n, err := full.api().Node(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		if n.Frozen && frozen.IsZero() {
			frozen = time.Now()
			s.t.Logf("frozen after %v and %d ads: %s", time.Since(began).Round(time.Millisecond), len(s.b.ads), n.FrozenWhy)
			if n.FrozenBy != admin.FrozenByPercent {
				s.t.Errorf("frozen by %s, want by %s", n.FrozenBy, admin.FrozenByPercent)
			}
		}
		owners, err := ownersOf(s.p.others(full), s.b.id)
		if err != nil {
			s.t.Fatal(err)
		}
		if len(owners) == 1 {
			s.t.Logf("handed off %v later, at %d ads", time.Since(frozen).Round(time.Millisecond), len(s.b.ads))
			return
		}
		if time.Since(began) > 5*patience {
			s.t.Fatalf("not handed off after %d ads: node %+v", len(s.b.ads), n)
		}
	}
}

// withdrawn publishes removals of what the frozen node has and of what the other
// has; within a minute nothing of it is found any more.
func (s *fullStory) withdrawn(full, to *indexer) {
	s.t.Helper()
	parts, _, err := s.b.parts(s.p.indexers)
	if err != nil {
		s.t.Fatal(err)
	}
	gone := make(index)
	done := map[*indexer]int{}
	for _, p := range parts {
		for n := p.from + 1; n <= p.to && done[p.on] < 3; n++ {
			if a := &s.b.ads[n]; len(a.mhs) > 0 && !a.gone {
				s.b.withdraw(n)
				gone.with("", s.b.ads[n].mhs)
				done[p.on]++
			}
		}
	}
	if done[full] == 0 || done[to] == 0 {
		s.t.Fatalf("nothing to remove on one of the nodes: %s", describe(parts))
	}
	began := time.Now()
	s.b.announce(s.p.announce)
	eventually(s.t, "what is removed is not found", func() error { return gone.check(s.p.frontend) })
	if took := time.Since(began); took > time.Minute {
		s.t.Errorf("removals took %v, want a minute at most", took)
	} else {
		s.t.Logf("removals at the frozen node took %v", took.Round(time.Millisecond))
	}
}

// mustBeSound: the node is frozen, well, and has not met the end of its disk.
func (s *fullStory) mustBeSound(full *indexer) {
	s.t.Helper()
	if _, free := fileSystem(s.t, s.disks[full]); free < fullReserve {
		s.t.Errorf("only %d bytes are free on the disk of the frozen node, want the reserve of %d", free, fullReserve)
	}
	for _, ix := range s.p.indexers {
		if a := mustGet(s.t, ix.Admin+"/healthcheck", ""); a.status != http.StatusOK {
			s.t.Errorf("%s: healthcheck %d %s", ix.name, a.status, a.body)
		}
		for _, bad := range []string{"no space", "write to disk failed", "disk watch"} {
			if strings.Contains(ix.log(), bad) {
				s.t.Errorf("%s has logged %q; see %s", ix.name, bad, ix.stderr)
			}
		}
	}
	if n, err := full.api().Node(s.t.Context()); err != nil || !n.Frozen {
		s.t.Errorf("node %+v, %v; want it frozen", n, err)
	}
}
