package routing

import (
	"context"
	"net/http/httptest"
	"testing"

	boxo "github.com/ipfs/boxo/routing/http/client"
	boxoiter "github.com/ipfs/boxo/routing/http/types/iter"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/api/find"
)

// registry is a Finder that knows providers.
type registry struct {
	static
	infos map[peer.ID]*find.ProviderInfo
	err   error
}

func (f *registry) Provider(_ context.Context, id peer.ID) (*find.ProviderInfo, error) {
	if info := f.infos[id]; info != nil || f.err != nil {
		return info, f.err
	}
	return nil, find.ErrNotFound
}

func knows(id peer.ID, addrs ...string) *registry {
	info := &find.ProviderInfo{AddrInfo: peer.AddrInfo{ID: id}}
	for _, a := range addrs {
		info.AddrInfo.Addrs = append(info.AddrInfo.Addrs, multiaddr.StringCast(a))
	}
	return &registry{infos: map[peer.ID]*find.ProviderInfo{id: info}}
}

// TestPeersAreTheProvidersKnown: one record, an empty list, or 503 if somebody
// who might know did not answer; in both forms, filtered as providers are.
func TestPeersAreTheProvidersKnown(t *testing.T) {
	id := peerOf("P")
	const ndjson = "application/x-ndjson"
	line := `{"Addrs":["` + tcp4 + `","` + quic + `"],"ID":"` + id.String() + `","Schema":"peer"}`
	one := `{"Addrs":["` + tcp4 + `"],"ID":"` + id.String() + `","Schema":"peer"}`
	part, open := knows(id, tcp4, quic), &registry{err: missing}
	part.err = missing
	for _, c := range []struct {
		name, path, accept string
		finder             *registry
		status             int
		cache, partial     string
		body               string
	}{
		{"known", id.String(), "", knows(id, tcp4, quic), 200, cacheFound, "", `{"Peers":[` + line + `]}`},
		{"by CID", peer.ToCid(id).String(), "", knows(id, tcp4, quic), 200, cacheFound, "", `{"Peers":[` + line + `]}`},
		{"streamed", id.String(), ndjson, knows(id, tcp4, quic), 200, "no-store", "", line + "\n"},
		{"filtered", id.String() + "?filter-addrs=tcp", "", knows(id, tcp4, quic), 200, cacheFound, "", `{"Peers":[` + one + `]}`},
		{"all filtered out", id.String() + "?filter-protocols=transport-bitswap", "", knows(id, tcp4), 200, cacheEmpty, "", `{"Peers":[]}`},
		{"unknown", id.String(), "", &registry{}, 200, cacheEmpty, "", `{"Peers":[]}`},
		{"unknown, streamed", id.String(), ndjson, &registry{}, 200, cacheEmpty, "", ""},
		{"known, somebody missing", id.String(), "", part, 200, "no-store", "b, c", `{"Peers":[` + line + `]}`},
		{"known, somebody missing, streamed", id.String(), ndjson, part, 200, "no-store", "b, c", line + "\n"},
		{"undecided", id.String(), "", open, 503, "no-store", "b, c", "undecided: no answer from b, c\n"},
		{"undecided, streamed", id.String(), ndjson, open, 503, "no-store", "b, c", "undecided: no answer from b, c\n"},
		{"broken", id.String(), "", &registry{err: errBroken}, 500, "no-store", "", "\n"},
		{"bad filter", id.String() + "?filter-addrs=a&filter-addrs=b", "", &registry{}, 400, "", "", errBadFilter.Error() + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := ask(t, c.finder, "GET", peersPath+"/"+c.path, c.accept)
			if resp.StatusCode != c.status || body != c.body || resp.Header.Get("Cache-Control") != c.cache || resp.Header.Get(find.HeaderPartial) != c.partial {
				t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
			}
		})
	}
}

// TestBoxoClientFindsPeers: Kubo asks with it.
func TestBoxoClientFindsPeers(t *testing.T) {
	id := peerOf("P")
	srv := httptest.NewServer(NewHandler(knows(id, tcp4, quic), Config{}))
	defer srv.Close()
	client, err := boxo.New(srv.URL, boxo.WithHTTPClient(srv.Client()))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.FindPeers(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	records, err := boxoiter.ReadAllResults(answer)
	if err != nil || len(records) != 1 || *records[0].ID != id || len(records[0].Addrs) != 2 {
		t.Errorf("%+v, %v", records, err)
	}
}
