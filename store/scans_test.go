package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// walked are the ads of a chain from one position down to another, newest first.
func walked(from, to Position) (refs []AdRef) {
	for pos := from; pos >= to; pos-- {
		refs = append(refs, link(pos, pos-1))
	}
	return refs
}

func scanPositions(scans []Scan) (pos []Position) {
	for _, sc := range scans {
		pos = append(pos, sc.Pos)
	}
	return pos
}

func TestWalkGoesOnWhereItWas(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, fs)
	write(t, s, Ad{AdRef: link(1, 0), Publisher: "pub"}, address)
	want := func(pos ...Position) {
		t.Helper()
		scans, err := s.Scans("pub")
		if err != nil || !slices.Equal(scanPositions(scans), pos) || !slices.Equal(s.Progress("pub").Scans, scans) {
			t.Errorf("scans %+v, %v; in the progress %+v; want %v", scans, err, s.Progress("pub").Scans, pos)
		}
		for _, sc := range scans {
			if sc.Next != testCID(uint64(sc.Pos)) {
				t.Errorf("scan at %d goes on at %s", sc.Pos, sc.Next)
			}
		}
		must(t, checkInvariants(s))
	}
	want()
	must(t, s.AddScanned("pub", walked(20, 15), 0, &Scan{Next: testCID(14), Pos: 14}))
	must(t, s.AddScanned("pub", nil, 0, &Scan{Next: testCID(30), Pos: 30, Trouble: testTrouble}))
	want(30, 14)
	must(t, s.AddScanned("pub", walked(30, 21), 30, nil), s.AddScanned("pub", walked(14, 10), 14, &Scan{Next: testCID(9), Pos: 9}))
	must(t, s.SetScanTrouble("pub", 9, testTrouble), s.SetScanTrouble("pub", 8, testTrouble))
	want(9)
	must(t, s.Sync(), s.Close())
	s = openTest(t, fs)
	if p := s.DurableProgress("pub"); len(p.Scans) != 1 || p.Scans[0].Trouble != testTrouble || p.Pending != 21 {
		t.Errorf("durable progress %+v", p)
	}
	must(t, s.SetScanTrouble("pub", 9, Trouble{}))
	if p := s.Progress("pub"); !p.Scans[0].Trouble.IsZero() {
		t.Errorf("scan %+v, its trouble is over", p.Scans[0])
	}
	must(t, s.AddScanned("pub", walked(9, 2), 9, nil)) // at a known ad
	want()
	must(t, s.AddScanned("pub", nil, 0, &Scan{Next: testCID(40), Pos: 40}), s.DropScan("pub", 41))
	want(40)
	must(t, s.DropScan("pub", 40))
	want()
	if got := backlog(t, s, "pub"); len(got) != 29 {
		t.Errorf("%d ads are pending, want 29", len(got))
	}
}

func TestMarkDropsTheWalksItPasses(t *testing.T) {
	for name, set := range map[string]func(*Store) error{
		"mark": func(s *Store) error { return s.SetMark("pub", link(12, 11)) },
		"handoff": func(s *Store) error {
			mark := link(12, 11)
			must(t, s.AddPending("pub", []AdRef{mark}))
			return s.AssignWithMark(Assignment{Publisher: "pub"}, &mark, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, vfs.NewMem())
			for _, pos := range []Position{5, 12, 20} {
				must(t, s.AddScanned("pub", nil, 0, &Scan{Next: testCID(uint64(pos)), Pos: pos}))
			}
			must(t, set(s))
			must(t, s.AddScanned("pub", walked(15, 13), 0, &Scan{Next: testCID(11), Pos: 11})) // comes to its end
			if scans, err := s.Scans("pub"); err != nil || !slices.Equal(scanPositions(scans), []Position{20}) {
				t.Errorf("scans %v %v", scanPositions(scans), err)
			}
			must(t, checkInvariants(s))
		})
	}
}

// TestNewChainWaitsForTheWalkBelowIt: what a walk has still to find between the
// mark and the beginning of another chain is not done.
func TestNewChainWaitsForTheWalkBelowIt(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	write(t, s, Ad{AdRef: link(1, 0), Publisher: "pub"}, address)
	must(t, s.AddScanned("pub", nil, 0, &Scan{Next: testCID(5), Pos: 5}))
	write(t, s, Ad{AdRef: link(9, 0), Publisher: "pub"}, address)
	if p := s.Progress("pub"); p.Mark.Pos != 1 || p.AppliedCount != 1 {
		t.Errorf("progress %+v", p)
	}
	must(t, s.AddScanned("pub", walked(5, 2), 5, nil))
	for pos := Position(2); pos <= 5; pos++ {
		write(t, s, Ad{AdRef: link(pos, pos-1), Publisher: "pub"}, address)
	}
	if p := s.Progress("pub"); p.Mark.Pos != 9 {
		t.Errorf("mark %d after all between is done", p.Mark.Pos)
	}
	must(t, checkInvariants(s))
}

// TestNothingIsForgottenBetweenAWalkAndItsAds: whatever of a long AddScanned
// survives a crash, the ads above the walk are recorded, and below nothing is.
func TestNothingIsForgottenBetweenAWalkAndItsAds(t *testing.T) {
	const n = 3*pendingChunk + 17
	rng := modelSeed(t)
	ads := walked(n+9, 10)
	seen := make(map[string]bool)
	for range 12 {
		fs := vfs.NewCrashableMem()
		cfg := testConfig(fs)
		s, err := Open(cfg)
		must(t, err, s.AddScanned("pub", nil, 0, &Scan{Next: ads[0].Ad, Pos: ads[0].Pos}), s.Sync())
		must(t, s.AddScanned("pub", ads, ads[0].Pos, &Scan{Next: testCID(9), Pos: 9}))
		// Of what was written after the sync any part may survive.
		clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rand.New(rand.NewPCG(rng.Uint64(), 1))})
		must(t, s.Close())
		s = openTest(t, clone)
		p := s.Progress("pub")
		if len(p.Scans) != 1 {
			t.Fatalf("scans %+v", p.Scans)
		}
		above := int(ads[0].Pos - p.Scans[0].Pos)
		first, err := s.Backlog("pub", 0, 1)
		if err != nil || p.Pending != above || (above > 0 && first[0].Pos != p.Scans[0].Pos+1) {
			t.Errorf("scan at %d, %d ads pending from %+v, %v", p.Scans[0].Pos, p.Pending, first, err)
		}
		if p.Scans[0].Next != testCID(uint64(p.Scans[0].Pos)) {
			t.Errorf("scan %+v goes on at another ad", p.Scans[0])
		}
		seen[fmt.Sprint(above)] = true
		must(t, checkInvariants(s))
	}
	t.Logf("ads recorded: %v", seen)
}

func TestWalkOutOfOrderIsRefused(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	for name, err := range map[string]error{
		"ascending":            s.AddScanned("pub", []AdRef{link(1, 0), link(2, 1)}, 0, nil),
		"going on above":       s.AddScanned("pub", walked(9, 8), 0, &Scan{Next: testCID(8), Pos: 8}),
		"going on nowhere":     s.AddScanned("pub", nil, 0, &Scan{Pos: 8}),
		"going on at 0":        s.AddScanned("pub", nil, 0, &Scan{Next: testCID(8)}),
		"walk of nobody":       s.AddScanned("", nil, 0, nil),
		"trouble of nobody":    s.SetTrouble("", link(1, 0), Trouble{}),
		"trouble of no ad":     s.SetTrouble("pub", AdRef{}, Trouble{}),
		"again by nobody":      s.AddAgain("", nil, true),
		"again no ad":          s.AddAgain("pub", []AdRef{{}}, true),
		"forget for nobody":    s.DropAgain(""),
		"drop a walk, nobody":  s.DropScan("", 1),
		"announced for nobody": s.DropAnnounced("", testCID(1)),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}
