package announce

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
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

func testKey(i int) Key { return sha256.Sum256(fmt.Append(nil, i)) }

func TestSeenForgetsTheLeastRecentlyAnnounced(t *testing.T) {
	s := NewSeen(2)
	a, b, c := testKey(1), testKey(2), testKey(3)
	for i, step := range []struct {
		key  Key
		want bool
	}{
		{a, true}, {b, true}, {a, false}, // a is now the more recent
		{c, true}, {a, false}, {b, true},
	} {
		if got := s.Add(step.key); got != step.want {
			t.Fatalf("step %d: new %v, want %v", i, got, step.want)
		}
	}
}

func TestForgottenAnnounceIsNewAgain(t *testing.T) {
	s := NewSeen(0)
	a := testKey(1)
	s.Forget(a)
	if !s.Add(a) || s.Add(a) {
		t.Fatal("not remembered")
	}
	s.Forget(a)
	if !s.Add(a) {
		t.Fatal("not forgotten")
	}
	for i := range DefaultSeen {
		s.Add(testKey(100 + i))
	}
	if !s.Add(a) {
		t.Errorf("remembers more than %d", DefaultSeen)
	}
}

func TestSeenIsNewForOneOfMany(t *testing.T) {
	s := NewSeen(8)
	a := testKey(1)
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

// TestKeyTellsAnnouncesApart: an announce of the same head by another
// publisher, or at other addresses, is another announce.
func TestKeyTellsAnnouncesApart(t *testing.T) {
	of := func(publisher, head string, addrs ...string) Announce {
		mh, err := multihash.Sum([]byte(head), multihash.SHA2_256, -1)
		if err != nil {
			t.Fatal(err)
		}
		a := Announce{Head: cid.NewCidV1(cid.DagJSON, mh), Publisher: peer.AddrInfo{ID: peer.ID(publisher)}}
		for _, text := range addrs {
			a.Publisher.Addrs = append(a.Publisher.Addrs, multiaddr.StringCast(text))
		}
		return a
	}
	const here, there = "/ip4/192.0.2.1/tcp/1/http", "/ip4/192.0.2.9/tcp/1/http"
	base := of("p", "h", here)
	for name, other := range map[string]Announce{
		"publisher": of("q", "h", here), "head": of("p", "i", here), "addresses": of("p", "h", there), "no addresses": of("p", "h"),
	} {
		if base.Key() == other.Key() {
			t.Errorf("%s makes no difference", name)
		}
	}
	gossiped := base
	gossiped.Direct = !base.Direct
	if base.Key() != gossiped.Key() {
		t.Error("the way an announce came makes a difference")
	}
}
