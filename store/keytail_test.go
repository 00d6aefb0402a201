package store

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/signpost-index/signpost/store/keyset"
	"github.com/signpost-index/signpost/store/postings"
)

func hashesOf(from, n int) (hs []postings.Hash) {
	for i := range n {
		hs = append(hs, postings.Hash{7: byte((from + i) >> 8), 6: byte((from + i) >> 16), 5: 1, 0: byte(from + i)})
	}
	return hs
}

// TestNothingIsDurableBeforeFollowersHaveItsKeys: a commit waits for those with
// a lease, and for one that is gone as long as its lease.
func TestNothingIsDurableBeforeFollowersHaveItsKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tail := newTail()
		at, err := tail.open("a")
		if err != nil {
			t.Fatal(err)
		}
		if _, lease, err := tail.follow(t.Context(), "a", at); err != nil || lease != KeysLease {
			t.Fatal(lease, err)
		}
		tail.add(hashesOf(0, 10))
		end := tail.end()
		done := make(chan time.Time, 1)
		start := time.Now()
		go func() { tail.await(end, nil); done <- time.Now() }()
		synctest.Wait()
		keys, lease, err := tail.follow(t.Context(), "a", at)
		if err != nil || len(keys) != 10 || lease != KeysLease || time.Since(start) > 0 {
			t.Fatalf("%d keys, lease %s, after %s: %v", len(keys), lease, time.Since(start), err)
		}
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("durable before the keys were confirmed")
		default:
		}
		// The answer is lost: the same again gives no longer lease.
		if _, lease, err := tail.follow(t.Context(), "a", at); err != nil || lease != 0 {
			t.Fatal("a lease for who has not confirmed what it got", lease, err)
		}
		if took := (<-done).Sub(start); took > KeysLease {
			t.Errorf("a follower that is gone holds up others for %s", took)
		}
		if _, _, err := tail.follow(t.Context(), "a", at+10); err != nil {
			t.Fatal(err)
		}
		tail.await(end, nil) // at once
	})
}

// TestKeysAreKeptForFollowersOnly: and for those only as many as have room.
func TestKeysAreKeptForFollowersOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tail := newTail()
		tail.add(hashesOf(0, 100))
		if len(tail.keys) > 0 || tail.end() != 100 {
			t.Fatalf("%d keys kept of %d", len(tail.keys), tail.end())
		}
		at, _ := tail.open("a")
		hs := hashesOf(0, 1<<16)
		for range maxTail/len(hs) + 2 {
			tail.add(hs)
		}
		if len(tail.keys) > maxTail {
			t.Errorf("%d keys kept", len(tail.keys))
		}
		if _, _, err := tail.follow(t.Context(), "a", at); !errors.Is(err, ErrKeysGone) {
			t.Errorf("what is not kept any more: %v", err)
		}
		time.Sleep(forgetFollower*KeysLease + time.Second)
		if _, err := tail.open("b"); err != nil {
			t.Fatal(err)
		}
		if len(tail.followers) != 1 || len(tail.keys) != 0 {
			t.Errorf("%d followers, %d keys", len(tail.followers), len(tail.keys))
		}
	})
}

// TestScannedAndFollowedKeysAreAllThereAre: what is put before, meanwhile and
// after comes by one or the other, flushed or not, also while buckets split.
func TestScannedAndFollowedKeysAreAllThereAre(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	secret := keyset.SecretOf(s.cfg.Secret)
	chain := newChain("pub", "prov")
	want := make(map[uint64]bool)
	put := func(n int) {
		w, err := s.Begin(chain.ad("a", "m"))
		if err != nil {
			t.Fatal(err)
		}
		mhs := testMHs(uint64(n)*5000, 5000)
		if err := w.Put(mhs); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Commit(Effect{Kind: EffectContent, Verdict: Applied}); err != nil {
			t.Fatal(err)
		}
		for _, mh := range mhs {
			want[secret.Key(mh)] = true
		}
	}
	for n := range 5 {
		put(n)
	}
	keys, err := s.OpenKeys(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		put(5 + n)
	}
	got := make(map[uint64]bool)
	for r := range KeyRegions {
		var scanned []uint64
		if err := s.ScanKeys(r, func(key uint64) { scanned = append(scanned, key) }); err != nil {
			t.Fatal(err)
		}
		if !slices.IsSorted(scanned) {
			t.Fatal("keys of a region are not sorted")
		}
		for _, k := range scanned {
			if int(k>>56) != r {
				t.Fatalf("key %x in region %d", k, r)
			}
			got[k] = true
		}
	}
	at := keys.From
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		more, lease, err := s.FollowKeys(ctx, keys.Epoch, "a", at)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range more {
			got[k] = true
		}
		at += uint64(len(more))
		if len(more) == 0 && lease > 0 {
			break
		}
	}
	for k := range want {
		if !got[k] {
			t.Fatalf("key %x was put and is nowhere", k)
		}
	}
	if _, _, err := s.FollowKeys(t.Context(), "other", "a", at); !errors.Is(err, ErrKeysGone) {
		t.Errorf("of another epoch: %v", err)
	}
}
