package store

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// TestWhatIsTakenIsNotSkippedAnyMore: an ad that was begun while its publisher was closed,
// or the store frozen, and ends after that is over, is applied: nobody would look for it.
func TestWhatIsTakenIsNotSkippedAnyMore(t *testing.T) {
	skip := Effect{Kind: EffectMetadata, Verdict: SkippedFrozen, HeldOnly: true}
	for name, tc := range map[string]struct{ close, take func(*Store, Closed) }{
		"taken over": {func(s *Store, _ Closed) {}, func(s *Store, at Closed) {
			must(t, s.TakeOver([]Takeover{{Publisher: "pub", From: "x", Mark: AdRef{Ad: at.Ad, Pos: 1 << 32}, Height: at.Height}})[0])
		}},
		"unfrozen": {func(s *Store, at Closed) {
			must(t, s.TakeOver([]Takeover{{Publisher: "pub", From: "x", Mark: AdRef{Ad: at.Ad, Pos: 1 << 32}, Height: at.Height}})[0])
			must(t, s.Freeze(testTime))
		}, func(s *Store, _ Closed) { must(t, s.Unfreeze()) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, vfs.NewMem())
			c := newChain("pub", "prov")
			openOne(t, s, "pub")
			write(t, s, c.ad("a", "m"), content, testMH(1))
			at := closeOne(t, s, "pub")
			tc.close(s, at)
			write(t, s, c.ad("b", "m"), skip)
			late := c.ad("c", "m")
			w, err := s.Begin(late)
			must(t, err)
			defer w.Abort()
			tc.take(s, at)
			if _, err := w.Commit(skip); !errors.Is(err, ErrTaken) {
				t.Errorf("commit: %v, want ErrTaken", err)
			}
			if st, known, err := s.AdState(late.Ad); known && st.Verdict == SkippedFrozen || err != nil {
				t.Errorf("%v, %v", st.Verdict, err)
			}
			write(t, s, late, content, testMH(3))
			if got := found(t, s, testMH(3)); got["c"] != "m" {
				t.Errorf("found %v", got)
			}
			must(t, checkInvariants(s))
		})
	}
}

// TestContentThatIsNotCommittedAtTheStopIsNotAfterIt: whoever goes on is told what is
// here when the publisher is closed, or the store frozen, and would store twice what
// comes later. An ad whose multihashes are all put by then is skipped.
func TestContentThatIsNotCommittedAtTheStopIsNotAfterIt(t *testing.T) {
	for name, stop := range map[string]func(*Store) error{
		"closed": func(s *Store) error { _, err := s.CloseRoles([]peer.ID{"pub"}, testTime); return err },
		"frozen": func(s *Store) error { return s.Freeze(testTime) },
	} {
		t.Run(name, func(t *testing.T) {
			s := openTest(t, vfs.NewMem())
			c := newChain("pub", "prov")
			openOne(t, s, "pub")
			first := c.ad("a", "m")
			write(t, s, first, content, testMH(1))
			late := c.ad("b", "m")
			w, err := s.Begin(late)
			must(t, err)
			defer w.Abort()
			must(t, w.Put([]multihash.Multihash{testMH(2)}), stop(s))
			if _, err := w.Commit(content); !errors.Is(err, ErrFrozen) {
				t.Errorf("commit: %v, want ErrFrozen", err)
			}
			write(t, s, late, Effect{Kind: EffectMetadata, Verdict: SkippedFrozen, HeldOnly: true})
			if got := found(t, s, testMH(2)); len(got) > 0 {
				t.Errorf("found %v", got)
			}
			if at := closeOne(t, s, "pub"); at.Ad != first.Ad || len(at.Applied) > 0 {
				t.Errorf("closed at %v with %v above; want the first ad, none", at.Ad, at.Applied)
			}
			must(t, checkInvariants(s))
		})
	}
}
