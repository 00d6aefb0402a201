package api_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"iter"
	"net/http"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/api/routing"
)

// fixture is a Finder that knows what a recorded answer says.
type fixture struct {
	results []find.ProviderResult
	infos   []find.ProviderInfo
	stats   find.Stats
}

func (f *fixture) Find(context.Context, multihash.Multihash) iter.Seq2[find.ProviderResult, error] {
	return func(yield func(find.ProviderResult, error) bool) {
		for _, r := range f.results {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (f *fixture) Providers(context.Context) ([]find.ProviderInfo, error) { return f.infos, nil }

func (f *fixture) Provider(_ context.Context, id peer.ID) (*find.ProviderInfo, error) {
	for _, info := range f.infos {
		if info.AddrInfo.ID == id {
			return &info, nil
		}
	}
	return nil, find.ErrNotFound
}

func (f *fixture) Stats(context.Context) (find.Stats, error) { return f.stats, nil }

// fixtureOf reads what e's answer says, by other means than the client's.
func fixtureOf(t *testing.T, e exchange) *fixture {
	t.Helper()
	f := &fixture{}
	if e.Status != http.StatusOK || e.Method != http.MethodGet || strings.HasPrefix(e.Path, "/encrypted/") {
		return f
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pathOnly, _, _ := strings.Cut(e.Path, "?")
	switch {
	case pathOnly == "/stats":
		must(json.Unmarshal([]byte(e.ResponseBody), &f.stats))
	case pathOnly == "/providers":
		var infos []map[string]any
		must(json.Unmarshal([]byte(e.ResponseBody), &infos))
		for _, info := range infos {
			f.infos = append(f.infos, plainInfo(t, info))
		}
	case strings.HasPrefix(pathOnly, "/providers/"):
		var info map[string]any
		must(json.Unmarshal([]byte(e.ResponseBody), &info))
		f.infos = append(f.infos, plainInfo(t, info))
	case strings.HasPrefix(e.ResponseHeaders["Content-Type"], "application/x-ndjson"):
		lines := bufio.NewScanner(strings.NewReader(e.ResponseBody))
		for lines.Scan() {
			var r map[string]any
			must(json.Unmarshal(lines.Bytes(), &r))
			f.results = append(f.results, plainResult(t, r))
		}
	case strings.HasPrefix(pathOnly, "/cid/"), strings.HasPrefix(pathOnly, "/multihash/"):
		var response struct {
			MultihashResults []struct{ ProviderResults []map[string]any }
		}
		must(json.Unmarshal([]byte(e.ResponseBody), &response))
		for _, mr := range response.MultihashResults {
			for _, r := range mr.ProviderResults {
				f.results = append(f.results, plainResult(t, r))
			}
		}
	}
	return f
}

func plainResult(t *testing.T, m map[string]any) find.ProviderResult {
	return find.ProviderResult{
		ContextID: plainBytes(t, m["ContextID"]),
		Metadata:  plainBytes(t, m["Metadata"]),
		Provider:  plainPeer(t, m["Provider"]),
	}
}

func plainBytes(t *testing.T, v any) []byte {
	s, ok := v.(string)
	if !ok {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func plainPeer(t *testing.T, v any) *peer.AddrInfo {
	if v == nil {
		return nil
	}
	m := v.(map[string]any)
	id, err := peer.Decode(m["ID"].(string))
	if err != nil {
		t.Fatal(err)
	}
	info := &peer.AddrInfo{ID: id, Addrs: []multiaddr.Multiaddr{}}
	for _, addr := range m["Addrs"].([]any) {
		info.Addrs = append(info.Addrs, multiaddr.StringCast(addr.(string)))
	}
	return info
}

func plainPeers(t *testing.T, v any) (infos []peer.AddrInfo) {
	list, _ := v.([]any)
	for _, p := range list {
		infos = append(infos, *plainPeer(t, p))
	}
	return infos
}

func plainMetadatas(t *testing.T, v any) (mds [][]byte) {
	list, _ := v.([]any)
	for _, md := range list {
		mds = append(mds, plainBytes(t, md))
	}
	return mds
}

func plainInfo(t *testing.T, m map[string]any) find.ProviderInfo {
	info := find.ProviderInfo{
		AddrInfo:              *plainPeer(t, m["AddrInfo"]),
		LastAdvertisement:     plainCID(t, m["LastAdvertisement"]),
		LastAdvertisementTime: plainTime(t, m["LastAdvertisementTime"]),
		Publisher:             plainPeer(t, m["Publisher"]),
		FrozenAt:              plainCID(t, m["FrozenAt"]),
		FrozenAtTime:          plainTime(t, m["FrozenAtTime"]),
	}
	if xp, ok := m["ExtendedProviders"].(map[string]any); ok {
		info.ExtendedProviders = &find.ExtendedProviders{
			Providers: plainPeers(t, xp["Providers"]),
			Metadatas: plainMetadatas(t, xp["Metadatas"]),
		}
		contextual, _ := xp["Contextual"].([]any)
		for _, v := range contextual {
			c := v.(map[string]any)
			info.ExtendedProviders.Contextual = append(info.ExtendedProviders.Contextual, find.ContextualExtendedProviders{
				Override:  c["Override"].(bool),
				ContextID: c["ContextID"].(string),
				Providers: plainPeers(t, c["Providers"]),
				Metadatas: plainMetadatas(t, c["Metadatas"]),
			})
		}
	}
	return info
}

func plainCID(t *testing.T, v any) cid.Cid {
	m, ok := v.(map[string]any)
	if !ok {
		return cid.Undef
	}
	c, err := cid.Decode(m["/"].(string))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func plainTime(t *testing.T, v any) time.Time {
	s, ok := v.(string)
	if !ok {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// TestIndexerAnswersAsRecorded replays what storetheindex was asked.
func TestIndexerAnswersAsRecorded(t *testing.T) {
	serve := func(e exchange) http.Handler {
		return find.NewHandler(fixtureOf(t, e), find.Config{Version: "v0.12.1 2026-08-07-f66194e-dirty"})
	}
	noPrivacy := "double-hashed finds are served nowhere here; the text says so"
	replay(t, exchanges(t, "storetheindex-find"), serve, append([]departure{
		{"*", "GET 200", ":multihash:*", "Cache-Control", "no-store", "a stream is never cached"},
		{"*", "GET 404", ":metadata:*", "body", "any", noPrivacy},
		{"*", "GET 404", ":encrypted:*", "body", "any", noPrivacy},
		{"*", "GET 404", ":metadata:*", "Access-Control-Allow-Origin", "*", noPrivacy},
		{"*", "GET 404", ":encrypted:*", "Access-Control-Allow-Origin", "*", noPrivacy},
	}, batches...))
}

// batches: the recorded peers redirect a POST to /multihash, we answer it.
var batches = func() (all []departure) {
	for header, text := range map[string]string{
		"status": "404", "body": "no results for query\n", "Access-Control-Allow-Origin": "*", "Cache-Control": "no-store", "Location": "",
		"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff", "X-Signpost-Batch": "1",
	} {
		all = append(all, departure{"*", "POST 307", ":multihash", header, text, "several keys may be asked for at once"})
	}
	return all
}()

// TestFrontendAnswersAsRecorded replays what indexstar was asked.
func TestFrontendAnswersAsRecorded(t *testing.T) {
	serve := func(e exchange) http.Handler {
		cfg := find.Config{Frontend: true}
		if e.Peer == "indexstar-translateNonStreaming" {
			cfg.CascadeLabels = []string{"ipfs-dht", "legacy"}
		}
		mux := http.NewServeMux()
		f := fixtureOf(t, e)
		mux.Handle("/routing/v1/", routing.NewHandler(f, routing.Config{}))
		mux.Handle("/", find.NewHandler(f, cfg))
		return mux
	}
	var recorded []exchange
	for _, e := range exchanges(t, "indexstar") {
		if e.Peer != "indexstar-delegated-routing" {
			recorded = append(recorded, e)
		}
	}
	const (
		translating = "indexstar-translateNonStreaming"
		texts       = "errors say what an indexer says, where indexstar sends an empty line or another library's words"
		stats       = "a frontend's stats are the sum of its indexers'"
		preflight   = "an OPTIONS on any path is answered for web pages"
		plainJSON   = "there is one JSON mode, and it is that of the indexer"
	)
	replay(t, recorded, serve, append([]departure{
		{"*", "GET *", "*", "Access-Control-Allow-Origin", "*", "web pages may read every answer"},
		{"*", "GET 200", "*", "Cache-Control", "public, max-age=60", "found answers may be kept a minute"},
		{"*", "GET 404", "*", "Cache-Control", "public, max-age=5", "content may be announced any moment"},
		{"*", "GET 200", "*", "Cache-Control", "no-store", "a stream is never cached"},
		{"*", "GET *", "*", "Vary", "Accept", "JSON may be cached, and NDJSON has the same URL"},
		{"*", "GET 200", ":health", "Cache-Control", "no-cache", "as an indexer's"},
		{"*", "GET 200", ":providers", "body", "[]", "no provider is an empty list, not null"},
		{"*", "GET 404", ":*", "body", "any", texts},
		{"*", "GET 400", ":multihash:*", "body", "any", texts},
		{"*", "GET 400", ":providers:*", "body", "any", texts},
		{"*", "GET 404", ":stats", "status", "200", stats},
		{"*", "GET 404", ":stats", "Content-Type", "application/json; charset=utf-8", stats},
		{"*", "GET 404", ":stats", "X-Content-Type-Options", "", stats},
		{"*", "OPTIONS 405", ":providers", "status", "200", preflight},
		{"*", "OPTIONS 405", ":providers", "Access-Control-Allow-Origin", "*", preflight},
		{"*", "HEAD 405", ":multihash:*", "Access-Control-Allow-Origin", "*", "on errors, too"},
		{"*", "HEAD 405", ":multihash:*", "Allow", "GET, OPTIONS", "GET is allowed"},
		{translating, "GET 200", "*", "Content-Type", "application/json; charset=utf-8", plainJSON},
		{translating, "GET 200", "*", "X-Content-Type-Options", "", plainJSON},
	}, batches...))
}

// TestRoutingAnswersAsRecorded replays what indexstar's delegated routing
// server was asked, over the results that its answers were made of.
func TestRoutingAnswersAsRecorded(t *testing.T) {
	serve := func(e exchange) http.Handler {
		f := &fixture{}
		if strings.Contains(e.Path, "bafkreigtkbzkhbeteylbth62j3irng25jwmalz2ailqnf3ozv7war7jxly") {
			f = routed(t)
		}
		mux := http.NewServeMux()
		mux.Handle("/routing/v1/", routing.NewHandler(f, routing.Config{}))
		mux.Handle("/", find.NewHandler(f, find.Config{Frontend: true}))
		return mux
	}
	const (
		providers = ":routing:v1:providers:*"
		empty     = "nothing found is 200 and an empty list (IPIP-513)"
		badCID    = "a CID that is none is the client's mistake"
		noCID     = "as the specification has it"
		unserved  = "errors say what is served, to web pages too"
		peers     = "where a provider is the index knows"
	)
	replay(t, exchanges(t, "indexstar-delegated-routing"), serve, []departure{
		{"*", "GET 200", providers, "Cache-Control", "public, max-age=60", "found answers may be kept a minute"},
		{"*", "GET 200", providers, "Cache-Control", "no-store", "a stream is never cached"},
		{"*", "GET *", providers, "Cache-Control", "public, max-age=5", "content may be announced any moment"},
		{"*", "GET 200", providers, "Last-Modified", "any", "the specification wants it"},
		{"*", "GET 404", providers, "status", "200", empty},
		{"*", "GET 404", providers, "Content-Type", "application/json; charset=utf-8", empty},
		{"*", "GET 404", providers, "Content-Type", "application/x-ndjson", empty},
		{"*", "GET 404", providers, "body", `{"Providers":[]}`, empty},
		{"*", "GET 404", providers, "body", "", empty},
		{"*", "GET 200", "*filter-addrs=webtransport", "body", `{"Providers":[]}`, "an empty list, not null"},
		{"*", "GET 200", "*filter-protocols=unknown", "body", `{"Providers":[]}`, "only those without protocols (IPIP-484)"},
		{"*", "GET 404", ":routing:v1:providers:zzz", "status", "400", badCID},
		{"*", "GET 404", ":routing:v1:providers:zzz", "body", "any", badCID},
		{"*", "GET 404", ":routing:v1:providers:zzz", "Cache-Control", "", badCID},
		{"*", "GET 405", ":routing:v1:providers", "status", "400", noCID},
		{"*", "GET 405", ":routing:v1:providers", "body", "any", noCID},
		{"*", "GET 405", ":routing:v1:providers", "Allow", "", noCID},
		{"*", "*", ":routing:v1:providers", "Vary", "Accept", "on all answers"},
		{"*", "PUT 501", ":routing:v1:providers", "body", "any", unserved},
		{"*", "GET 404", ":routing:v1:peers:*", "status", "200", peers},
		{"*", "GET 404", ":routing:v1:peers:*", "Cache-Control", "public, max-age=5", peers},
		{"*", "GET 404", ":routing:v1:peers:*", "Content-Type", "application/json; charset=utf-8", peers},
		{"*", "GET 404", ":routing:v1:peers:*", "Vary", "Accept", peers},
		{"*", "GET 404", ":routing:v1:*", "body", "any", unserved},
		{"*", "GET 404", ":routing:v1:*", "Access-Control-Allow-Origin", "*", unserved},
		{"*", "GET 404", ":routing:v1:*", "Access-Control-Allow-Methods", "GET, OPTIONS", unserved},
		{"*", "GET 404", ":routing:v1:encrypted:*", "Cache-Control", "", unserved},
		{"*", "GET 404", ":routing:v1:encrypted:*", "Vary", "", unserved},
	})
}

// routed is the state of the indexers behind the recorded frontend: a provider
// and, for its whole chain, an extended provider with metadata of its own.
func routed(t *testing.T) *fixture {
	for _, e := range exchanges(t, "storetheindex-find") {
		if e.ID == 40 { // after chain-07-xp-chain-level
			return fixtureOf(t, e)
		}
	}
	t.Fatal("exchange 40 is gone")
	return nil
}

// TestClientReadsRecordedAnswers gives the client every recorded answer to a
// find, and compares with what the answer says.
func TestClientReadsRecordedAnswers(t *testing.T) {
	for _, e := range exchanges(t, "storetheindex-find", "indexstar") {
		pathOnly, _, _ := strings.Cut(e.Path, "?")
		isFind := strings.HasPrefix(pathOnly, "/multihash/")
		isInfo := strings.HasPrefix(pathOnly, "/providers") || pathOnly == "/stats"
		if e.Method != http.MethodGet || !isFind && !isInfo {
			continue
		}
		t.Run(strings.ReplaceAll(e.String(), "/", ":"), func(t *testing.T) {
			hc := api.NewHTTPClient()
			defer hc.CloseIdleConnections()
			client, err := find.NewClient(answering(t, e), hc)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ask(t, client, pathOnly)
			want := fixtureOf(t, e)
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(fixture{}), cmp.Comparer(cid.Cid.Equals), cmp.Comparer(multiaddr.Multiaddr.Equal)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			checkRefusal(t, e, err)
		})
	}
}

// ask asks for what pathOnly names. The answer to a find whose path is no
// multihash is asked for with some other.
func ask(t *testing.T, client *find.Client, pathOnly string) (*fixture, error) {
	f := &fixture{}
	var err error
	last := path.Base(pathOnly)
	switch {
	case pathOnly == "/stats":
		f.stats, err = client.Stats(t.Context())
	case pathOnly == "/providers":
		f.infos, err = client.Providers(t.Context())
		if len(f.infos) == 0 {
			f.infos = nil
		}
	case strings.HasPrefix(pathOnly, "/providers/"):
		id, decodeErr := peer.Decode(last)
		if decodeErr != nil {
			id = peer.ID("\x00\x01a")
		}
		var info *find.ProviderInfo
		if info, err = client.Provider(t.Context(), id); info != nil {
			f.infos = append(f.infos, *info)
		}
	default:
		mh, parseErr := find.ParseMultihash(last)
		if parseErr != nil {
			mh = multihash.Multihash("\x00\x01a")
		}
		for r, findErr := range client.Find(t.Context(), mh) {
			if err = findErr; err == nil {
				f.results = append(f.results, r)
			}
		}
	}
	return f, err
}
