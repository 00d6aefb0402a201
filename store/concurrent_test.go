package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestEverythingAtOnce has publishers write contexts of their own and one they
// share, while finds, scrapes, status and syncs go on.
func TestEverythingAtOnce(t *testing.T) {
	cfg := testConfig(vfs.NewMem())
	cfg.SyncEvery, cfg.SyncBytes = time.Millisecond, 1<<10
	reg := prometheus.NewRegistry()
	cfg.Registerer = reg
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	const publishers, ads = 4, 60
	var writers, readers sync.WaitGroup
	stop := make(chan struct{})
	for i := range publishers {
		writers.Go(func() {
			id := publisherID(i)
			c := newChain(id, "shared")
			for n := range uint64(ads) {
				ad, e := c.ad(fmt.Sprintf("%d-%d", i, n/4), fmt.Sprint(n)), content
				e.Provider = &ProviderUpdate{Addrs: []string{string(ad.Metadata)}}
				if n%5 == 4 {
					ad.ContextID = []byte("shared")
				}
				if n%10 == 9 {
					e.Kind = EffectRemove
				}
				for {
					_, err := tryWrite(s, ad, e, testMHs(uint64(i)<<32|n*10, 10)...)
					if err == nil {
						break
					}
					if !errors.Is(err, ErrConflict) {
						t.Error(err)
						return
					}
				}
				if err := s.AddPending(id, []AdRef{{Ad: testCID(uint64(i)<<40 | n), Prev: ad.Ad, Pos: ad.Pos + 5}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	read := func(f func() error) {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := f(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	n := uint64(0)
	read(func() error { n++; _, err := s.Find(testMH(n % 600)); return err })
	read(func() error { _, err := s.Providers(); return err })
	read(func() error {
		for _, p := range s.Publishers() {
			if d, a := s.DurableProgress(p), s.Progress(p); d.Mark.Pos > a.Mark.Pos {
				return fmt.Errorf("durable mark %d above the applied %d", d.Mark.Pos, a.Mark.Pos)
			}
		}
		return nil
	})
	read(func() error { _, err := reg.Gather(); return err })
	read(s.Sync)
	writers.Wait()
	close(stop)
	readers.Wait()
	for i := range publishers {
		for k := range uint64(ads) {
			if k%5 == 4 {
				continue
			}
			want := fmt.Sprint(min(k/4*4+3, ads-1))
			if k/4*4+3 < ads && (k/4*4+3)%5 == 4 {
				want = fmt.Sprint(k/4*4 + 2)
			}
			if got := found(t, s, testMH(uint64(i)<<32|k*10)); got[fmt.Sprintf("%d-%d", i, k/4)] != want {
				t.Fatalf("publisher %d ad %d: found %v, want %s", i, k, got, want)
			}
		}
		if p := s.Progress(publisherID(i)); p.Mark.Pos != 10*ads || p.Pending != 1 {
			t.Errorf("publisher %d: %+v", i, p)
		}
	}
	if err := checkInvariants(s); err != nil {
		t.Error(err)
	}
	if n := testutil.ToFloat64(s.metrics.commits.WithLabelValues(Applied.String())); n < publishers*ads {
		t.Errorf("%v commits counted, want at least %d", n, publishers*ads)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v %v", problems, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := reg.Gather(); err != nil || len(got) != 0 {
		t.Errorf("%d metrics left after Close, %v", len(got), err)
	}
}

// TestCloseDuringWork closes a store that is being used.
func TestCloseDuringWork(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	var wg sync.WaitGroup
	started := make(chan struct{}, 8)
	for i := range 4 {
		wg.Go(func() {
			c := newChain(publisherID(i), peer.ID("prov"))
			for n := uint64(0); ; n++ {
				_, err := tryWrite(s, c.ad("a", "m"), content, testMHs(n*100, 100)...)
				if err == nil {
					_, err = s.Find(testMH(n))
				}
				if n == 3 {
					started <- struct{}{}
				}
				if err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	for range 4 {
		<-started
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}
