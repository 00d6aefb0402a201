package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api/find"
)

// oneProvider is a Finder that knows one provider for everything.
type oneProvider struct{ id peer.ID }

func (o oneProvider) Find(context.Context, multihash.Multihash) iter.Seq2[find.ProviderResult, error] {
	return func(yield func(find.ProviderResult, error) bool) {
		yield(find.ProviderResult{Metadata: []byte{0x80, 0x12}, Provider: &peer.AddrInfo{ID: o.id}}, nil)
	}
}
func (o oneProvider) Providers(context.Context) ([]find.ProviderInfo, error) { return nil, nil }
func (o oneProvider) Provider(context.Context, peer.ID) (*find.ProviderInfo, error) {
	return nil, find.ErrNotFound
}
func (o oneProvider) Stats(context.Context) (find.Stats, error) { return find.Stats{}, nil }

func serveOne(t *testing.T, id string) string {
	t.Helper()
	p, err := peer.Decode(id)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(find.NewHandler(oneProvider{p}, find.Config{}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// startApp runs a daemon in this process until the test ends and returns its
// ready line.
func startApp(t *testing.T, args ...string) readyLine {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := newApp(pw, io.Discard).RunContext(ctx, append([]string{"signpost"}, args...))
		done <- err
		_ = pw.CloseWithError(fmt.Errorf("ended: %w", err))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%v: %v", args, err)
		}
	})
	line, err := bufio.NewReader(pr).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var r readyLine
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

const (
	idA = "12D3KooWF2uBBKjGJA7LqUWjAcXcnwkAjXjBQDKFTafDkfgCUJDw"
	idB = "12D3KooWAT6v4tnGjEs9azNk6Xv5k9GKWxW19rzB3REo7j1gVSd6"
	key = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"
)

// TestFrontendLearnsThePoolFromFileAndAssigner: both lists count, each node once.
func TestFrontendLearnsThePoolFromFileAndAssigner(t *testing.T) {
	a, b := serveOne(t, idA), serveOne(t, idB)
	asn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/signpost/v1/pool" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, `{"Members":[{"Find":%q},{"Find":%q}]}`, a, b)
	}))
	t.Cleanup(asn.Close)
	file := filepath.Join(t.TempDir(), "pool.txt")
	if err := os.WriteFile(file, []byte("find="+a+" ingest=http://127.0.0.1:1 admin=http://127.0.0.1:2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want int
	}{
		"assigner alone":                    {[]string{"--assigner", asn.URL}, 2},
		"file alone":                        {[]string{"--pool", file}, 1},
		"file and assigner":                 {[]string{"--pool", file, "--assigner", asn.URL}, 2},
		"file and an assigner that is away": {[]string{"--pool", file, "--assigner", "http://127.0.0.1:1"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := startApp(t, append([]string{"frontend", "--listen", "127.0.0.1:0", "--drain-for", "0s"}, tc.args...)...)
			client, err := find.NewClient(r.HTTP, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			mh, err := find.ParseMultihash(key)
			if err != nil {
				t.Fatal(err)
			}
			results, partial, err := lookup(context.Background(), client, mh)
			if err != nil || partial != nil || len(results) != tc.want {
				t.Errorf("%d results, %v, %v; want %d", len(results), partial, err, tc.want)
			}
		})
	}
}

func TestIdentityIsMadeOnceAndKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sub", "identity.key")
	first, err := loadIdentity(file)
	if err != nil {
		t.Fatal(err)
	}
	again, err := loadIdentity(file)
	if err != nil {
		t.Fatal(err)
	}
	if !first.Equals(again) {
		t.Error("a second start has another identity")
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

// TestAGroupMayReadASecretAndNobodyElse, as on Kubernetes, where secrets are root's.
func TestAGroupMayReadASecretAndNobodyElse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "index-secret")
	secret, err := loadSecret(file)
	if err != nil {
		t.Fatal(err)
	}
	for mode, ok := range map[os.FileMode]bool{0o400: true, 0o440: true, 0o640: true, 0o660: false, 0o644: false, 0o604: false} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		again, err := loadSecret(file)
		if (err == nil) != ok || ok && !bytes.Equal(again, secret) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}
