package ingest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/ingest/ipnisync"
	"github.com/signpost-index/signpost/store"
)

func timeNow() time.Time { return time.Now() }

// crashRounds is the number of power losses of TestPowerLossAnywhere.
func crashRounds() int {
	if os.Getenv("SIGNPOST_SOAK") != "" {
		return 1000
	}
	return 30
}

// TestPowerLossAnywhere cuts the power of a crashable file system (unsynced
// writes are dropped) at a random block fetch, reopens, and goes on. After
// each cut every ad that was reported durable is fully found; at the end the
// set is exact.
func TestPowerLossAnywhere(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	c := newTestChain(t)
	want := make(map[string][]multihash.Multihash) // context -> multihashes at the end
	ads := make(map[cid.Cid][]multihash.Multihash)
	var removed []multihash.Multihash
	for k := range 40 {
		ctxID := fmt.Sprintf("ctx-%d", rng.IntN(8))
		if rng.IntN(5) == 0 {
			c.remove(ctxID)
			removed = append(removed, want[ctxID]...)
			for ad, mhs := range ads {
				if len(mhs) > 0 && len(want[ctxID]) > 0 && containsMH(want[ctxID], mhs[0]) {
					delete(ads, ad)
				}
			}
			delete(want, ctxID)
			continue
		}
		mhs := testMultihashes(t, fmt.Sprintf("ad-%d", k), 1+rng.IntN(60))
		ads[c.put(ctxID, mhs)] = mhs
		want[ctxID] = append(want[ctxID], mhs...)
	}

	fs := vfs.NewCrashableMem()
	n := openNode(t, fs, c)
	for round := range crashRounds() {
		var clone *vfs.MemFS
		var fuse atomic.Int64
		fuse.Store(int64(1 + rng.IntN(20)))
		durable := make(map[cid.Cid]bool) // reported durable before the cut
		note := func() {
			for ad := range ads {
				if st, ok, _ := n.store.AdState(ad); ok && st.Durable && st.Verdict == store.Applied {
					durable[ad] = true
				}
			}
		}
		crash := rand.New(rand.NewPCG(seed, uint64(round)))
		fired := make(chan struct{})
		c.setFault(func(cid.Cid, ipnisync.Hint) error {
			left := fuse.Add(-1)
			if left > 0 {
				return nil
			}
			if left == 0 {
				note()
				clone = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * (round % 2), RNG: crash})
				close(fired)
			}
			return errors.New("power lost")
		})
		n.notify(c, c.head)
		n.until("the fuse blew or all is done", func() bool {
			select {
			case <-fired:
				return true
			default:
			}
			n.i.mu.Lock()
			defer n.i.mu.Unlock()
			return len(n.i.workers) == 0
		})
		select {
		case <-fired:
		default: // all done before the fuse: cut the power now
			note()
			clone = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * (round % 2), RNG: crash})
		}
		n.close()
		fs = clone
		c.setFault(nil)
		n = openNode(t, fs, c)
		for ad := range durable {
			n.wantAll(ads[ad])
		}
		// What the mark covers must be there, whoever reported it.
		n.checkMark(c, ads)
	}
	n.sync(c)
	for ctxID, mhs := range want {
		n.wantFound(mhs, ctxID)
	}
	n.wantGone(removed)
}

func (n *testNode) wantAll(mhs []multihash.Multihash) {
	n.t.Helper()
	for _, mh := range mhs {
		if len(n.found(mh)) == 0 {
			n.t.Fatalf("a multihash of a durable ad is not found")
		}
	}
}

// checkMark: every ad with an applied verdict has all its multihashes, unless
// a later removal of its context took them (such ads are not in ads).
func (n *testNode) checkMark(c *testChain, ads map[cid.Cid][]multihash.Multihash) {
	n.t.Helper()
	for ad, mhs := range ads {
		st, ok, err := n.store.AdState(ad)
		if err != nil {
			n.t.Fatal(err)
		}
		if ok && st.Verdict == store.Applied {
			n.wantAll(mhs)
		}
	}
}

func containsMH(list []multihash.Multihash, mh multihash.Multihash) bool {
	for _, x := range list {
		if string(x) == string(mh) {
			return true
		}
	}
	return false
}

// TestLargeAdGoesOnWhereItWas cuts the power in the middle of an ad's entries:
// only the chunks behind the last cursor that was durable are fetched again.
func TestLargeAdGoesOnWhereItWas(t *testing.T) {
	c := newTestChain(t)
	mhs := testMultihashes(t, "large", 300) // 30 chunks, a cursor every second one
	ad := c.put("ctx", mhs)
	fs := vfs.NewCrashableMem()
	n := openNode(t, fs, c)
	var clone *vfs.MemFS
	blocks := 0
	cut := make(chan struct{})
	c.setFault(func(cid.Cid, ipnisync.Hint) error {
		if blocks++; blocks < 21 { // the ad, and 19 chunks
			return nil
		}
		if blocks == 21 {
			if err := n.store.Sync(); err != nil {
				t.Error(err)
			}
			clone = fs.CrashClone(vfs.CrashCloneCfg{})
			close(cut)
		}
		return errors.New("power lost")
	})
	n.notify(c, c.head)
	<-cut
	n.close()

	c.setFault(nil)
	before := c.timesAskedAll()
	n = openNode(t, clone, c)
	n.sync(c)
	n.wantFound(mhs, "ctx")
	if st, ok, err := n.store.AdState(ad); err != nil || !ok || st.Verdict != store.Applied {
		t.Errorf("state %+v %v %v", st, ok, err)
	}
	if got, err := n.store.Counts(); err != nil || got.Postings != 300 {
		t.Errorf("counts %+v %v", got, err)
	}
	// The ad, 12 chunks behind the cursor at 18.
	if again := c.timesAskedAll() - before; again != 13 {
		t.Errorf("%d blocks fetched after the power came back, want 13", again)
	}
}

func (c *testChain) timesAskedAll() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, times := range c.asked {
		n += times
	}
	return n
}

func TestEntriesCursorComesBackAsWritten(t *testing.T) {
	c := newTestChain(t)
	root, next := c.entries(testMultihashes(t, "a", 1), 1), c.entries(testMultihashes(t, "b", 1), 1)
	for _, want := range []entriesCursor{{1, next}, {65_536, next}, {7, cid.Undef}} {
		if got := decodeEntriesCursor(want.encode(), root); got != want {
			t.Errorf("%v came back as %v", want, got)
		}
	}
	for _, b := range [][]byte{nil, {}, {0}, {0x80}, {3, 1, 2, 3}} {
		if got := decodeEntriesCursor(b, root); got != (entriesCursor{next: root}) {
			t.Errorf("%x is %v, want the start", b, got)
		}
	}
}
