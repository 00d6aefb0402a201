package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/find"
)

// hangup sends this process SIGHUP, which daemons in it hear.
func hangup(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// soon asks until it is true: a signal has no answer to wait for.
func soon(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !is(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func getJSON(t *testing.T, url string, v any) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
}

func TestTheFreezeLimitChangesAtHangup(t *testing.T) {
	withoutSettings(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "signpost.yaml")
	text := "indexer:\n  data: " + filepath.Join(dir, "data") + "\n  listen-find: 127.0.0.1:0\n  listen-ingest: 127.0.0.1:0\n  listen-admin: 127.0.0.1:0\n" +
		"  listen-p2p: none\n  store-memory: 128MiB\n  ingest-memory: 64MiB\n  freeze-at: "
	configText(t, path, text+"100\n")
	ready := startApp(t, "indexer", "--config", path)
	limit := func() float64 {
		var node struct{ FreezePercent float64 }
		getJSON(t, ready.Admin+"/signpost/v1/node", &node)
		return node.FreezePercent
	}
	if got := limit(); got != 100 {
		t.Errorf("limit %v, want 100", got)
	}
	configText(t, path, text+"99.5\n")
	hangup(t)
	soon(t, "the limit is 99.5", func() bool { return limit() == 99.5 })
}

func TestTheCacheTimeChangesAtHangup(t *testing.T) {
	withoutSettings(t)
	id, err := peer.Decode(idA)
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	h := find.NewHandler(oneProvider{id}, find.Config{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/multihash/"+key {
			asked.Add(1)
		}
		h.ServeHTTP(w, r)
	}))
	defer srv.Close()
	dir := t.TempDir()
	pool, path := filepath.Join(dir, "pool.txt"), filepath.Join(dir, "signpost.yaml")
	if err := os.WriteFile(pool, fmt.Appendf(nil, "find=%s ingest=http://127.0.0.1:2 admin=http://127.0.0.1:3\n", srv.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	text := "frontend:\n  pool: " + pool + "\n  listen: 127.0.0.1:0\n  drain-for: 0s\n  cache-for: "
	configText(t, path, text+"5s\n")
	ready := startApp(t, "frontend", "--config", path)
	more := func() int64 { // how often the indexer is asked for two finds
		before := asked.Load()
		for range 2 {
			getJSON(t, ready.HTTP+"/multihash/"+key, new(any))
		}
		return asked.Load() - before
	}
	// Not at once: what the frontend learns of its indexers when it starts makes it forget.
	soon(t, "finds are answered without asking", func() bool { return more() == 0 })
	configText(t, path, text+"0s\n")
	hangup(t)
	soon(t, "each find asks", func() bool { return more() == 2 })
	if got := more(); got != 2 {
		t.Errorf("asked %d times for two finds", got)
	}
}
