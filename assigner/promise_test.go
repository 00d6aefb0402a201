package assigner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/signpost-index/signpost/announce"
)

// inBubble runs play in a bubble with time of its own, with a pool of these
// members that no assigner drives yet.
func inBubble(t *testing.T, members string, play func(t *testing.T, s *story)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &story{t: t, fakes: make(map[string]*fakeIndexer)}
		defer s.stop()
		s.pool(members)
		play(t, s)
	})
}

// mustStart starts the story's assigner and lets it read the pool.
func (s *story) mustStart() {
	s.t.Helper()
	if got := s.start(new(datadriven.TestData)); got != "ok" {
		s.t.Fatal(got)
	}
}

func (s *story) assign(name string, publishers ...peer.ID) {
	f := s.fakes[name]
	f.set(func() {
		for _, p := range publishers {
			f.assigned[p], f.content[p] = "", true
		}
	})
}

// announcesTaken is how many announces the indexer has accepted, and headOf the
// last of a publisher.
func (s *story) announcesTaken(name string) (n int) {
	s.fakes[name].set(func() { n = s.fakes[name].announces })
	return n
}

func (s *story) headOf(name string, publisher peer.ID) (word string) {
	f := s.fakes[name]
	f.set(func() {
		if h, ok := f.heads[publisher]; ok {
			word = headWord(h)
		}
	})
	return word
}

// put announces to the handler, as a publisher would, and returns the answer.
func putAnnounce(a *Assigner, an announce.Announce, asJSON bool) *httptest.ResponseRecorder {
	var m announce.Message
	m.Cid = an.Head
	p2p := multiaddr.StringCast("/p2p/" + an.Publisher.ID.String())
	for _, addr := range an.Publisher.Addrs {
		m.Addrs = append(m.Addrs, addr.Encapsulate(p2p))
	}
	body, err := m.EncodeCBOR()
	contentType := "application/octet-stream"
	if asJSON {
		body, err = m.MarshalJSON()
		contentType = "application/json"
	}
	if err != nil {
		panic(err)
	}
	r := httptest.NewRequest(http.MethodPut, "/announce", bytes.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	a.handler().ServeHTTP(w, r)
	return w
}

func TestAnnouncesAreTakenInBothForms(t *testing.T) {
	p := realID(t, 1)
	inBubble(t, "A", func(t *testing.T, s *story) {
		s.assign("A", p)
		s.mustStart()
		for i, asJSON := range []bool{false, true} {
			word := fmt.Sprint("head ", i)
			if w := putAnnounce(s.assigner, announceOf(p, word), asJSON); w.Code != http.StatusNoContent || w.Body.Len() > 0 {
				t.Errorf("JSON %v: %d %s", asJSON, w.Code, w.Body)
			}
			if got := s.headOf("A", p); got != word {
				t.Errorf("JSON %v: answered 204, and the owner has %q", asJSON, got)
			}
		}
	})
}

func TestWithoutAJournalTheAnswerWaitsForAnOwner(t *testing.T) {
	p := realID(t, 1)
	inBubble(t, "A", func(t *testing.T, s *story) {
		s.assign("A", p)
		s.mustStart()
		s.fakes["A"].set(func() { s.fakes["A"].mode = isDown })
		for range 2 { // the same announce again is not promised either
			began := time.Now()
			w := putAnnounce(s.assigner, announceOf(p, "1"), false)
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "30" {
				t.Fatalf("nobody has it: %d %s", w.Code, w.Header())
			}
			if got := w.Body.String(); got != errNotTaken.Text+"\n" {
				t.Errorf("text %q", got)
			}
			if took := time.Since(began); took != takeTimeout {
				t.Errorf("answered after %s, want %s", took, takeTimeout)
			}
		}
		// One that waits is answered as soon as an owner has it, or a newer one.
		codes := make(chan int, 2)
		for _, word := range []string{"1", "2"} {
			go func() { codes <- putAnnounce(s.assigner, announceOf(p, word), false).Code }()
			synctest.Wait()
		}
		s.fakes["A"].set(func() { s.fakes["A"].mode = up })
		for range 2 {
			if code := <-codes; code != http.StatusNoContent {
				t.Errorf("answered %d once the owner is back", code)
			}
		}
		if got := s.headOf("A", p); got != "2" {
			t.Errorf("the owner has %q, want the newest", got)
		}
		if n := len(s.assigner.pool.kept.get(p).waits); n != 0 {
			t.Errorf("%d waits left behind", n)
		}
	})
}

func TestPublisherThatNobodyHasIsAssignedBeforeTheAnswer(t *testing.T) {
	p := realID(t, 1)
	inBubble(t, "A\nB", func(t *testing.T, s *story) {
		s.mustStart()
		if w := putAnnounce(s.assigner, announceOf(p, "1"), false); w.Code != http.StatusNoContent {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if s.headOf("A", p) != "1" && s.headOf("B", p) != "1" {
			t.Error("answered 204, and no indexer has it")
		}
	})
}

func TestHoldersGetAnnouncesAndTheirYesIsNoPromise(t *testing.T) {
	p := realID(t, 1)
	inBubble(t, "A", func(t *testing.T, s *story) {
		s.assign("A", p)
		s.fakes["A"].frozen = true
		s.mustStart()
		w := putAnnounce(s.assigner, announceOf(p, "1"), false)
		if got := s.headOf("A", p); got != "1" {
			t.Errorf("the frozen indexer has %q", got)
		}
		if w.Code != http.StatusServiceUnavailable {
			t.Errorf("answered %d, and nobody will follow the announce", w.Code)
		}
	})
	inBubble(t, "A\nB", func(t *testing.T, s *story) {
		s.assign("A", p)
		s.assign("B", p)
		s.fakes["A"].frozen = true
		s.mustStart()
		if w := putAnnounce(s.assigner, announceOf(p, "1"), false); w.Code != http.StatusNoContent {
			t.Errorf("answered %d, and an owner has it", w.Code)
		}
		synctest.Wait()
		if s.headOf("A", p) != "1" || s.headOf("B", p) != "1" {
			t.Error("one of the two did not get it")
		}
	})
}

func TestNewestAnnounceReplacesThePending(t *testing.T) {
	p := realID(t, 1)
	inBubble(t, "A", func(t *testing.T, s *story) {
		s.assign("A", p)
		s.announces.Journal = t.TempDir()
		s.mustStart()
		s.fakes["A"].set(func() { s.fakes["A"].mode = isDown })
		for i := range 100 {
			if w := putAnnounce(s.assigner, announceOf(p, fmt.Sprint(i)), false); w.Code != http.StatusNoContent {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		}
		s.fakes["A"].set(func() { s.fakes["A"].mode = up })
		time.Sleep(time.Minute)
		if n, got := s.announcesTaken("A"), s.headOf("A", p); n != 1 || got != "99" {
			t.Errorf("%d announces sent, the last %q; want one, the newest", n, got)
		}
		if b := s.assigner.journal.batchOf(p); b != nil {
			t.Error("it is in the journal still")
		}
	})
}

// killed copies a journal as kill -9 would leave it.
func killed(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, journalName))
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	if err := os.WriteFile(filepath.Join(to, journalName), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestAnsweredAnnounceSurvivesARestart(t *testing.T) {
	p, q := realID(t, 1), realID(t, 2)
	inBubble(t, "A\nB", func(t *testing.T, s *story) {
		s.assign("A", p)
		s.announces.Journal = t.TempDir()
		s.fakes["A"].mode, s.fakes["B"].mode = isDown, isDown
		s.mustStart()
		for _, an := range []announce.Announce{announceOf(p, "old"), announceOf(p, "new"), announceOf(q, "stranger")} {
			if w := putAnnounce(s.assigner, an, false); w.Code != http.StatusNoContent {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		}
		s.announces.Journal = killed(t, s.announces.Journal)
		s.stop()
		s.fakes["A"].mode, s.fakes["B"].mode = up, up
		s.mustStart()
		time.Sleep(5 * time.Second)
		if got := s.headOf("A", p); got != "new" {
			t.Errorf("the owner has %q, want the newest that was promised", got)
		}
		if s.headOf("A", q)+s.headOf("B", q) != "stranger" {
			t.Error("the publisher that nobody had was not assigned with its announce")
		}
		// Once delivered it does not come again.
		s.stop()
		taken := s.announcesTaken("A") + s.announcesTaken("B")
		s.mustStart()
		time.Sleep(5 * time.Second)
		if n := s.announcesTaken("A") + s.announcesTaken("B"); n != taken {
			t.Errorf("%d announces sent again", n-taken)
		}
	})
}

func TestJournalThatFailsIsAsNone(t *testing.T) {
	p := realID(t, 1)
	inBubble(t, "A", func(t *testing.T, s *story) {
		s.assign("A", p)
		s.announces.Journal = t.TempDir()
		s.mustStart()
		j := s.assigner.journal
		j.mu.Lock()
		j.fsync = func(*os.File) error { return errors.New("disk is on fire") }
		j.mu.Unlock()
		if w := putAnnounce(s.assigner, announceOf(p, "1"), false); w.Code != http.StatusNoContent {
			t.Errorf("the owner has it: %d", w.Code)
		}
		s.fakes["A"].set(func() { s.fakes["A"].mode = isDown })
		if w := putAnnounce(s.assigner, announceOf(p, "2"), false); w.Code != http.StatusServiceUnavailable {
			t.Errorf("nobody has it: %d", w.Code)
		}
	})
}

func TestFullJournalIs503(t *testing.T) {
	a := idleWith(t, AnnounceConfig{Journal: t.TempDir()}, "A")
	a.journal.mu.Lock()
	a.journal.max = 4 << 10
	a.journal.mu.Unlock()
	codes := make(map[int]int)
	for i := range 20 {
		w := putAnnounce(a, announceOf(realID(t, int64(i)), "h"), false)
		codes[w.Code]++
		if w.Code == http.StatusServiceUnavailable &&
			(w.Body.String() != errJournalFull.Text+"\n" || w.Header().Get("Retry-After") == "") {
			t.Errorf("%s %s", w.Body, w.Header())
		}
	}
	if codes[http.StatusNoContent] == 0 || codes[http.StatusServiceUnavailable] == 0 || len(codes) != 2 {
		t.Errorf("answers: %v", codes)
	}
	if got := testutil.ToFloat64(a.metrics.unavailable.WithLabelValues("journal_full")); int(got) != codes[503] {
		t.Errorf("counted %v of %v", got, codes)
	}
	// A newer announce of a publisher that is in it has room.
	if w := putAnnounce(a, announceOf(realID(t, 0), "i"), false); w.Code != http.StatusNoContent {
		t.Errorf("newer one: %d %s", w.Code, w.Body)
	}
}

func TestFullJournalGivesUpWhatNobodyTookForADay(t *testing.T) {
	a := idleWith(t, AnnounceConfig{Journal: t.TempDir()}, "A")
	a.journal.mu.Lock()
	a.journal.max = 4 << 10
	a.journal.mu.Unlock()
	now := time.Now()
	keep := func(i int64, at time.Time) error {
		an := announceOf(realID(t, i), "h")
		payload, err := encodePut(an, at)
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.pool.keep(an, an.Key(), payload, at)
		return err
	}
	n := int64(0)
	for ; keep(n, now) == nil; n++ {
	}
	if err := keep(n, now.Add(keepJournalled)); !errors.Is(err, announce.ErrUnavailable) {
		t.Errorf("a promised announce was given up: %v", err)
	}
	if err := keep(n, now.Add(keepJournalled+1)); err != nil || a.pool.kept.get(realID(t, 0)) != nil {
		t.Errorf("the oldest does not make room after a day: %v", err)
	}
	if a.journal.batchOf(realID(t, 0)) != nil {
		t.Error("the journal has it still")
	}
	if got := testutil.ToFloat64(a.metrics.expired); got != 1 {
		t.Errorf("%v counted as given up, want 1", got)
	}
}

func TestRefusedPublisherIs403(t *testing.T) {
	bad := realID(t, 1)
	dir := t.TempDir()
	a := idleWith(t, AnnounceConfig{Journal: dir}, "A")
	if w := putAnnounce(a, announceOf(bad, "h"), false); w.Code != http.StatusNoContent {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	a.Close()
	intents := filepath.Join(t.TempDir(), "intents")
	if err := os.WriteFile(intents, []byte("# signpost intents 1\nexcept "+bad.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a = idleConfigured(t, Config{Announces: AnnounceConfig{Journal: dir}, Operating: Operating{IntentsFile: intents}}, "A")
	if a.pool.kept.get(bad) != nil {
		t.Error("what the journal had of it was kept")
	}
	w := putAnnounce(a, announceOf(bad, "h"), true)
	if w.Code != http.StatusForbidden || w.Body.String() != "announce requests not allowed from peer "+bad.String()+"\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if err := a.hear(t.Context(), announceOf(bad, "h")); !errors.Is(err, announce.ErrNotAllowed) {
		t.Errorf("by gossip: %v", err)
	}
	if w := putAnnounce(a, announceOf(realID(t, 2), "h"), false); w.Code != http.StatusNoContent {
		t.Errorf("another: %d", w.Code)
	}
}

// madeUp is a peer ID that costs nothing to make up.
func madeUp(i int) peer.ID {
	id, err := peer.Decode("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")
	if err != nil {
		panic(err)
	}
	b := []byte(id)
	copy(b[len(b)-8:], fmt.Sprintf("%08d", i))
	return peer.ID(b)
}

func TestFloodOfStrangersKeepsNobodyOut(t *testing.T) {
	for name, journal := range map[string]bool{"in memory": false, "in the journal": true} {
		t.Run(name, func(t *testing.T) {
			var cfg AnnounceConfig
			flood := 200_000
			if journal {
				cfg.Journal = t.TempDir()
				flood /= 2 // it has less room
			}
			a := idleWith(t, cfg, "A")
			n := ownedNode(t, a)
			refused := 0
			for i := range flood {
				if err := a.hear(t.Context(), announceOf(madeUp(i), "h")); errors.Is(err, announce.ErrUnavailable) {
					refused++
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if refused == 0 {
				t.Error("the flood has all the room it wants")
			}
			if kept := len(a.pool.kept.by); kept > maxStrangers {
				t.Errorf("%d kept", kept)
			}
			if got := a.pool.kept.strangers.bytes; got > strangerBytes {
				t.Errorf("%d bytes kept", got)
			}
			if err := a.hear(t.Context(), announceOf(realID(t, 7), "1")); err != nil {
				t.Fatalf("an announce of a publisher that is assigned: %v", err)
			}
			if d, _ := a.pool.nextForward(n, time.Now().Add(time.Second)); d.forward == nil || d.publisher != realID(t, 7) {
				t.Error("it is not forwarded")
			}
		})
	}
}

func TestOversizedAnnounceIsCut(t *testing.T) {
	an := announceOf(realID(t, 1), "h")
	for i := range 5000 {
		an.Publisher.Addrs = append(an.Publisher.Addrs, multiaddr.StringCast(fmt.Sprintf("/dns4/host-%d.example/tcp/3104/http", i)))
	}
	cut := trim(an)
	if n := announceBytes(cut); n > announceOverhead+maxAddrBytes || len(cut.Publisher.Addrs) < 50 {
		t.Errorf("%d addresses, %d bytes", len(cut.Publisher.Addrs), n)
	}
	a := idleWith(t, AnnounceConfig{Journal: t.TempDir()}, "A")
	if err := a.accept(context.Background(), an); err != nil {
		t.Error(err)
	}
	if short := announceOf(realID(t, 1), "h"); len(trim(short).Publisher.Addrs) != 1 {
		t.Error("a short one was cut")
	}
}
