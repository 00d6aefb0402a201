package store

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestWhatIsToBeAppliedAgainIsCountedUntilItIs: from the wish, over the way back,
// until the last ad is applied, and across a restart.
func TestWhatIsToBeAppliedAgainIsCountedUntilItIs(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, fs)
	c := newChain("pub", "prov")
	ad := c.ad("a", "1")
	write(t, s, ad, content, testMH(1))
	count := func(when string, want int) {
		t.Helper()
		if n, err := s.Reapplying(); n != want || err != nil {
			t.Errorf("%s: %d, %v; want %d", when, n, err, want)
		}
	}
	count("at first", 0)
	must(t, s.AddRevisit("pub", Revisit{All: true}), s.AddRevisit("other", Revisit{All: true, Skipped: true}),
		s.AddRevisit("third", Revisit{Skipped: true}))
	count("wished", 2)
	must(t, s.Close())
	s = openTest(t, fs)
	count("after a restart", 2)
	wish, _, err := s.Revisit("pub")
	must(t, err, s.AddAgain("pub", []AdRef{ad.AdRef}, false))
	count("noted", 2)
	must(t, s.RevisitWalked("pub", wish.Number), s.Close())
	s = openTest(t, fs)
	count("the way is over", 2)
	write(t, s, ad, content, testMH(1))
	count("applied", 1)
}
