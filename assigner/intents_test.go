package assigner

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

func poolLine(t *testing.T, text string) admin.PoolLine {
	t.Helper()
	l, err := admin.ParsePoolLine(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// changed applies changes to intents, all of which have to be taken.
func changed(t *testing.T, in Intents, changes ...func(Intents) (Intents, error)) Intents {
	t.Helper()
	for i, change := range changes {
		var err error
		if in, err = change(in); err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
	}
	return in
}

// fullIntents have a wish of every kind.
func fullIntents(t *testing.T) Intents {
	x, p := realID(t, 1), realID(t, 11)
	since := time.Date(2026, 11, 27, 3, 0, 0, 0, time.UTC)
	wish := Wish{Since: since, By: "root", Reason: `disk is "dying"`}
	return changed(t, Intents{},
		func(in Intents) (Intents, error) { return in.add(poolLine(t, "find=a:1 ingest=a:2 admin=a:3 standby")) },
		func(in Intents) (Intents, error) {
			return in.add(poolLine(t, "dns=pool.example find-port=1 ingest-port=2 admin-port=3"))
		},
		func(in Intents) (Intents, error) {
			return in.remove(Removal{Admin: "http://b:3", Indexer: realID(t, 2), Wish: wish}, true)
		},
		func(in Intents) (Intents, error) { return in.drain(Drain{Indexer: x, Wish: wish}) },
		func(in Intents) (Intents, error) { return in.drain(Drain{Indexer: realID(t, 3)}) },
		func(in Intents) (Intents, error) { return in.setCopies(p, 3) },
		func(in Intents) (Intents, error) { return in.pin(p, []peer.ID{x, realID(t, 4)}) },
		func(in Intents) (Intents, error) { return in.setDefault(false), nil },
		func(in Intents) (Intents, error) { return in.setAllowed(p, true) },
		func(in Intents) (Intents, error) { return in.setRebalance(false), nil },
	)
}

func TestIntentsReadBackAsWritten(t *testing.T) {
	for _, in := range []Intents{{}, fullIntents(t)} {
		again, err := parseIntents(strings.NewReader(string(in.text())))
		if diff := cmp.Diff(in, again); diff != "" || err != nil {
			t.Errorf("%v\n%s%s", err, in.text(), diff)
		}
	}
}

func TestIntentsAnswerThePlan(t *testing.T) {
	in := fullIntents(t)
	p, q := realID(t, 11), realID(t, 12)
	if !in.Drained(realID(t, 1)) || in.Drained(realID(t, 4)) {
		t.Error("drained: want the first indexer only")
	}
	if in.CopiesOf(p, 1) != 3 || in.CopiesOf(q, 1) != 1 {
		t.Error("copies: want 3 of the publisher that has a number of its own")
	}
	if len(in.PinnedTo(p)) != 2 || in.PinnedTo(q) != nil {
		t.Error("pins: want two indexers for the publisher that is pinned")
	}
	if !in.Policy.Allows(p) || in.Policy.Allows(q) || !(Policy{}).Allows(q) {
		t.Error("policy: want the exception only, and everybody without a policy")
	}
	if !in.removes("http://b:3", "") || !in.removes("http://elsewhere", realID(t, 2)) || in.removes("http://a:3", "") || (Intents{}).removes("", "") {
		t.Error("removed: want one member, by URL or ID")
	}
}

func TestWishesAreTakenBack(t *testing.T) {
	p := realID(t, 11)
	in := changed(t, fullIntents(t),
		func(in Intents) (Intents, error) { return in.undrain(realID(t, 1)) },
		func(in Intents) (Intents, error) { return in.undrain(realID(t, 3)) },
		func(in Intents) (Intents, error) { return in.setCopies(p, 0) },
		func(in Intents) (Intents, error) { return in.pin(p, nil) },
		func(in Intents) (Intents, error) { return in.setAllowed(p, false) },
		func(in Intents) (Intents, error) { return in.setDefault(true), nil },
		func(in Intents) (Intents, error) { return in.setRebalance(true), nil },
		func(in Intents) (Intents, error) { return in.remove(Removal{Admin: "http://a:3"}, false) },
		func(in Intents) (Intents, error) { return in.add(poolLine(t, "find=b:1 ingest=b:2 admin=b:3")) },
	)
	want := intentsVersion + "\n" + intentsAbout + "\nadd dns=pool.example find-port=1 ingest-port=2 admin-port=3\n" +
		"add find=http://b:1 ingest=http://b:2 admin=http://b:3\n"
	if diff := cmp.Diff(want, string(in.text())); diff != "" {
		t.Error(diff)
	}
}

// TestAChangeLeavesOldIntentsAlone: a value that was read is never edited.
func TestAChangeLeavesOldIntentsAlone(t *testing.T) {
	old := fullIntents(t)
	before := string(old.text())
	x, p := realID(t, 1), realID(t, 11)
	for _, change := range []func() (Intents, error){
		func() (Intents, error) { return old.drain(Drain{Indexer: x, Wish: Wish{Reason: "other"}}) },
		func() (Intents, error) { return old.undrain(x) },
		func() (Intents, error) { return old.setCopies(p, 5) },
		func() (Intents, error) { return old.pin(p, nil) },
		func() (Intents, error) { return old.setAllowed(p, false) },
		func() (Intents, error) { return old.remove(Removal{Admin: "http://a:3"}, true) },
		func() (Intents, error) { return old.add(poolLine(t, "find=b:1 ingest=b:2 admin=b:3")) },
	} {
		if _, err := change(); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(before, string(old.text())); diff != "" {
		t.Error(diff)
	}
}

func TestBadWishesAreRefused(t *testing.T) {
	in := fullIntents(t)
	many := make([]peer.ID, maxPinned+1)
	for i := range many {
		many[i] = peer.ID("x" + string(rune('0'+i)))
	}
	for name, test := range map[string]struct {
		kind error
		do   func() (Intents, error)
	}{
		"copies below 0":   {admin.ErrBadRequest, func() (Intents, error) { return in.setCopies("P", -1) }},
		"too many copies":  {admin.ErrBadRequest, func() (Intents, error) { return in.setCopies("P", maxCopies+1) }},
		"too many pins":    {admin.ErrBadRequest, func() (Intents, error) { return in.pin("P", many) }},
		"undrain of none":  {admin.ErrNotFound, func() (Intents, error) { return in.undrain("nobody") }},
		"added twice":      {admin.ErrRefused, func() (Intents, error) { return in.add(poolLine(t, "find=c:1 ingest=c:2 admin=a:3")) }},
		"name added twice": {admin.ErrRefused, func() (Intents, error) { return in.add(in.Added[1]) }},
		"removal of none":  {admin.ErrBadRequest, func() (Intents, error) { return in.remove(Removal{}, true) }},
	} {
		if _, err := test.do(); !errors.Is(err, test.kind) {
			t.Errorf("%s: %v, want %v", name, err, test.kind)
		}
	}
}

// TestReasonsCannotBreakOutOfTheirLine: whatever is given as a reason reads back
// as one text.
func TestReasonsCannotBreakOutOfTheirLine(t *testing.T) {
	for _, reason := range []string{"a\nrebalance off", "\x1b[2J", `" by="x`, "\u202e", strings.Repeat("ü", 400), "# c", "\\"} {
		in := changed(t, Intents{}, func(in Intents) (Intents, error) {
			return in.drain(Drain{Indexer: realID(t, 1), Wish: Wish{Reason: reason, By: reason}})
		})
		again, err := parseIntents(strings.NewReader(string(in.text())))
		if diff := cmp.Diff(in, again); err != nil || diff != "" || len(in.Drains[0].Reason) > maxReasonBytes {
			t.Errorf("%q: %v\n%s\n%s", reason, err, in.text(), diff)
		}
	}
}

func TestIntentsFileKeepsWishes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "intents")
	s, err := openIntents(file)
	if err != nil {
		t.Fatal(err)
	}
	want := fullIntents(t)
	heard := s.Changed()
	if err := s.Change(func(Intents) (Intents, error) { return want, nil }); err != nil {
		t.Fatal(err)
	}
	select {
	case <-heard:
	default:
		t.Error("the change was not told")
	}
	refused := errors.New("no")
	if err := s.Change(func(in Intents) (Intents, error) { return Intents{}, refused }); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	again, err := openIntents(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []Intents{s.Current(), again.Current()} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	if left, err := filepath.Glob(file + ".*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestAChangeThatCannotBeWrittenIsNotInForce, as it would be gone at the next
// start.
func TestAChangeThatCannotBeWrittenIsNotInForce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := openIntents(filepath.Join(dir, "intents"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Change(func(in Intents) (Intents, error) { return in.setRebalance(false), nil }); !errors.Is(err, admin.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if s.Current().NoRebalance {
		t.Error("the wish is in force")
	}
}

func TestHostileIntentsFilesAreRefused(t *testing.T) {
	id := realID(t, 1).String()
	head := intentsVersion + "\n"
	for name, test := range map[string]struct{ text, err string }{
		"empty":           {"", "it is empty"},
		"other version":   {"# signpost intents 2\n", "line 1:"},
		"half a line":     {head + "drain 12D3Koo", "line 2: drain:"},
		"unknown word":    {head + "\n# c\nexplode " + id, "line 4: explode: unknown word"},
		"unknown key":     {head + "drain " + id + " until=x", `line 2: drain: unknown word "until"`},
		"bad time":        {head + "drain " + id + " since=yesterday", "line 2: drain:"},
		"open quote":      {head + "drain " + id + ` reason="x y`, "line 2: drain:"},
		"copies":          {head + "replication " + id + " 0", "line 2: replication:"},
		"pin to nobody":   {head + "pin " + id, "line 2: pin:"},
		"bad pool line":   {head + "add find=a:1", "line 2: add: no ingest"},
		"late policy":     {head + "except " + id + "\npolicy deny", "line 3: policy: it has to come before"},
		"long line":       {head + strings.Repeat("x", maxIntentsLine+1), "line 2: longer than"},
		"binary":          {"\x00\xff\x00", "line 1:"},
		"long peer ID":    {head + "drain " + strings.Repeat("1", maxPeerText+1), "line 2: drain: a peer ID is shorter"},
		"remove of none":  {head + "remove since=2026-01-01T00:00:00Z", "line 2: remove:"},
		"switch of sorts": {head + "rebalance maybe", "line 2: rebalance:"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "intents")
			if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := openIntents(file); err == nil || !strings.Contains(err.Error(), test.err) || !strings.Contains(err.Error(), "move the file away") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzParseIntents(f *testing.F) {
	f.Add(intentsVersion + "\nadd find=a:1 ingest=a:2 admin=a:3\nremove admin=http://a:3 reason=\"x\"\nrebalance off\n")
	f.Add(intentsVersion + "\ndrain 12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5 since=2026-11-27T03:00:00Z by=me\npolicy deny\n")
	f.Fuzz(func(t *testing.T, text string) {
		in, err := parseIntents(strings.NewReader(text))
		if err != nil {
			return
		}
		again, err := parseIntents(strings.NewReader(string(in.text())))
		if err != nil || string(again.text()) != string(in.text()) {
			t.Fatalf("%q becomes\n%s, which does not read back: %v\n%s", text, in.text(), err, again.text())
		}
	})
}
