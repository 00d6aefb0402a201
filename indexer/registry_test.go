package indexer

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/api/admin"
)

// TestRegisterVectors: the fixed bodies are years old, which is all that is
// wrong with the good one.
func TestRegisterVectors(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("testdata", "register.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []struct {
			Name   string   `json:"name"`
			Body   string   `json:"body_hex"`
			PeerID string   `json:"peer_id"`
			Addrs  []string `json:"addrs"`
			Seq    uint64   `json:"seq"`
			Error  string   `json:"error"`
		} `json:"vectors"`
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	for _, v := range file.Vectors {
		body, err := hex.DecodeString(v.Body)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := readRegister(body)
		if v.Error != "" {
			if err == nil || err.Error() != v.Error {
				t.Errorf("%s: %v, want %s", v.Name, err, v.Error)
			}
			continue
		}
		if err != nil || rec.PeerID.String() != v.PeerID || !slices.Equal(texts(rec.Addrs), v.Addrs) || rec.Seq != v.Seq {
			t.Errorf("%s: %+v, %v", v.Name, rec, err)
		}
	}
}

// registerBody is a request signed by key for the peer of record.
func registerBody(t *testing.T, key crypto.PrivKey, rec *peer.PeerRecord) string {
	t.Helper()
	envelope, err := record.Seal(rec, key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := envelope.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRegisterSetsAddresses(t *testing.T) {
	var dir string
	n := startNode(t, func(c *Config) { dir = c.DataDir })
	key, other := newKey(t), newKey(t)
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	now := uint64(time.Now().UnixNano())
	addr := multiaddr.StringCast("/ip4/203.0.113.7/tcp/24001")
	with := func(seq uint64, addrs ...multiaddr.Multiaddr) *peer.PeerRecord {
		return &peer.PeerRecord{PeerID: id, Addrs: addrs, Seq: seq}
	}
	try := func(n *node, name, body string, status int, text string) {
		t.Helper()
		got, _, answer := n.call(http.MethodPost, n.ingest+"/register", body)
		if got != status || !strings.Contains(answer, text) {
			t.Errorf("%s: %d %q, want %d %q", name, got, answer, status, text)
		}
	}
	first := registerBody(t, key, with(now, addr))
	try(n, "nonsense", "x", 400, "cannot read register request: ")
	try(n, "signed by another", registerBody(t, other, with(now, addr)), 400, "cannot read register request: request not signed by provider")
	try(n, "too old", registerBody(t, key, with(now-uint64(49*time.Hour), addr)), 400, "sequence too small")
	try(n, "from the future", registerBody(t, key, with(now+uint64(49*time.Hour), addr)), 400, "future")
	try(n, "no address", registerBody(t, key, with(now)), 400, "missing address")
	try(n, "too large", strings.Repeat("x", maxRegisterBytes+1), 400, "too large")
	if n.providers() != 0 {
		t.Fatal("a refused request has left something")
	}
	try(n, "good", first, 200, "")
	try(n, "replayed", first, 400, "sequence less than or equal to last seen")
	if err := n.ix.Registry().Block(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	try(n, "blocked", registerBody(t, key, with(now+1, addr)), 400, "peer not allowed by policy")
	if err := n.ix.Registry().Allow(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	n.stop()
	again := startNode(t, func(c *Config) { c.DataDir = dir })
	try(again, "replayed after a restart", first, 400, "sequence less than or equal to last seen")
	try(again, "moved", registerBody(t, key, with(now+2, multiaddr.StringCast("/dns/b/tcp/1"))), 200, "")
	p, err := again.ix.Finder().Provider(t.Context(), id)
	if err != nil || !slices.Equal(texts(p.AddrInfo.Addrs), []string{"/dns/b/tcp/1"}) || p.Publisher == nil {
		t.Errorf("provider %+v, %v", p, err)
	}
	if err := again.ix.Admin().Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	try(again, "frozen", registerBody(t, key, with(now+3, addr)), 400, "frozen")
}

// TestImportedProvidersAreSynced: from one node to another.
func TestImportedProvidersAreSynced(t *testing.T) {
	from := startNode(t, nil)
	info := vectorPublisher(t)
	if err := from.announce(info); err != nil {
		t.Fatal(err)
	}
	from.waitIndexed(vectorHead)
	to := startNode(t, nil)
	client, err := admin.NewClient(to.admin, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	if err := client.ImportProviders(t.Context(), "http://127.0.0.1:1"); !errors.Is(err, admin.ErrUnavailable) {
		t.Errorf("import from nobody: %v", err)
	}
	if err := client.ImportProviders(t.Context(), from.find); err != nil {
		t.Fatal(err)
	}
	to.waitIndexed(vectorHead)
	if err := client.ImportProviders(t.Context(), from.find); err != nil {
		t.Errorf("import again: %v", err)
	}

	public := startNode(t, func(c *Config) { c.AllowPrivate = false })
	if err := public.ix.Registry().ImportProviders(t.Context(), from.find); !errors.Is(err, admin.ErrUnavailable) {
		t.Errorf("import from a private address: %v", err)
	}
	pooled := startNode(t, func(c *Config) { c.AssignedOnly = true })
	if status, _, body := pooled.call(http.MethodPost, pooled.admin+"/importproviders", `{"indexer":"aHR0cDovLzEyNy4wLjAuMTox"}`); status != 502 || body != "Cannot get providers from other indexer\n" {
		t.Errorf("import in an assigner's pool: %d %q", status, body)
	}
}

// TestMarkedAdsCountAsDone: an ad that is not known is newer than all that are,
// and one below the mark moves nothing.
func TestMarkedAdsCountAsDone(t *testing.T) {
	n := startNode(t, nil)
	info := vectorPublisher(t)
	if err := n.announce(info); err != nil {
		t.Fatal(err)
	}
	n.waitIndexed(vectorHead)
	client, err := admin.NewClient(n.admin, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	mark := func() string { return n.ix.store.Progress(info.ID).Mark.Ad.String() }
	if err := client.MarkAdProcessed(t.Context(), n.ix.ID(), cid.MustParse(vectorHead)); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("provider not known: %v", err)
	}
	if err := client.MarkAdProcessed(t.Context(), info.ID, cid.MustParse(vectorHead)); err != nil || mark() != vectorHead {
		t.Errorf("known ad: mark %s, %v", mark(), err)
	}
	newer := cid.NewCidV1(cid.DagJSON, vectorMultihash(t, "newer"))
	if err := client.MarkAdProcessed(t.Context(), info.ID, newer); err != nil || mark() != newer.String() {
		t.Errorf("newer ad: mark %s, %v", mark(), err)
	}
	if err := client.MarkAdProcessed(t.Context(), info.ID, cid.MustParse(vectorHead)); err != nil || mark() != newer.String() {
		t.Errorf("older ad: mark %s, %v", mark(), err)
	}
	if st, ok, err := n.ix.store.AdState(newer); err != nil || !ok || st.Verdict.String() != "marked-done" {
		t.Errorf("state %+v %v %v", st, ok, err)
	}
}

// TestPublishersAreListed: over HTTP, with what was set for one.
func TestPublishersAreListed(t *testing.T) {
	n := startNode(t, nil)
	info := vectorPublisher(t)
	if err := n.announce(info); err != nil {
		t.Fatal(err)
	}
	n.waitIndexed(vectorHead)
	client, err := admin.NewClient(n.admin, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	all, err := client.Publishers(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	p := all[0]
	if p.ID != info.ID || p.State != "active" || !p.Allowed || len(p.Addrs) != 1 || p.LastContact.IsZero() ||
		p.LastAd != vectorHead || p.Mark != vectorHead || p.Pending != 0 || p.Lag != 0 || p.NextPoll.Sub(p.LastContact) < DefaultPollInterval {
		t.Errorf("publisher %+v", p)
	}
	if err := client.SetPolling(t.Context(), info.ID, admin.Polling{Interval: -1}); err != nil {
		t.Fatal(err)
	}
	if p, err := client.Publisher(t.Context(), info.ID); err != nil || p.Polling.Interval != -1 || !p.NextPoll.IsZero() {
		t.Errorf("never polled: %+v, %v", p, err)
	}
	if err := client.SetPolling(t.Context(), info.ID, admin.Polling{Retry: 1}); !errors.Is(err, admin.ErrBadRequest) {
		t.Errorf("poll every nanosecond: %v", err)
	}
	if err := client.SetPolling(t.Context(), n.ix.ID(), admin.Polling{}); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("publisher not known: %v", err)
	}
	telemetry, err := client.Telemetry(t.Context())
	if err != nil || telemetry[info.ID].Count == 0 || telemetry[info.ID].Samples == 0 {
		t.Errorf("telemetry %v, %v", telemetry, err)
	}
	if status, _, body := n.call(http.MethodGet, n.admin+"/healthcheck", ""); status != 200 || body != `"OK"` {
		t.Errorf("health check: %d %q", status, body)
	}
}

// TestPolicyIsKeptAndRefusesByIt: assignments and handoffs follow it too.
func TestPolicyIsKeptAndRefusesByIt(t *testing.T) {
	var dir string
	n := startNode(t, func(c *Config) { dir, c.AssignedOnly = c.DataDir, true })
	client, err := admin.NewClient(n.admin, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	if p, err := client.Policy(t.Context()); err != nil || !p.Allow || p.Publish {
		t.Errorf("policy of a new node: %+v, %v", p, err)
	}
	bad := vectorPublisher(t).ID
	want := admin.Policy{Allow: true, AllowExcept: []peer.ID{bad}, Publishers: []admin.PublisherList{{Provider: bad, Publishers: []peer.ID{n.ix.ID()}}}}
	if err := client.SetPolicy(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if err := client.Assign(t.Context(), bad); !errors.Is(err, admin.ErrNotAllowed) {
		t.Errorf("assign of a blocked publisher: %v", err)
	}
	if err := client.Handoff(t.Context(), bad, admin.Handoff{FrozenID: n.ix.ID(), FrozenURL: n.find}); !errors.Is(err, admin.ErrNotAllowed) {
		t.Errorf("handoff of a blocked publisher: %v", err)
	}
	n.stop()
	again := startNode(t, func(c *Config) { c.DataDir, c.AnyPublisher = dir, true })
	got, err := again.ix.Registry().Policy(t.Context())
	if err != nil || !slices.Equal(got.AllowExcept, want.AllowExcept) || len(got.Publishers) != 1 || !got.Publish {
		t.Errorf("policy after a restart with AnyPublisher: %+v, %v", got, err)
	}
	if err := again.ix.Registry().SetPolicy(t.Context(), want); !errors.Is(err, admin.ErrBadRequest) {
		t.Errorf("Publish taken away under AnyPublisher: %v", err)
	}
}
