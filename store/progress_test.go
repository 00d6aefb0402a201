package store

import (
	"errors"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
)

// link makes the ad at pos that follows the one at prev; prev 0: genesis.
func link(pos, prev Position) AdRef {
	ref := AdRef{Ad: testCID(uint64(pos)), Pos: pos}
	if prev != 0 {
		ref.Prev = testCID(uint64(prev))
	}
	return ref
}

func TestContiguousMark(t *testing.T) {
	type step struct {
		do   string // apply, pending, mark, unmark
		ads  []AdRef
		mark Position
		done []Position // applied above
		open []Position // pending
	}
	for _, tc := range []struct {
		name  string
		steps []step
	}{
		{"in order", []step{
			{"apply", []AdRef{link(1, 0)}, 1, nil, nil},
			{"apply", []AdRef{link(2, 1)}, 2, nil, nil},
			{"apply", []AdRef{link(7, 2)}, 7, nil, nil},
		}},
		{"newest first", []step{
			{"pending", []AdRef{link(3, 2), link(2, 1), link(1, 0)}, 0, nil, []Position{1, 2, 3}},
			{"apply", []AdRef{link(3, 2)}, 0, []Position{3}, []Position{1, 2}},
			{"apply", []AdRef{link(1, 0)}, 1, []Position{3}, []Position{2}},
			{"apply", []AdRef{link(2, 1)}, 3, nil, nil},
		}},
		{"a chain whose beginning is unknown has no mark until one is set", []step{
			{"apply", []AdRef{link(6, 5), link(7, 6)}, 0, []Position{6, 7}, nil},
			{"mark", []AdRef{link(5, 4)}, 7, nil, nil},
		}},
		{"a mark drops what it passes", []step{
			{"pending", []AdRef{link(1, 0), link(2, 1), link(3, 2), link(4, 3)}, 0, nil, []Position{1, 2, 3, 4}},
			{"apply", []AdRef{link(2, 1), link(4, 3)}, 0, []Position{2, 4}, []Position{1, 3}},
			{"mark", []AdRef{link(2, 1)}, 2, []Position{4}, []Position{3}},
			{"pending", []AdRef{link(1, 0), link(2, 1), link(4, 3)}, 2, []Position{4}, []Position{3}},
			{"apply", []AdRef{link(3, 2)}, 4, nil, nil},
		}},
		{"a new chain above the mark goes on when nothing is between", []step{
			{"apply", []AdRef{link(1, 0)}, 1, nil, nil},
			{"apply", []AdRef{link(5, 0)}, 5, nil, nil},
			{"apply", []AdRef{link(6, 5)}, 6, nil, nil},
		}},
		{"a new chain above the mark waits for what is pending between", []step{
			{"apply", []AdRef{link(1, 0)}, 1, nil, nil},
			{"pending", []AdRef{link(2, 1), link(5, 0)}, 1, nil, []Position{2, 5}},
			{"apply", []AdRef{link(5, 0), link(6, 5)}, 1, []Position{5, 6}, []Position{2}},
			{"apply", []AdRef{link(2, 1)}, 6, nil, nil},
		}},
		{"a fork below the mark changes nothing", []step{
			{"apply", []AdRef{link(1, 0), link(3, 1)}, 3, nil, nil},
			{"apply", []AdRef{link(2, 1)}, 3, nil, nil},
			{"apply", []AdRef{link(1, 0)}, 3, nil, nil},
		}},
		{"an ad applied twice counts once", []step{
			{"apply", []AdRef{link(1, 0), link(3, 2), link(3, 2)}, 1, []Position{3}, nil},
			{"apply", []AdRef{link(2, 1), link(3, 2)}, 3, nil, nil},
		}},
		{"a mark moved back and taken away", []step{
			{"apply", []AdRef{link(1, 0), link(2, 1), link(3, 2)}, 3, nil, nil},
			{"mark", []AdRef{link(1, 0)}, 1, nil, nil},
			{"apply", []AdRef{link(3, 2)}, 1, []Position{3}, nil},
			{"apply", []AdRef{link(2, 1)}, 3, nil, nil},
			{"unmark", nil, 0, nil, nil},
			{"apply", []AdRef{link(1, 0)}, 1, nil, nil},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openTest(t, vfs.NewMem())
			for i, st := range tc.steps {
				switch st.do {
				case "apply":
					for _, ref := range st.ads {
						write(t, s, Ad{AdRef: ref, Publisher: "pub"}, address)
					}
				case "pending":
					if err := s.AddPending("pub", st.ads); err != nil {
						t.Fatal(err)
					}
				case "mark":
					if err := s.SetMark("pub", st.ads[0]); err != nil {
						t.Fatal(err)
					}
				case "unmark":
					if err := s.SetMark("pub", AdRef{}); err != nil {
						t.Fatal(err)
					}
				}
				p := s.Progress("pub")
				if p.Mark.Pos != st.mark || !slices.Equal(adNames(p.Applied), st.done) || !slices.Equal(adNames(p.Holes), st.open) {
					t.Errorf("step %d: mark %d, applied %v, holes %v; want %d %v %v", i, p.Mark.Pos, adNames(p.Applied), adNames(p.Holes), st.mark, st.done, st.open)
				}
				if err := checkInvariants(s); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestProgressListsAreBounded(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	const n = 3*MaxListed + 17
	var refs []AdRef
	for i := Position(1); i <= n; i++ {
		refs = append(refs, link(2*i, 2*i-2))
	}
	refs[0].Prev = testCID(1 << 50) // nobody has it
	if err := s.AddPending("pub", refs); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < n; i += 2 {
		write(t, s, Ad{AdRef: refs[i], Publisher: "pub"}, address)
	}
	p := s.Progress("pub")
	if len(p.Holes) != MaxListed || p.Pending != n/2 || len(p.Applied) != MaxListed || p.AppliedCount != n-n/2 {
		t.Errorf("%d holes of %d, %d applied of %d", len(p.Holes), p.Pending, len(p.Applied), p.AppliedCount)
	}
	var all []PendingAd
	for after := Position(0); ; {
		part, err := s.Backlog("pub", after, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(part) == 0 {
			break
		}
		all = append(all, part...)
		after = part[len(part)-1].Pos
	}
	if len(all) != n/2 || !slices.IsSortedFunc(all, func(a, b PendingAd) int { return int(a.Pos) - int(b.Pos) }) {
		t.Errorf("the backlog gave %d, want %d ascending", len(all), n/2)
	}
	if err := s.SetMark("pub", refs[n-2]); err != nil {
		t.Fatal(err)
	}
	if p := s.Progress("pub"); p.Mark != refs[n-1] || p.Pending != 0 || p.AppliedCount != 0 {
		t.Errorf("after the mark: %+v", p)
	}
	if err := checkInvariants(s); err != nil {
		t.Error(err)
	}
}

func TestLedger(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	ads := []AdRef{link(1, 0), link(2, 1), link(3, 2), link(4, 3)}
	if err := s.AddPending("pub", ads); err != nil {
		t.Fatal(err)
	}
	long := string(make([]byte, 5000))
	write(t, s, Ad{AdRef: ads[1], Publisher: "pub"}, Effect{Verdict: Rejected, Reason: long})
	if err := s.SetMark("pub", ads[2]); err != nil {
		t.Fatal(err)
	}
	// The same ad in another publisher's chain.
	if err := s.AddPending("mirror", ads[1:2]); err != nil {
		t.Fatal(err)
	}
	for i, want := range []Verdict{MarkedDone, Rejected, MarkedDone, Pending} {
		st, ok, err := s.AdState(ads[i].Ad)
		if err != nil || !ok || st.Verdict != want || st.Pos != ads[i].Pos || st.Publisher != "pub" || len(st.Reason) > 1024 {
			t.Errorf("ad %d: %+v %v %v, want %v", i, st, ok, err, want)
		}
	}
	for _, unknown := range []cid.Cid{testCID(99), cid.Undef} {
		if _, ok, err := s.AdState(unknown); ok || err != nil {
			t.Errorf("unknown ad: %v %v", ok, err)
		}
	}
}

func TestArgumentsOutOfBoundsAreRefused(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	good := link(1, 0)
	long := make([]byte, 2000)
	begin := func(ad Ad, e Effect) error { _, err := tryWrite(s, ad, e); return err }
	for name, err := range map[string]error{
		"no publisher":      begin(Ad{AdRef: good}, address),
		"no position":       begin(Ad{AdRef: AdRef{Ad: good.Ad}, Publisher: "p"}, address),
		"huge position":     begin(Ad{AdRef: AdRef{Ad: good.Ad, Pos: MaxPosition + 1}, Publisher: "p"}, address),
		"no CID":            begin(Ad{AdRef: AdRef{Pos: 1}, Publisher: "p"}, address),
		"no provider":       begin(Ad{AdRef: good, Publisher: "p"}, metadata),
		"long context":      begin(Ad{AdRef: good, Publisher: "p", Provider: "q", ContextID: long[:65]}, metadata),
		"long metadata":     begin(Ad{AdRef: good, Publisher: "p", Provider: "q", Metadata: long[:1025]}, metadata),
		"no verdict":        begin(Ad{AdRef: good, Publisher: "p", Provider: "q"}, Effect{Kind: EffectContent}),
		"pending verdict":   begin(Ad{AdRef: good, Publisher: "p", Provider: "q"}, Effect{Verdict: Pending}),
		"rejected content":  begin(Ad{AdRef: good, Publisher: "p", Provider: "q"}, Effect{Kind: EffectContent, Verdict: Rejected}),
		"skipped removal":   begin(Ad{AdRef: good, Publisher: "p", Provider: "q"}, Effect{Kind: EffectRemove, Verdict: SkippedFrozen}),
		"unknown effect":    begin(Ad{AdRef: good, Publisher: "p", Provider: "q"}, Effect{Kind: 9, Verdict: Applied}),
		"mark without CID":  s.SetMark("p", AdRef{Pos: 3}),
		"pending by nobody": s.AddPending("", []AdRef{good}),
		"long provider":     s.RegisterProvider(Provider{ID: "p", Publisher: "123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"}),
		"too many addrs":    s.SetPublisherAddrs("p", make([]string, 5000)),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	w, err := s.Begin(Ad{AdRef: good, Publisher: "p", Provider: "q"})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, MaxMultihashBytes + 1} {
		if err := w.Put(append(testMHs(0, 1), long[:n])); !errors.Is(err, ErrInvalid) {
			t.Errorf("multihash of %d bytes: %v, want ErrInvalid", n, err)
		}
	}
	if got := found(t, s, testMH(0)); len(got) != 0 {
		t.Errorf("refused put left %v", got)
	}
	if _, err := s.Find(long); err != nil {
		t.Errorf("find of a long multihash: %v, want none", err)
	}
	// An ad nobody can read is recorded as rejected.
	unreadable := Ad{AdRef: good, Publisher: "p", Provider: "", ContextID: long}
	write(t, s, unreadable, Effect{Verdict: Rejected, Reason: "malformed"})
	if p := s.Progress("p"); p.Mark != good {
		t.Errorf("mark %v after a rejected ad", p.Mark)
	}
}
