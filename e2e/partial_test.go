package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"

	"github.com/signpost-index/signpost/api/find"
)

// TestFindWithOneIndexerDown: while one of two indexers is gone, or hangs, the
// frontend says what it knows and that it does not know all; it never says
// "not found". When the indexer is back, so are whole answers.
func TestFindWithOneIndexerDown(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name     string
		down, up func(ix *indexer)
	}{
		{"killed", func(ix *indexer) { ix.kill() }, func(ix *indexer) { ix.restart() }},
		{"hung", (*indexer).hang, func(ix *indexer) { ix.signal(syscall.SIGCONT) }},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := workDir(t)
			stays, falls := startIndexer(t, dir, "stays"), startIndexer(t, dir, "falls")
			frontend := startFrontend(t, dir, writePool(t, dir, stays, falls))
			of := make(map[*indexer]index)
			for _, ix := range []*indexer{stays, falls} {
				c := newChain(t, ix.name)
				mhs := multihashes(ix.name, 20)
				of[ix] = make(index).with(newHolding(c.id, []byte(ix.name), bitswap), mhs)
				c.add(ix.name, mhs)
				indexedAt(t, ix, c)
			}
			unknown := multihashes("unknown", 3)
			whole := make(index).with("", unknown)
			for _, x := range of {
				for mh, held := range x {
					whole[mh] = held
				}
			}
			whole.mustFind(t, frontend, "with both indexers")

			tc.down(falls)
			knownIsPartial(t, frontend, multihashes(stays.name, 3), falls.Find)
			absentIsUndecided(t, frontend, append(multihashes(falls.name, 1), unknown[:1]...), falls.Find)
			tc.up(falls)
			eventually(t, "whole answers again", func() error { return whole.check(frontend) })
		})
	}
}

// hang stops the process where it is, and returns when it has stopped.
func (ix *indexer) hang() {
	ix.t.Helper()
	ix.signal(syscall.SIGSTOP)
	soon := http.Client{Timeout: time.Second / 4}
	defer soon.CloseIdleConnections()
	eventually(ix.t, ix.name+" does not answer", func() error {
		resp, err := soon.Get(ix.Find + "/health")
		if err != nil {
			return nil
		}
		return errors.Join(errors.New("it answers"), resp.Body.Close())
	})
}

// indexedAt announces c to ix and waits until its head is indexed.
func indexedAt(t testing.TB, ix *indexer, c *chain) {
	t.Helper()
	c.announce(ix.Ingest)
	untilDone(t, ix.Ingest, c)
}

// questions are all ways to ask about mh.
func questions(mh multihash.Multihash) [][2]string {
	key := raw(mh).String()
	return [][2]string{
		{"/cid/" + key, asJSON},
		{"/cid/" + key, asNDJSON},
		{"/multihash/" + mh.B58String(), asJSON},
		{"/routing/v1/providers/" + key, asJSON},
		{"/routing/v1/providers/" + key, asNDJSON},
	}
}

// askAll asks all questions at once, as each may wait for the one that is
// missing, and has each answer judged.
func askAll(t *testing.T, base string, mhs []multihash.Multihash, judge func(path string, a answer) error) {
	t.Helper()
	g := new(errgroup.Group)
	for _, mh := range mhs {
		for _, q := range questions(mh) {
			g.Go(func() error {
				a, err := get(base+q[0], q[1])
				if err == nil {
					err = judge(q[0], a)
				}
				if err != nil {
					return fmt.Errorf("%s as %s: %w", q[0], q[1], err)
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// knownIsPartial: what the other indexer knows is answered, in every way, with
// the name of the one that is missing, and is not to be cached.
func knownIsPartial(t *testing.T, base string, mhs []multihash.Multihash, missing string) {
	t.Helper()
	askAll(t, base, mhs, func(_ string, a answer) error {
		switch {
		case a.status != http.StatusOK || len(a.body) == 0:
			return fmt.Errorf("status %d, want 200: %s", a.status, a.body)
		case !strings.Contains(a.header.Get(find.HeaderPartial), missing):
			return fmt.Errorf("%s is %q, want %s in it", find.HeaderPartial, a.header.Get(find.HeaderPartial), missing)
		case a.header.Get("Cache-Control") != "no-store":
			return fmt.Errorf("Cache-Control %q, want no-store", a.header.Get("Cache-Control"))
		}
		return nil
	})
}

// absentIsUndecided: what nobody who answers knows is 503, in every way.
func absentIsUndecided(t *testing.T, base string, mhs []multihash.Multihash, missing string) {
	t.Helper()
	askAll(t, base, mhs, func(path string, a answer) error {
		switch {
		case a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "":
			return fmt.Errorf("status %d, Retry-After %q; want 503 with one: %s", a.status, a.header.Get("Retry-After"), a.body)
		case a.header.Get("Cache-Control") != "no-store":
			return fmt.Errorf("Cache-Control %q, want no-store", a.header.Get("Cache-Control"))
		case !strings.HasPrefix(path, "/routing/") && !strings.Contains(a.header.Get(find.HeaderPartial), missing):
			return fmt.Errorf("%s is %q, want %s in it", find.HeaderPartial, a.header.Get(find.HeaderPartial), missing)
		}
		return nil
	})
	r := command(t, "find", raw(mhs[0]).String(), "--find", base)
	if r.code != 1 || !strings.Contains(r.stderr, "not decided") {
		t.Errorf("signpost find: status %d, want 1 and that it is not decided: %s", r.code, r.stderr)
	}
}
