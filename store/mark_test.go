package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/multiformats/go-multihash"
)

// moveAll brings all marks to where they come.
func moveAll(s *Store) error {
	_, err := s.moveMarks(context.Background())
	return err
}

// doneAbove opens a store in which ads 2 to n are done and 1 is not.
func doneAbove(t *testing.T, fs vfs.FS, n Position) *Store {
	t.Helper()
	cfg := testConfig(fs)
	cfg.moveRows = 10
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, s.Close()) })
	must(t, s.AddPending("pub", []AdRef{link(1, 0)}))
	for pos := n; pos > 1; pos-- {
		write(t, s, Ad{AdRef: link(pos, pos-1), Publisher: "pub"}, address)
	}
	return s
}

// TestMarkMovesAPartAtATime: no change drops more than so many rows, and every
// mark on the way is right.
func TestMarkMovesAPartAtATime(t *testing.T) {
	const n = 95
	s := doneAbove(t, vfs.NewMem(), n)
	s.stopTidy() // the mover with it
	s.janitors.Wait()
	write(t, s, Ad{AdRef: link(1, 0), Publisher: "pub"}, address)
	if p := s.Progress("pub"); p.Mark != link(11, 10) || p.AppliedCount != n-11 || p.Pending != 0 {
		t.Errorf("after one change: mark %d, %d done above, %d pending", p.Mark.Pos, p.AppliedCount, p.Pending)
	}
	write(t, s, Ad{AdRef: link(n+1, n), Publisher: "pub"}, address) // above
	write(t, s, Ad{AdRef: link(50, 49), Publisher: "pub"}, address) // once more
	must(t, checkInvariants(s), moveAll(s))
	if p := s.Progress("pub"); p.Mark != link(n+1, n) || p.AppliedCount != 0 {
		t.Errorf("in the end: mark %d, %d done above", p.Mark.Pos, p.AppliedCount)
	}
	must(t, checkInvariants(s))
}

func TestMarkOnItsWayArrivesByItselfAlsoAfterACrash(t *testing.T) {
	const n = 95
	fs := vfs.NewCrashableMem()
	s := doneAbove(t, fs, n)
	s.stopTidy()
	s.janitors.Wait()
	write(t, s, Ad{AdRef: link(1, 0), Publisher: "pub"}, address)
	must(t, s.Sync())
	if d := s.DurableProgress("pub"); d.Mark.Pos != 11 {
		t.Fatalf("mark %d", d.Mark.Pos)
	}
	cfg := testConfig(fs.CrashClone(vfs.CrashCloneCfg{}))
	cfg.moveRows = 10
	arrived := make(chan struct{})
	cfg.onMoved = func() { close(arrived) }
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	<-arrived
	if p := s.Progress("pub"); p.Mark.Pos != n || p.AppliedCount != 0 {
		t.Errorf("mark %d, %d done above", p.Mark.Pos, p.AppliedCount)
	}
	must(t, checkInvariants(s), s.Close())
}

// TestMarkSetOverManyAdsDropsThemAPartAtATime: between, the mark is at an ad
// that is declared as done too.
func TestMarkSetOverManyAdsDropsThemAPartAtATime(t *testing.T) {
	const n = 95
	s := doneAbove(t, vfs.NewMem(), n)
	must(t, s.AddPending("pub", walked(200, 121))) // 96 to 120 are unknown
	seqs := s.syncer.seq
	must(t, s.SetMark("pub", link(150, 149)))
	p := s.Progress("pub")
	if p.Mark != link(150, 149) || p.AppliedCount != 0 || p.Pending != 50 || p.Holes[0].Pos != 151 {
		t.Errorf("progress %+v", p)
	}
	if n := s.syncer.seq - seqs; n < 10 {
		t.Errorf("set with %d changes", n)
	}
	must(t, checkInvariants(s), s.SetMark("pub", link(3, 2)))
	if p := s.Progress("pub"); p.Mark != link(3, 2) || p.Pending != 50 {
		t.Errorf("after it was set back: %+v", p)
	}
	must(t, checkInvariants(s))
}

// job is an ad to be written.
type job struct {
	ad  Ad
	e   Effect
	mhs uint64 // the first
}

func (j job) put() []multihash.Multihash {
	if j.e.Kind == EffectRemove {
		return nil
	}
	return testMHs(j.mhs, 10)
}

// TestManyWritersOfOnePublisher: ads of one chain, written by several
// goroutines in no order, one at a time of a record, end as oldest to newest.
func TestManyWritersOfOnePublisher(t *testing.T) {
	const contexts, workers, n = 12, 4, 400
	cfg := testConfig(vfs.NewMem())
	cfg.moveRows = 5
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c, oracle := newChain("pub", "prov"), openTest(t, vfs.NewMem())
	var queues [contexts][]job
	rng := modelSeed(t)
	var all []AdRef
	for i := range uint64(n) {
		k := rng.IntN(contexts)
		j := job{c.ad(fmt.Sprint(k), fmt.Sprint(i)), content, i * 10}
		if rng.IntN(6) == 0 {
			j.e = removal
		}
		j.e.Provider = &ProviderUpdate{Addrs: []string{string(j.ad.Metadata)}}
		queues[k], all = append(queues[k], j), append(all, j.ad.AdRef)
		write(t, oracle, j.ad, j.e, j.put()...)
	}
	must(t, s.AddPending("pub", all))
	var wg sync.WaitGroup
	ready := make(chan []job, contexts)
	for _, q := range queues {
		rng.Shuffle(len(q), func(a, b int) { q[a], q[b] = q[b], q[a] })
		ready <- q
	}
	close(ready)
	for w := range workers {
		rng := rand.New(rand.NewPCG(uint64(w), 1))
		wg.Go(func() {
			for q := range ready {
				for _, j := range q {
					if _, err := tryWrite(s, j.ad, j.e, j.put()...); err != nil {
						t.Error(err)
					}
					if rng.IntN(8) == 0 {
						if err := s.SetTrouble("pub", all[rng.IntN(n)], testTrouble); err != nil {
							t.Error(err)
						}
					}
				}
			}
		})
	}
	wg.Wait()
	must(t, moveAll(s), checkInvariants(s))
	if p := s.Progress("pub"); p.Mark != all[n-1] || p.AppliedCount != 0 || p.Pending != 0 {
		t.Errorf("progress: mark %d, %d above, %d pending", p.Mark.Pos, p.AppliedCount, p.Pending)
	}
	for i := range uint64(n) {
		want, got := found(t, oracle, testMH(i*10)), found(t, s, testMH(i*10))
		if fmt.Sprint(want) != fmt.Sprint(got) {
			t.Fatalf("multihash of ad %d: found %v, want %v", i, got, want)
		}
	}
	a, _, err := s.Provider("prov")
	b, _, err2 := oracle.Provider("prov")
	if err != nil || err2 != nil || a.LastAd != b.LastAd || !slices.Equal(a.Addrs, b.Addrs) {
		t.Errorf("provider %+v, want %+v", a, b)
	}
	if s.totals.records != oracle.totals.records || s.totals.postings != oracle.totals.postings {
		t.Errorf("counts %+v, want %+v", s.totals, oracle.totals)
	}
	must(t, s.Close())
}

// TestAMarkThatIsCutOffIsAtAnAdBetween: after a power loss in the middle of SetMark
// nothing above the mark is passed over, and setting it again brings it there.
func TestAMarkThatIsCutOffIsAtAnAdBetween(t *testing.T) {
	const (
		ads, wanted = 40, 35
		block       = 32 << 10 // of the log, which is written one by one
		row         = 1000
	)
	between := 0
	for pad := 0; pad < 12*row; pad += 200 {
		fs := vfs.NewCrashableMem()
		cfg := testConfig(fs)
		cfg.moveRows = 2
		s, err := Open(cfg)
		must(t, err)
		fill := func(bytes int) {
			for ; bytes > 0; bytes -= row {
				must(t, s.SetPublisherAddrs("filler", []string{strings.Repeat("x", min(bytes, row))}))
			}
		}
		fill(block*2/3 + pad)
		var refs []AdRef
		for pos := Position(ads); pos > 0; pos-- {
			refs = append(refs, link(pos, pos-1))
		}
		must(t, s.AddPending("pub", refs))
		must(t, s.Sync())
		must(t, s.SetMark("pub", link(wanted, wanted-1)))
		fill(2 * block)
		cfg.FS = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(uint64(pad), 1))})
		must(t, s.Close())

		s, err = Open(cfg)
		must(t, err)
		p := s.Progress("pub")
		if p.Mark.Pos > 0 && p.Mark.Pos < wanted {
			between++
		}
		if got := p.Pending; p.Mark.Pos > wanted || got != ads-int(p.Mark.Pos) {
			t.Errorf("mark at %d, %d pending", p.Mark.Pos, got)
		}
		must(t, checkInvariants(s), s.SetMark("pub", link(wanted, wanted-1)))
		if p := s.Progress("pub"); p.Mark != link(wanted, wanted-1) || p.Pending != ads-wanted {
			t.Errorf("set again: mark at %d, %d pending", p.Mark.Pos, p.Pending)
		}
		must(t, checkInvariants(s), s.Close())
	}
	if between == 0 {
		t.Error("none was cut off in the middle: this test tests nothing")
	}
	t.Logf("%d cut off in the middle", between)
}
