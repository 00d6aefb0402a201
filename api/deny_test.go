package api_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/fanout"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/api/find/deny"
	"github.com/signpost-index/signpost/api/routing"
)

// denied is f under a denylist; f itself if there are no lines.
func denied(t *testing.T, f find.Finder, peers bool, lines string) find.Finder {
	t.Helper()
	if lines == "" {
		return f
	}
	file := filepath.Join(t.TempDir(), "deny.txt")
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := deny.Open(deny.Config{File: file})
	if err != nil {
		t.Fatal(err)
	}
	return l.Finder(f, peers)
}

// poolUnder is a frontend over indexers, by their denylists; "" first is that of the
// frontend. What indexers know is in knows.
func poolUnder(t *testing.T, front string, lists []string, knows []*fixture) *httptest.Server {
	t.Helper()
	hc := api.NewHTTPClient()
	t.Cleanup(hc.CloseIdleConnections)
	var backends []fanout.Backend
	for n, lines := range lists {
		srv := httptest.NewServer(find.NewHandler(denied(t, knows[n], false, lines), find.Config{}))
		t.Cleanup(srv.Close)
		client, err := find.NewClient(srv.URL, hc)
		if err != nil {
			t.Fatal(err)
		}
		backends = append(backends, fanout.Backend{Name: string(rune('a' + n)), Finder: client})
	}
	f := denied(t, fanout.New(fanout.Config{Backends: backends}), true, front)
	mux := http.NewServeMux()
	mux.Handle("/routing/", routing.NewHandler(f, routing.Config{}))
	mux.Handle("/", find.NewHandler(f, find.Config{Frontend: true}))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv
}

// TestTakedownHoldsForThePool: whoever has the list, frontend or one indexer, and in
// whatever way a client asks, it is told 410 and the reason; and no more is denied than
// the list says.
func TestTakedownHoldsForThePool(t *testing.T) {
	found := routed(t)
	found.infos = []find.ProviderInfo{{AddrInfo: *found.results[0].Provider}}
	mh := sha(t, "taken down")
	var providers, contexts []string
	for _, r := range found.results {
		providers = append(providers, "provider "+r.Provider.ID.String()+" spam")
		contexts = append(contexts, "context "+r.Provider.ID.String()+" "+base64.StdEncoding.EncodeToString(r.ContextID)+" set 17")
	}
	key, all, sets := "multihash "+cid.NewCidV1(cid.Raw, mh).String()+" order 7", strings.Join(providers, "\n"), strings.Join(contexts, "\n")
	salted, err := multihash.Sum(append(append([]byte("CR_DOUBLEHASH"), make([]byte, 64-13)...), mh...), multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	double := "double-hash 5620" + (&salted).HexString()[4:] + " order 8"
	knows, nothing := found, &fixture{infos: found.infos}
	for _, c := range []struct {
		name          string
		front         string
		lists         []string
		knows         []*fixture
		kind, reason  string // "": found
		denyingKnower bool   // an answer may have begun
	}{
		{"no list", "", []string{"", ""}, []*fixture{knows, knows}, "", "", false},
		{"list of other things", "multihash " + sha(t, "other").B58String(), []string{"multihash " + sha(t, "other").B58String(), ""}, []*fixture{knows, nothing}, "", "", false},
		{"key, at the frontend", key, []string{"", ""}, []*fixture{knows, knows}, "multihash", "order 7", false},
		{"double hash, at the frontend", double, []string{"", ""}, []*fixture{knows, nothing}, "double-hash", "order 8", false},
		{"key, at all indexers", "", []string{key, key}, []*fixture{knows, knows}, "multihash", "order 7", false},
		{"key, at the indexer that has it", "", []string{key, ""}, []*fixture{knows, nothing}, "multihash", "order 7", false},
		{"key, at one that has nothing", "", []string{"", double}, []*fixture{knows, nothing}, "double-hash", "order 8", true},
		{"provider, at the frontend", all, []string{"", ""}, []*fixture{knows, knows}, "provider", "spam", false},
		{"provider, at all indexers", "", []string{all, all}, []*fixture{knows, knows}, "provider", "spam", false},
		{"provider, at the indexer that has it", "", []string{all, ""}, []*fixture{knows, nothing}, "provider", "spam", false},
		{"provider, at one of two that have it", "", []string{all, ""}, []*fixture{knows, knows}, "", "", false},
		{"contexts, at the indexer that has them", "", []string{sets, ""}, []*fixture{knows, nothing}, "context", "set 17", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := poolUnder(t, c.front, c.lists, c.knows)
			for _, path := range []string{"/cid/" + cid.NewCidV1(cid.DagProtobuf, mh).String(), "/multihash/" + mh.B58String(), "/routing/v1/providers/" + cid.NewCidV1(cid.Raw, mh).String()} {
				for _, accept := range []string{"", api.MediaNDJSON} {
					resp, body := get(t, srv, [2]string{path, accept})
					trailer := resp.Trailer.Get(find.HeaderDenied)
					switch partial := resp.Header.Get(find.HeaderPartial) + resp.Trailer.Get(find.HeaderPartial); {
					case partial != "":
						t.Errorf("%s %s: partial %s", path, accept, partial)
					case c.kind == "" && (resp.StatusCode != 200 || trailer != "" || !strings.Contains(body, `"ID"`)):
						t.Errorf("%s %s: %d %s", path, accept, resp.StatusCode, body)
					case c.kind == "", c.denyingKnower && accept != "" && resp.StatusCode == 200 && trailer == c.kind+" "+c.reason:
					case resp.StatusCode != http.StatusGone || resp.Header.Get(find.HeaderDenied) != c.kind || body != c.reason+"\n":
						t.Errorf("%s %s: %d %v %s", path, accept, resp.StatusCode, resp.Header, body)
					}
				}
			}
			batchUnder(t, srv, mh, c.kind, c.reason)
		})
	}
	peers := poolUnder(t, all, []string{""}, []*fixture{knows})
	for _, form := range []string{"", api.MediaNDJSON} {
		path := "/routing/v1/peers/" + found.infos[0].AddrInfo.ID.String()
		if resp, body := get(t, peers, [2]string{path, form}); resp.StatusCode != http.StatusGone || body != "spam\n" {
			t.Errorf("peer: %d %s", resp.StatusCode, body)
		}
	}
	if resp, body := get(t, peers, [2]string{"/providers", ""}); resp.StatusCode != 200 || !strings.Contains(body, found.infos[0].AddrInfo.ID.String()) {
		t.Errorf("list of providers: %d %s", resp.StatusCode, body)
	}
}

// batchUnder asks about mh and another key at once.
func batchUnder(t *testing.T, srv *httptest.Server, mh multihash.Multihash, kind, reason string) {
	t.Helper()
	asked, _ := json.Marshal(map[string][]multihash.Multihash{"Multihashes": {mh}})
	resp, err := http.Post(srv.URL+"/multihash", api.MediaJSON, strings.NewReader(string(asked)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"MultihashResults":[{`
	if kind != "" {
		want = `{"MultihashResults":[],"Denied":[{"Key":"` + base64.StdEncoding.EncodeToString(mh) + `","Kind":"` + kind + `","Reason":"` + reason + `"}]}`
	}
	if resp.StatusCode != 200 || !strings.HasPrefix(string(body), want) || resp.Header.Get(find.HeaderPartial) != "" {
		t.Errorf("batch: %d %s, want %s", resp.StatusCode, body, want)
	}
}
