package openapi_test

import (
	"context"
	"iter"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/api/routing"
)

// shelf knows one provider, which has everything; the missing may have more.
type shelf struct {
	info    find.ProviderInfo
	missing *find.PartialError
}

func (s *shelf) err() error {
	if s.missing == nil {
		return nil
	}
	return s.missing
}

func (s *shelf) Find(context.Context, multihash.Multihash) iter.Seq2[find.ProviderResult, error] {
	return func(yield func(find.ProviderResult, error) bool) {
		bitswap := find.ProviderResult{
			ContextID: []byte("context"), Metadata: []byte{0x80, 0x12}, Provider: &s.info.AddrInfo, Position: find.Position{Chain: [16]byte{1}, Height: 7},
		}
		bare := find.ProviderResult{Provider: &peer.AddrInfo{ID: s.info.Publisher.ID}}
		if yield(bitswap, nil) && yield(bare, nil) && s.missing != nil {
			yield(find.ProviderResult{}, s.missing)
		}
	}
}

func (s *shelf) Providers(context.Context) ([]find.ProviderInfo, error) {
	return []find.ProviderInfo{s.info}, s.err()
}

func (s *shelf) Provider(context.Context, peer.ID) (*find.ProviderInfo, error) {
	return &s.info, s.err()
}

func (s *shelf) Stats(context.Context) (find.Stats, error) {
	return find.Stats{EntriesEstimate: 3, EntriesCount: 2}, s.err()
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	id, err := peer.IDFromPrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	addrs := []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/192.0.2.1/tcp/24001")}
	ad := cid.MustParse("baguqeera2ocl5mgh7zoitqrmfykahhhsgsgl7o53oluagt7ffqvaxxrazjiq")
	other := peer.AddrInfo{ID: id, Addrs: addrs}
	return &shelf{info: find.ProviderInfo{
		AddrInfo: other, Publisher: &other, LastAdvertisement: ad, LastAdvertisementTime: time.Unix(1e9, 0), Lag: 2,
		FrozenAt: ad, FrozenAtTime: time.Unix(1e9, 0), LastError: "none", LastErrorTime: time.Unix(1e9, 0),
		ExtendedProviders: &find.ExtendedProviders{
			Providers: []peer.AddrInfo{other}, Metadatas: [][]byte{nil},
			Contextual: []find.ContextualExtendedProviders{{Override: true, ContextID: "context", Providers: []peer.AddrInfo{other}, Metadatas: [][]byte{{1}}}},
		},
	}}
}

// TestAnswersFitTheirSchemas: lookups and delegated routing that find something, in
// both forms, whole and partial, of indexers and of frontends.
func TestAnswersFitTheirSchemas(t *testing.T) {
	doc := load(t)
	for _, missing := range []*find.PartialError{nil, {Missing: []string{"b"}}} {
		for _, front := range []bool{true, false} {
			s := newShelf(t)
			s.missing = missing
			srv := httptest.NewServer(api.Below("/routing/", routing.NewHandler(s, routing.Config{}), find.NewHandler(s, find.Config{Frontend: front})))
			t.Cleanup(srv.Close)
			for _, op := range operations(doc) {
				if tag := op.Tags[0]; tag != "find" && tag != "routing" {
					continue
				}
				for _, accept := range []string{"", "application/x-ndjson"} {
					if accept != "" && op.Responses.Status(200).Value.Content[accept] == nil {
						continue
					}
					req := request(t, srv.URL, op, s.info.AddrInfo.ID.String())
					req.Header.Set("Accept", accept)
					req.Header.Set(find.HeaderPosition, "1")
					got := do(t, req)
					if got.StatusCode != 200 || got.body == "" {
						t.Errorf("%s %s: %d %.*q", op.method, op.path, got.StatusCode, longWords, got.body)
					}
					check(t, doc, op, got)
				}
			}
		}
	}
}
