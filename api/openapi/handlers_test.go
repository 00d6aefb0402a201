package openapi_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/fanout"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/api/routing"
	"github.com/signpost-index/signpost/assigner"
	"github.com/signpost-index/signpost/indexer"
)

const (
	someCID   = "bafkreick5v2e7bfmkaau7vqpxq2wknsj3vmgaiz5sit22heoekeguth7qa"
	someMH    = "12204d4ae4e0bbfdd2a2cae7a5b6f0c3a9b1d2e3f405162738495a6b7c8d9eafb0c1"
	longWords = 60 // of what is shown of an answer
)

// listeners are those of a pool of one indexer with roles and a secret, by what they
// are for; values are base URLs.
type listeners map[string]string

// servedAt says which listeners have the operations of a tag, as the tag's
// description does.
var servedAt = map[string][]string{
	"find": {"frontend", "find"}, "routing": {"frontend"}, "announce": {"ingest", "assigner"}, "ingest": {"ingest"},
	"frontends": {"find"}, "indexer": {"admin"}, "assigner": {"assigner", "operator"}, "operator": {"operator"},
	"conditions": {"admin", "operator", "metrics"},
}

func listen(t *testing.T) (net.Listener, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln, "http://" + ln.Addr().String()
}

func newKey(t *testing.T) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// start runs an indexer, an assigner and a frontend until the test ends.
func start(t *testing.T) listeners {
	t.Helper()
	at := make(listeners)
	cfg := indexer.Config{
		DataDir: t.TempDir(), Key: newKey(t), AllowPrivate: true, AssignedOnly: true, IndexSecret: []byte("a secret of enough bytes for it"),
		StoreMemory: 64 << 20, FreezePercent: 99.9, DiskReserveBytes: -1,
	}
	cfg.Find, at["find"] = listen(t)
	cfg.Ingest, at["ingest"] = listen(t)
	cfg.Admin, at["admin"] = listen(t)
	cfg.Metrics, at["metrics"] = listen(t)
	ix, err := indexer.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ix.Close(); err != nil {
			t.Error(err)
		}
	})
	run(t, ix.Run)
	pool := assigner.Config{Key: newKey(t), Replication: 1, Members: []admin.PoolMember{{Find: at["find"], Ingest: at["ingest"], Admin: at["admin"]}}}
	pool.Listener, at["assigner"] = listen(t)
	pool.Operating.Admin, at["operator"] = listen(t)
	a, err := assigner.Open(pool)
	if err != nil {
		t.Fatal(err)
	}
	run(t, a.Run)
	at["frontend"] = frontend(t, at["find"])
	return at
}

// run runs a role until the test ends.
func run(t *testing.T, role func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- role(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// frontend is one that asks the indexer at base.
func frontend(t *testing.T, base string) string {
	t.Helper()
	hc := api.NewHTTPClient()
	client, err := find.NewClient(base, hc)
	if err != nil {
		t.Fatal(err)
	}
	f := fanout.New(fanout.Config{Backends: []fanout.Backend{{Name: base, Finder: client}}})
	srv := httptest.NewServer(api.Below("/routing/", routing.NewHandler(f, routing.Config{}), find.NewHandler(f, find.Config{Frontend: true, Health: f.Ready})))
	t.Cleanup(hc.CloseIdleConnections)
	t.Cleanup(srv.Close)
	return srv.URL
}

// bodies are what requests have that need more than nothing; %s is a peer ID.
var bodies = map[string]string{
	"POST /cid":                                 `{"Cids":["` + someCID + `"]}`,
	"POST /multihash":                           `{"Multihashes":["EiBNSuTgu/3SosrnpbbwwyqbHS4/QFFic4SVpra8jZ6vsA=="]}`,
	"PUT /signpost/v1/policy":                   `{"Allow":true}`,
	"PUT /signpost/v1/publishers/{publisher}":   `{"Interval":"1h0m0s"}`,
	"PATCH /signpost/v1/publishers/{publisher}": `{"Retry":"1h0m0s"}`,
	"POST /signpost/v1/roles/open":              `["%s"]`,
	"POST /signpost/v1/roles/close":             `["%s"]`,
	"POST /signpost/v1/roles/backfill":          `["%s"]`,
	"POST /signpost/v1/roles/release":           `["%s"]`,
	"POST /signpost/v1/roles/takeover":          `{"From":"%[1]s","Offers":[{"Publisher":"%[1]s","Height":0}]}`,
	"PUT /signpost/v1/poolmap":                  `{"Version":1,"Time":"2026-01-02T03:04:05Z","Members":[]}`,
	"POST /ingest/handoff/{publisher}":          `{"FrozenID":"%s","FrozenURL":"http://127.0.0.1:1"}`,
	"POST /importproviders":                     `{"indexer":"aHR0cDovLzEyNy4wLjAuMTox"}`,
	"POST /signpost/v1/pool/members":            "find=http://127.0.0.1:1 ingest=http://127.0.0.1:2 admin=http://127.0.0.1:3 standby",
	"PUT /announce":                             `{"Cid":{"/":"` + someCID + `"},"Addrs":["/ip4/127.0.0.1/tcp/1/http/p2p/%s"]}`,
	"PUT /ingest/announce":                      `{"Cid":{"/":"` + someCID + `"},"Addrs":["/ip4/127.0.0.1/tcp/1/http/p2p/%s"]}`,
}

// queries are likewise: what operations are asked for besides a path.
var queries = map[string]string{
	"GET /debug/pprof/profile": "seconds=1", "GET /debug/pprof/trace": "seconds=0.1", "POST /config/log/level": "signpost=info",
	"PUT /markadprocessed/{provider}": "cid=" + someCID, "POST /signpost/v1/ads/{ad}/skip": "publisher=%s&reason=test",
	"GET /signpost/v1/pool/explain": "publisher=%s", "PUT /signpost/v1/pool/replication": "publisher=%s&copies=2",
	"PUT /signpost/v1/pool/pin": "publisher=%s", "PUT /signpost/v1/pool/policy": "allow=%s", "PUT /signpost/v1/pool/rebalance": "on=true",
	"PUT /signpost/v1/pool/clean": "dry-run=true", "PUT /signpost/v1/hold": "seconds=1",
	"PUT /signpost/v1/pool/tasks": "id=upgrade-1&do=pause", "DELETE /signpost/v1/pool/members": "dry-run=true&indexer=http://127.0.0.1:3",
}

// request is op as it is asked of the listener at base, about the peer id.
func request(t *testing.T, base string, op operation, id string) *http.Request {
	t.Helper()
	key := op.method + " " + op.path
	fill := func(text string) string {
		if strings.Contains(text, "%") {
			return fmt.Sprintf(text, id)
		}
		return text
	}
	path := strings.NewReplacer("{cid}", someCID, "{ad}", someCID, "{multihash}", someMH, "{job}", "check",
		"{peer}", id, "{publisher}", id, "{provider}", id, "{id}", "x").Replace(op.path)
	if query := queries[key]; query != "" {
		path += "?" + fill(query)
	}
	req, err := http.NewRequestWithContext(t.Context(), op.method, base+path, strings.NewReader(fill(bodies[key])))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(bodies[key], "{") || strings.HasPrefix(bodies[key], "[") {
		req.Header.Set("Content-Type", "application/json")
	}
	return req
}

// answer is what came back.
type answer struct {
	*http.Response
	body string
}

func do(t *testing.T, req *http.Request) answer {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp, string(body)}
}

// check holds an answer against what the document says of the operation.
func check(t *testing.T, doc *openapi3.T, op operation, got answer) {
	t.Helper()
	what := fmt.Sprintf("%s %s: %d %.*q", op.method, got.Request.URL, got.StatusCode, longWords, got.body)
	response := op.Responses.Status(got.StatusCode)
	if response == nil {
		t.Errorf("%s: the status is not documented", what)
		return
	}
	if got.body == "" || len(response.Value.Content) == 0 {
		return
	}
	kind, _, _ := mime.ParseMediaType(got.Header.Get("Content-Type"))
	media := response.Value.Content[kind]
	if media == nil {
		t.Errorf("%s: %s is not documented", what, kind)
		return
	}
	lines := []string{got.body}
	switch kind {
	case "application/x-ndjson":
		lines = strings.Split(strings.TrimSpace(got.body), "\n")
	case "application/json":
	default:
		return
	}
	for _, line := range lines {
		var v any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Errorf("%s: %v", what, err)
		} else if err := doc.ValidateSchemaJSON(media.Schema.Value, v); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestEveryOperationIsAnswered: whatever the document has is served at every listener
// of its tags, and answers with a status, a type and a shape that it names. Where a
// listener says what methods a path has, the document has the same.
func TestEveryOperationIsAnswered(t *testing.T) {
	doc, at := load(t), start(t)
	id, err := peer.IDFromPrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	all := operations(doc)
	// What changes how the others are answered comes last.
	slices.SortStableFunc(all, func(x, y operation) int { return late(x) - late(y) })
	for _, op := range all {
		for _, name := range where(op) {
			unknown := do(t, request(t, at[name], operation{"GET", "/no/such/path", nil}, ""))
			got := do(t, request(t, at[name], op, id.String()))
			nowhere := got.StatusCode == 404 && got.body == unknown.body && got.Header.Get(admin.HeaderError) == ""
			if got.StatusCode == 405 || nowhere && !findsNothing[op.path] {
				t.Errorf("%s %s is not served at the %s listener: %d %.*q", op.method, op.path, name, got.StatusCode, longWords, got.body)
				continue
			}
			check(t, doc, op, got)
			if strings.HasPrefix(op.path, "/debug/") { // which take any method
				continue
			}
			methods(t, doc, op, do(t, request(t, at[name], operation{"BREW", op.path, nil}, id.String())), name)
		}
	}
}

// findsNothing are paths where what is not known is answered like a path that is not.
var findsNothing = map[string]bool{"/cid/{cid}": true, "/multihash/{multihash}": true}

func late(op operation) int {
	switch {
	case strings.HasSuffix(op.path, "/unfreeze"):
		return 3
	case strings.HasSuffix(op.path, "/freeze"), strings.HasSuffix(op.path, "/hold"):
		return 2
	case strings.HasPrefix(op.path, "/signpost/v1/pool/"):
		return 1
	}
	return 0
}

// where are the listeners of an operation.
func where(op operation) []string {
	names := make(map[string]bool)
	for _, tag := range op.Tags {
		for _, name := range servedAt[tag] {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// methods compares those that a refusal names with the documented ones.
func methods(t *testing.T, doc *openapi3.T, op operation, refused answer, name string) {
	t.Helper()
	allow := refused.Header.Get("Allow")
	if refused.StatusCode != 405 || allow == "" || strings.HasPrefix(op.path, "/ingest/sync/") { // that is two paths in one
		return
	}
	var want []string
	for method, o := range doc.Paths.Value(op.path).Operations() {
		if slices.Contains(where(operation{method, op.path, o}), name) {
			want = append(want, method)
		}
	}
	slices.Sort(want)
	var got []string
	for method := range strings.SplitSeq(allow, ",") {
		if method = strings.TrimSpace(method); method != "OPTIONS" && method != "HEAD" {
			got = append(got, method)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s at the %s listener takes %v, documented are %v", op.path, name, got, want)
	}
}
