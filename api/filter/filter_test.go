package filter

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/signpost-index/signpost/store/keyset"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var secret = []byte("the pool's secret")

// node is a Source whose keys are told to it.
type node struct {
	mu       sync.Mutex
	changed  chan struct{}
	epoch    string
	keys     []uint64
	gone     bool
	damaged  bool
	confirms uint64 // what a follower said last that it has
}

func newNode(keys ...uint64) *node {
	return &node{changed: make(chan struct{}), epoch: "1", keys: keys}
}

func (n *node) put(keys ...uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.keys = append(n.keys, keys...)
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *node) OpenKeys(context.Context, string) (Opened, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gone = false
	return Opened{Epoch: n.epoch, From: uint64(len(n.keys)), Entries: uint64(len(n.keys))}, nil
}

func (n *node) ScanKeys(region int, fn func(uint64)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.damaged {
		return errors.New("a region is damaged")
	}
	for _, k := range slices.Sorted(slices.Values(n.keys)) {
		if int(k>>56) == region {
			fn(k)
		}
	}
	return nil
}

func (n *node) FollowKeys(ctx context.Context, epoch, _ string, from uint64) ([]uint64, time.Duration, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.confirms = from
	if from == uint64(len(n.keys)) && !n.gone {
		changed := n.changed
		n.mu.Unlock()
		select {
		case <-changed:
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
		n.mu.Lock()
	}
	if n.gone || epoch != n.epoch {
		return nil, 0, fmt.Errorf("another life: %w", ErrGone)
	}
	return slices.Clone(n.keys[from:]), 2 * time.Second, nil
}

func randoms(n int) (keys []uint64) {
	for range n {
		keys = append(keys, rand.Uint64())
	}
	return keys
}

// follow has a pool follow what serves h.
func follow(t *testing.T, h http.Handler, memory int64) *Filter {
	t.Helper()
	srv := httptest.NewServer(h)
	client := srv.Client()
	p := NewPool(Config{Secret: secret, HTTP: client, MemoryBytes: memory})
	p.Set([]string{srv.URL})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		client.CloseIdleConnections()
		srv.Close()
	})
	return p.Of(srv.URL)
}

func serving(n *node) http.Handler {
	return NewHandler(n, HandlerConfig{Token: keyset.Token(secret)})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for limit := time.After(20 * time.Second); !ok(); {
		select {
		case <-limit:
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

// lacksMost tells whether a filter says of most keys that they are lacked.
func lacksMost(f *Filter, keys []uint64) bool {
	n := 0
	for _, k := range keys {
		if f.Lacks(k) {
			n++
		}
	}
	return n > len(keys)*97/100
}

// TestKeysThatWereConfirmedAreNeverLacked: those there were and those that come,
// while few of all others are taken to be there.
func TestKeysThatWereConfirmedAreNeverLacked(t *testing.T) {
	n := newNode(randoms(20_000)...)
	f := follow(t, serving(n), 0)
	others := randoms(5000)
	eventually(t, "other keys are lacked", func() bool { return lacksMost(f, others) })
	for range 20 {
		more := randoms(500)
		n.put(more...)
		eventually(t, "new keys are confirmed", func() bool {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.confirms == uint64(len(n.keys))
		})
		for _, k := range more {
			if f.Lacks(k) {
				t.Fatal("a key that was confirmed is lacked")
			}
		}
	}
	for _, k := range n.keys {
		if f.Lacks(k) {
			t.Fatal("a key is lacked")
		}
	}
	if !lacksMost(f, others) {
		t.Error("most other keys are taken to be there")
	}
	// Another life of the node: all is read anew.
	n.mu.Lock()
	n.epoch = "2"
	n.mu.Unlock()
	n.put(randoms(1)...)
	eventually(t, "nothing is lacked of who has begun anew", func() bool { return !f.Lacks(others[0]) && !f.Lacks(others[1]) })
	eventually(t, "it is followed again", func() bool { return lacksMost(f, others) })
	n.put(others...)
	eventually(t, "the set is made anew as it has become too full, and has what came", func() bool {
		return !slices.ContainsFunc(others, f.Lacks)
	})
}

// TestNobodyIsJudgedWithoutALease: a node that hangs is asked again itself, at
// the latest when the lease has ended.
func TestNobodyIsJudgedWithoutALease(t *testing.T) {
	n := newNode(randoms(100)...)
	inner := serving(n)
	hang := make(chan struct{})
	var hung sync.WaitGroup
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
			hung.Add(1)
			defer hung.Done()
			<-r.Context().Done()
		default:
			inner.ServeHTTP(w, r)
		}
	})
	f := follow(t, h, 0)
	others := randoms(1000)
	eventually(t, "other keys are lacked", func() bool { return lacksMost(f, others) })
	close(hang)
	at := time.Now()
	eventually(t, "nobody goes by the set any more", func() bool { return !slices.ContainsFunc(others, f.Lacks) })
	if took := time.Since(at); took > 2500*time.Millisecond {
		t.Errorf("after %s", took)
	}
}

// TestNodesThatCannotBeFollowedAreAskedAlways: with another secret, damaged,
// without room, of a kind that does not know keys, or lying about them.
func TestNodesThatCannotBeFollowedAreAskedAlways(t *testing.T) {
	damaged := newNode(randoms(100)...)
	damaged.damaged = true
	for name, c := range map[string]struct {
		h      http.Handler
		memory int64
	}{
		"another secret": {NewHandler(newNode(1), HandlerConfig{Token: keyset.Token([]byte("other"))}), 0},
		"damaged":        {serving(damaged), 0},
		"no room":        {serving(newNode(randoms(1000)...)), 1000},
		"foreign":        {http.NotFoundHandler(), 0},
		"not ours": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, `{"Epoch":"x","Entries":18446744073709551615}`)
		}), 0},
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan struct{}, 1000)
			f := follow(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c.h.ServeHTTP(w, r)
				select {
				case asked <- struct{}{}:
				default:
				}
			}), c.memory)
			<-asked
			for range 200 {
				if f.Lacks(rand.Uint64()) {
					t.Fatal("a key is lacked")
				}
			}
		})
	}
}

// TestKeysAreForThoseWithTheSecret: and requests are checked.
func TestKeysAreForThoseWithTheSecret(t *testing.T) {
	h := serving(newNode(1, 2, 3))
	for _, c := range []struct {
		method, path, token string
		want                int
	}{
		{"POST", openPath + "?follower=a", "", 401},
		{"GET", regionPath + "?region=0&values=256", "Bearer x", 401},
		{"GET", openPath, "Bearer " + keyset.Token(secret), 405},
		{"GET", regionPath + "?region=256&values=256", "Bearer " + keyset.Token(secret), 400},
		{"GET", regionPath + "?region=0&values=257", "Bearer " + keyset.Token(secret), 400},
		{"GET", regionPath + "?region=0&values=25600", "Bearer " + keyset.Token(secret), 200},
		{"GET", tailPath + "?from=x", "Bearer " + keyset.Token(secret), 400},
		{"GET", tailPath + "?from=0&epoch=other", "Bearer " + keyset.Token(secret), 410},
	} {
		r := httptest.NewRequest(c.method, c.path, nil)
		if c.token != "" {
			r.Header.Set("Authorization", c.token)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s %s: %d %s, want %d", c.method, c.path, w.Code, w.Body, c.want)
		}
	}
}
