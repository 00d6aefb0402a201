package interop

import (
	"errors"
	"io"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/path"
	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	"github.com/ipni/go-libipni/find/client"
	"github.com/ipni/go-libipni/maurl"
	"github.com/multiformats/go-multihash"
)

// TestFoundContentIsFetched goes the whole way of a client of others: our
// publisher, our pool; found with the reference's find client, fetched from the
// address found with boxo's trustless-gateway clients, which verify each block.
func TestFoundContentIsFetched(t *testing.T) {
	t.Parallel()
	pool := startPool(t, false)
	dir := workDir(t)
	files, car := filepath.Join(dir, "files"), filepath.Join(dir, "content.car")
	small := writeFiles(t, files)
	blocks := writeCAR(t, car, 50)
	p := startPublish(t, filepath.Join(dir, "data"), "--announce", pool.assigner.HTTP, "--find", pool.frontend.HTTP, files, car)
	if indexed := named(p.events, "indexed"); len(indexed) != 1 {
		t.Fatalf("not indexed: %+v", p.events)
	}

	for _, mh := range append(small, hashes(blocks)...) {
		gw, err := gateway.NewRemoteBlockstore([]string{gatewayOf(t, pool.frontendFind, mh)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := gw.Get(t.Context(), rawCID(mh)); err != nil {
			t.Errorf("fetch %s: %v", rawCID(mh), err)
		}
	}

	root, err := cid.Decode(named(p.events, "added")[0].Roots[0])
	if err != nil {
		t.Fatal(err)
	}
	got := fetchCAR(t, gatewayOf(t, pool.frontendFind, root.Hash()), root)
	for _, mh := range append(small, root.Hash()) {
		if !got[string(mh)] {
			t.Errorf("the CAR of %s lacks %s", root, mh.B58String())
		}
	}
}

// gatewayOf finds mh and returns the URL of the gateway that provides it.
func gatewayOf(t *testing.T, c *client.Client, mh multihash.Multihash) string {
	t.Helper()
	resp, err := c.Find(t.Context(), mh)
	if err != nil || len(resp.MultihashResults) != 1 {
		t.Fatalf("find %s: %s, %v", mh.B58String(), resp, err)
	}
	u, err := maurl.ToURL(resp.MultihashResults[0].ProviderResults[0].Provider.Addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host}).String()
}

// fetchCAR fetches the whole DAG under root and returns its multihashes.
func fetchCAR(t *testing.T, gatewayURL string, root cid.Cid) map[string]bool {
	t.Helper()
	fetcher, err := gateway.NewRemoteCarFetcher([]string{gatewayURL}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]bool)
	err = fetcher.Fetch(t.Context(), path.FromCid(root), gateway.CarParams{Scope: gateway.DagScopeAll},
		func(_ path.ImmutablePath, r io.Reader) error {
			blocks, err := carv2.NewBlockReader(r)
			if err != nil {
				return err
			}
			for {
				b, err := blocks.Next() // which verifies it
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				got[string(b.Cid().Hash())] = true
			}
		})
	if err != nil {
		t.Fatal(err)
	}
	return got
}
