package interop

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipni/go-libipni/find/client"
	"github.com/ipni/go-libipni/find/model"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// pool is an assigner, two indexers and a frontend, each a process.
type pool struct {
	indexers     []ready
	processes    []*process // of the indexers
	assigner     ready
	frontend     ready
	frontendFind *client.Client // the reference find client
}

// startPool starts a pool. gossip gives the assigner a libp2p listener.
func startPool(t *testing.T, gossip bool) *pool {
	t.Helper()
	p := &pool{}
	var lines strings.Builder
	for range 2 {
		proc, r := startIndexer(t, "none", "--assigned-only")
		p.indexers, p.processes = append(p.indexers, r), append(p.processes, proc)
		fmt.Fprintf(&lines, "find=%s ingest=%s admin=%s\n", r.Find, r.Ingest, r.Admin)
	}
	file := filepath.Join(workDir(t), "pool.txt")
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p2p := "none"
	if gossip {
		p2p = "127.0.0.1:0"
	}
	_, p.assigner = startDaemon(t, "assigner", "--listen", "127.0.0.1:0", "--listen-p2p", p2p, "--listen-admin", "none", "--pool", file, "--poll-interval", "200ms")
	_, p.frontend = startDaemon(t, "frontend", "--listen", "127.0.0.1:0", "--pool", file)
	p.frontendFind = findClient(t, p.frontend.HTTP)
	return p
}

// startIndexer starts one indexer node.
func startIndexer(t *testing.T, p2p string, more ...string) (*process, ready) {
	t.Helper()
	return startDaemon(t, append([]string{
		"indexer", "--data", filepath.Join(workDir(t), "data"), "--allow-private",
		"--listen-find", "127.0.0.1:0", "--listen-ingest", "127.0.0.1:0", "--listen-admin", "127.0.0.1:0", "--listen-p2p", p2p,
		"--freeze-at", "-1", // the disk of the machine that runs the tests is no matter
	}, more...)...)
}

func findClient(t *testing.T, url string) *client.Client {
	t.Helper()
	c, err := client.New(url)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// waitIndexed waits until the node behind c has durably applied the ad, the
// provider's last one.
func waitIndexed(t *testing.T, c *client.Client, provider peer.ID, ad cid.Cid) *model.ProviderInfo {
	t.Helper()
	var info *model.ProviderInfo
	eventually(t, fmt.Sprintf("ad %s indexed", ad), func(ctx context.Context) (err error) {
		info, err = c.GetProvider(ctx, provider)
		if err != nil {
			return err
		}
		if info.LastAdvertisement != ad {
			return fmt.Errorf("last advertisement is %s, last error %q", info.LastAdvertisement, info.LastError)
		}
		return nil
	})
	return info
}

// addrInfos reads multiaddrs that end in /p2p/.
func addrInfos(texts []string) ([]peer.AddrInfo, error) {
	var addrs []multiaddr.Multiaddr
	for _, text := range texts {
		a, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, a)
	}
	return peer.AddrInfosFromP2pAddrs(addrs...)
}
