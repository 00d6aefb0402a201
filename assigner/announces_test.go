package assigner

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api/admin"
)

func TestKeptAnnouncesMakeRoom(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	keep := func(ks *keptAnnounces, publisher string, at time.Time) bool {
		an := announceOf(peer.ID(publisher), "h")
		return ks.put(an, an.Key(), false, at) != nil
	}
	full := func() *keptAnnounces {
		ks := newKeptAnnounces(3)
		for _, p := range []string{"p", "q", "r"} {
			if !keep(ks, p, now) {
				t.Fatalf("no room for %s", p)
			}
		}
		return ks
	}
	t.Run("not for a new publisher while all wait", func(t *testing.T) {
		ks := full()
		if keep(ks, "s", now) {
			t.Error("a waiting announce was pushed out")
		}
		if !keep(ks, "p", now) {
			t.Error("no room for a newer announce of a kept publisher")
		}
	})
	t.Run("by the delivered one longest not heard of", func(t *testing.T) {
		ks := full()
		for _, p := range []string{"p", "q"} {
			ks.get(peer.ID(p)).taken = true
		}
		keep(ks, "p", now) // heard of again, and so not delivered any more
		if !keep(ks, "s", now) {
			t.Fatal("no room")
		}
		if ks.get("q") != nil || ks.get("p") == nil {
			t.Error("the wrong announce was pushed out")
		}
	})
	t.Run("not by one that is due somewhere", func(t *testing.T) {
		ks := full()
		ks.get("p").taken, ks.get("p").queued = true, 1
		if keep(ks, "s", now) {
			t.Error("a due announce was pushed out")
		}
	})
	t.Run("by one that nobody took for long", func(t *testing.T) {
		ks := full()
		if !keep(ks, "s", now.Add(keepUntaken+1)) || ks.get("p") != nil {
			t.Error("untaken announces fill the memory for good")
		}
	})
}

func TestNoRoomIsUnavailable(t *testing.T) {
	a := idleAssigner(t, "A")
	a.pool.kept.strangers.max = 2
	for i := range 3 {
		an := announceOf(peer.ID(fmt.Sprint("publisher ", i)), "h")
		err := a.hear(t.Context(), an)
		if want := i == 2; errors.Is(err, announce.ErrUnavailable) != want {
			t.Errorf("announce %d: %v", i, err)
		}
	}
	// What was refused is not taken for seen.
	if err := a.hear(t.Context(), announceOf("publisher 2", "h")); !errors.Is(err, announce.ErrUnavailable) {
		t.Errorf("repeated: %v", err)
	}
}

// ownedNode is the only member of an idle assigner, with p assigned.
func ownedNode(t *testing.T, a *Assigner) *node {
	t.Helper()
	n := a.pool.starting()[0]
	look, _, _, _ := a.pool.startLook(n)
	st := admin.Status{ID: "A"}
	a.pool.finishLook(n, look, plainFacts(st, []admin.Assignment{{Publisher: "p"}, {Publisher: realID(t, 7)}}), nil, time.Now())
	return n
}

func TestNewerAnnounceGoesOutAfterTheOneBeingSent(t *testing.T) {
	a := idleAssigner(t, "A")
	n := ownedNode(t, a)
	now := time.Now()
	accept := func(word string) {
		if err := a.hear(t.Context(), announceOf("p", word)); err != nil {
			t.Fatal(err)
		}
	}
	accept("1")
	d, _ := a.pool.nextForward(n, now.Add(time.Second))
	if d.forward == nil || d.announce.Head != head("1") {
		t.Fatalf("first: %+v", d)
	}
	accept("2")
	accept("3")
	if other, _ := a.pool.nextForward(n, now.Add(time.Second)); other.forward != nil {
		t.Fatal("two announces of one publisher on the way to one indexer")
	}
	a.pool.finishForward(n, d, nil, now)
	d, _ = a.pool.nextForward(n, now.Add(time.Second))
	if d.forward == nil || d.announce.Head != head("3") {
		t.Fatalf("second: %+v", d)
	}
	a.pool.finishForward(n, d, nil, now)
	if d, _ := a.pool.nextForward(n, now.Add(time.Hour)); d.forward != nil {
		t.Fatalf("third: %+v", d)
	}
	if k := a.pool.kept.get("p"); k.queued != 0 || !k.taken {
		t.Errorf("kept announce: queued %d, taken %v", k.queued, k.taken)
	}
}

func TestFailedForwardCanBeTriedAgain(t *testing.T) {
	a := idleAssigner(t, "A")
	n := ownedNode(t, a)
	now := time.Now()
	an := announceOf("p", "1")
	if err := a.hear(t.Context(), an); err != nil {
		t.Fatal(err)
	}
	d, _ := a.pool.nextForward(n, now.Add(time.Second))
	a.pool.finishForward(n, d, &announce.StatusError{Code: 500}, now.Add(time.Second))
	if d, wait := a.pool.nextForward(n, now.Add(time.Second)); d.forward != nil || wait > 2*forwardRetry {
		t.Fatalf("no pause after a failure: %+v %s", d, wait)
	}
	// The same announce again is not dropped as seen, and goes out at once.
	if err := a.hear(t.Context(), an); err != nil {
		t.Fatal(err)
	}
	if d, _ := a.pool.nextForward(n, now.Add(2*time.Second)); d.forward == nil {
		t.Fatal("repeated announce was not sent")
	}
}

func TestIndexerThatDoesNotAnswerIsPausedAsAWhole(t *testing.T) {
	a := idleAssigner(t, "A")
	n := ownedNode(t, a)
	now := time.Now()
	if err := a.hear(t.Context(), announceOf("p", "1")); err != nil {
		t.Fatal(err)
	}
	var last time.Duration
	for range 20 {
		now = now.Add(time.Hour)
		d, _ := a.pool.nextForward(n, now)
		if d.forward == nil {
			t.Fatal("no retry")
		}
		a.pool.finishForward(n, d, context.DeadlineExceeded, now)
		if d, last = a.pool.nextForward(n, now); d.forward != nil {
			t.Fatal("no pause")
		}
	}
	if last < maxForwardPause || last > 2*maxForwardPause {
		t.Errorf("pause is %s, want about %s", last, maxForwardPause)
	}
}
