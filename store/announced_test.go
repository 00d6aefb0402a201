package store

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

func announcedOf(t *testing.T, s *Store) []Announced {
	t.Helper()
	all, err := s.Announced()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func announce(t *testing.T, s *Store, a Announced) Seq {
	t.Helper()
	seq, err := s.SetAnnounced(a)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func TestAnnouncedHeadIsKeptUntilDropped(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openTest(t, fs)
	first := Announced{"a", testCID(1), []string{"/ip4/1.2.3.4"}, testTime}
	second := Announced{"a", testCID(2), nil, testTime.Add(time.Second)}
	other := Announced{"b", testCID(3), nil, testTime}
	announce(t, s, first)
	announce(t, s, other)
	if diff := cmp.Diff([]Announced{first, other}, announcedOf(t, s), equalCIDs); diff != "" {
		t.Error(diff)
	}
	seq := announce(t, s, second)
	s.SyncSoon()
	must(t, s.WaitDurable(t.Context(), seq))
	s = openTest(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	if diff := cmp.Diff([]Announced{second, other}, announcedOf(t, s), equalCIDs); diff != "" {
		t.Error(diff)
	}
	must(t, s.DropAnnounced("a", testCID(1)), s.DropAnnounced("c", cid.Undef)) // names another, nobody
	if got := announcedOf(t, s); len(got) != 2 {
		t.Errorf("kept: %v", got)
	}
	must(t, s.DropAnnounced("a", testCID(2)), s.DropAnnounced("b", cid.Undef), checkInvariants(s))
	if got := announcedOf(t, s); len(got) != 0 || s.announced != 0 {
		t.Errorf("kept: %v, counted %d", got, s.announced)
	}
}

var equalCIDs = cmp.Comparer(func(a, b cid.Cid) bool { return a.Equals(b) })

func TestAnnouncedHeadsAreBounded(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, fs)
	head := testCID(1)
	for i := range MaxAnnounced {
		announce(t, s, Announced{Publisher: peer.ID(fmt.Sprint("publisher-", i)), Head: head})
	}
	must(t, s.Close())
	s = openTest(t, fs)
	if _, err := s.SetAnnounced(Announced{Publisher: "one more", Head: head}); !errors.Is(err, ErrFull) {
		t.Errorf("one more publisher: %v, want ErrFull", err)
	}
	announce(t, s, Announced{Publisher: "publisher-7", Head: testCID(2)})
	must(t, s.SetPublisherAddrs("followed", []string{"/ip4/192.0.2.1/tcp/3104/http"}))
	announce(t, s, Announced{Publisher: "followed", Head: head}) // a flood of strangers does not keep it out
	must(t, s.DropAnnounced("followed", cid.Undef))
	must(t, s.DropAnnounced("publisher-8", cid.Undef))
	announce(t, s, Announced{Publisher: "one more", Head: head})
	for name, a := range map[string]Announced{
		"no publisher":   {Head: head},
		"no head":        {Publisher: "p"},
		"many addresses": {Publisher: "p", Head: head, Addrs: make([]string, MaxAnnouncedAddrs+1)},
		"long address":   {Publisher: "p", Head: head, Addrs: []string{strings.Repeat("x", MaxAnnouncedAddrBytes+1)}},
	} {
		if _, err := s.SetAnnounced(a); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

// TestAnnouncementsShareASync: who waits for SyncSoon's sync is served, however
// many do at once.
func TestAnnouncementsShareASync(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			seq, err := s.SetAnnounced(Announced{Publisher: publisherID(i), Head: testCID(1)})
			if err == nil {
				s.SyncSoon()
				err = s.WaitDurable(t.Context(), seq)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
