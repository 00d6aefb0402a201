package assigner

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/signpost-index/signpost/api/admin"
)

// polled is whom the indexer was asked to poll, sorted.
func (s *story) polled(name string) (ids []peer.ID) {
	s.fakes[name].set(func() { ids = slices.Sorted(slices.Values(s.fakes[name].synced)) })
	return ids
}

func (s *story) polls(result string) int {
	return int(testutil.ToFloat64(s.assigner.metrics.polls.WithLabelValues(result)))
}

func manyIDs(n int) []peer.ID {
	var ids []peer.ID
	for i := range n {
		ids = append(ids, madeUp(i))
	}
	slices.Sort(ids)
	return ids
}

func TestOwnersPollAllTheyOwnWithinAMinuteOfAStart(t *testing.T) {
	ids := manyIDs(1000)
	inBubble(t, "A\nB\nC", func(t *testing.T, s *story) {
		s.assign("A", ids[:600]...)
		s.assign("B", ids[600:]...)
		s.assign("C", ids[:10]...)
		s.fakes["C"].frozen = true
		s.fakes["A"].syncTakes = 100 * time.Millisecond
		s.mustStart()
		time.Sleep(pollWithin / 3)
		if n := len(s.polled("A")); n < 200 || n > 400 {
			t.Errorf("%d of 600 after a third of the time: not spread evenly", n)
		}
		time.Sleep(2 * pollWithin / 3)
		if !slices.Equal(s.polled("A"), ids[:600]) || !slices.Equal(s.polled("B"), ids[600:]) {
			t.Errorf("%d and %d polled, want 600 and 400, each once", len(s.polled("A")), len(s.polled("B")))
		}
		if n := len(s.polled("C")); n > 0 {
			t.Errorf("a frozen indexer was asked to poll %d", n)
		}
		if n := s.fakes["A"].mostSyncing; n > pollWorkers {
			t.Errorf("%d polls at once, want at most %d", n, pollWorkers)
		}
		time.Sleep(10 * time.Minute)
		if n := len(s.polled("A")) + len(s.polled("B")); n != 1000 || s.polls("asked") != 1000 {
			t.Errorf("%d polled in the end, %d counted: it was repeated", n, s.polls("asked"))
		}
	})
}

func TestIndexerThatComesLaterIsAskedWhenFirstRead(t *testing.T) {
	p := realID(t, 1)
	inBubble(t, "A", func(t *testing.T, s *story) {
		s.assign("A", p)
		s.fakes["A"].mode = isDown
		s.mustStart()
		time.Sleep(10 * time.Minute)
		s.fakes["A"].set(func() { s.fakes["A"].mode = up })
		time.Sleep(pollWithin)
		s.fakes["A"].set(func() { s.fakes["A"].mode = isDown }) // being down once more changes nothing
		time.Sleep(time.Minute)
		s.fakes["A"].set(func() { s.fakes["A"].mode = up })
		time.Sleep(2 * pollWithin)
		if got := s.polled("A"); !slices.Equal(got, []peer.ID{p}) {
			t.Errorf("polled %d times, want once", len(got))
		}
	})
}

func TestPollRunningAlreadyCountsAsDone(t *testing.T) {
	inBubble(t, "A", func(t *testing.T, s *story) {
		s.assign("A", realID(t, 1))
		s.fakes["A"].syncErr = admin.ErrSyncRunning
		s.mustStart()
		time.Sleep(2 * pollWithin)
		if n := len(s.polled("A")); n != 1 || s.polls("running") != 1 || s.polls("failed") != 0 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestFailedPollsAreRetriedWithinTheMinuteAndGivenUp(t *testing.T) {
	ids := manyIDs(20)
	inBubble(t, "A\nB", func(t *testing.T, s *story) {
		s.assign("A", ids[:10]...)
		s.assign("B", ids[10:]...)
		s.fakes["A"].syncFails = 7
		s.fakes["B"].syncErr = admin.ErrUnavailable
		s.mustStart()
		time.Sleep(pollWithin + time.Second)
		if !slices.Equal(s.polled("A"), ids[:10]) {
			t.Errorf("%d of A polled, want all", len(s.polled("A")))
		}
		asked := len(s.polled("B"))
		if asked < 20 || s.polls("failed") != 10 {
			t.Errorf("B was asked %d times, %d given up", asked, s.polls("failed"))
		}
		time.Sleep(10 * time.Minute)
		if n := len(s.polled("B")); n != asked {
			t.Errorf("asked %d times more after it was given up", n-asked)
		}
	})
}

func TestPublisherAnnouncedSinceTheStartIsNotPolled(t *testing.T) {
	ids := publisherIDs(t, 1, 10)
	slices.Sort(ids)
	inBubble(t, "A", func(t *testing.T, s *story) {
		s.assign("A", ids...)
		s.mustStart()
		for i := range 3 { // of those asked for last
			if w := putAnnounce(s.assigner, announceOf(ids[7+i], fmt.Sprint(i)), false); w.Code != http.StatusNoContent {
				t.Fatal(w.Code)
			}
		}
		time.Sleep(pollWithin)
		synctest.Wait()
		if got := s.polled("A"); !slices.Equal(got, ids[:7]) || s.polls("heard") != 3 {
			t.Errorf("%d polled, %d heard of; want 7 and 3", len(got), s.polls("heard"))
		}
	})
}
