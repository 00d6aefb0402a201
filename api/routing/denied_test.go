package routing

import (
	"strings"
	"testing"

	"github.com/signpost-index/signpost/api/find"
)

// TestDeniedIsGone: providers and peers, in both forms, with the reason and for at most
// a minute; a stream that has begun ends and says so.
func TestDeniedIsGone(t *testing.T) {
	const ndjson = "application/x-ndjson"
	found := []find.ProviderResult{result("P", "a", bitswap, tcp4)}
	key := &find.DeniedError{Kind: find.DenyMultihash, Reason: "court order 7"}
	spam := &find.DeniedError{Kind: find.DenyProvider}
	peer := peersPath + "/" + peerOf("P").String()
	for _, c := range []struct {
		name, path, accept string
		finder             find.Finder
		status             int
		kind, trailer      string
		body               string
	}{
		{"key", providersPath + "/" + anyCID, "", &static{err: key}, 410, "multihash", "", "court order 7\n"},
		{"key, late", providersPath + "/" + anyCID, "", &static{results: found, err: key}, 410, "multihash", "", "court order 7\n"},
		{"key, streamed", providersPath + "/" + anyCID, ndjson, &static{err: key}, 410, "multihash", "", "court order 7\n"},
		{"key, late, streamed", providersPath + "/" + anyCID, ndjson, &static{results: found, err: key}, 200, "", "multihash court order 7", "{"},
		{"all results", providersPath + "/" + anyCID, "", &static{err: spam}, 410, "provider", "", "denied\n"},
		{"peer", peer, "", &registry{err: spam}, 410, "provider", "", "denied\n"},
		{"peer, streamed", peer, ndjson, &registry{err: spam}, 410, "provider", "", "denied\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := ask(t, c.finder, "GET", c.path, c.accept)
			h := resp.Header
			if resp.StatusCode != c.status || !strings.HasPrefix(body, c.body) || strings.Contains(body, "CUT OFF") ||
				h.Get(find.HeaderDenied) != c.kind || resp.Trailer.Get(find.HeaderDenied) != c.trailer || h.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%d %q %v %v", resp.StatusCode, body, h, resp.Trailer)
			}
			if want := map[int]string{410: "public, max-age=60", 200: "no-store"}[c.status]; h.Get("Cache-Control") != want || h.Get("Vary") != "Accept" || h.Get("Retry-After") != "" {
				t.Errorf("%v", h)
			}
		})
	}
}
