package announce

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

func testCID(t *testing.T, i int) cid.Cid {
	t.Helper()
	mh, err := multihash.Sum(fmt.Append(nil, i), multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	return cid.NewCidV1(cid.DagJSON, mh)
}

func TestSeenForgetsTheLeastRecentlyAnnounced(t *testing.T) {
	s := NewSeen(2)
	a, b, c := testCID(t, 1), testCID(t, 2), testCID(t, 3)
	for i, step := range []struct {
		cid  cid.Cid
		want bool
	}{
		{a, true}, {b, true}, {a, false}, // a is now the more recent
		{c, true}, {a, false}, {b, true},
	} {
		if got := s.Add(step.cid); got != step.want {
			t.Fatalf("step %d: new %v, want %v", i, got, step.want)
		}
	}
}

func TestForgottenCIDIsNewAgain(t *testing.T) {
	s := NewSeen(0)
	a := testCID(t, 1)
	s.Forget(a)
	if !s.Add(a) || s.Add(a) {
		t.Fatal("not remembered")
	}
	s.Forget(a)
	if !s.Add(a) {
		t.Fatal("not forgotten")
	}
	for i := range DefaultSeen {
		s.Add(testCID(t, 100+i))
	}
	if !s.Add(a) {
		t.Errorf("remembers more than %d", DefaultSeen)
	}
}

func TestSeenIsNewForOneOfMany(t *testing.T) {
	s := NewSeen(8)
	a := testCID(t, 1)
	var fresh atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if s.Add(a) {
				fresh.Add(1)
			}
		})
	}
	wg.Wait()
	if n := fresh.Load(); n != 1 {
		t.Errorf("new for %d callers", n)
	}
}
