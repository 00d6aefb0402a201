package e2e

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"

	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/ingest/schema"
)

// workers is how many questions are asked at once.
const workers = 16

const (
	asJSON   = "application/json"
	asNDJSON = "application/x-ndjson"
)

// answer is an HTTP answer, read to its end.
type answer struct {
	status int
	header http.Header // trailers included
	body   []byte
}

// get asks for a URL.
func get(url, accept string) (answer, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	return do(req)
}

func do(req *http.Request) (answer, error) {
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, fmt.Errorf("%s %s: %w", req.Method, req.URL, err)
	}
	h := resp.Header.Clone()
	for name, values := range resp.Trailer {
		h[name] = values
	}
	return answer{resp.StatusCode, h, body}, nil
}

// mustGet is get for the test's goroutine.
func mustGet(t testing.TB, url, accept string) answer {
	t.Helper()
	a, err := get(url, accept)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// raw is a multihash as a CID.
func raw(mh multihash.Multihash) cid.Cid { return cid.NewCidV1(cid.Raw, mh) }

// holding is one way to get a multihash, as comparable text.
type holding string

func newHolding(provider peer.ID, contextID, metadata []byte) holding {
	return holding(fmt.Sprintf("%s %x %x", provider, contextID, metadata))
}

// findJSON asks with JSON who holds key: sorted, nil after 404.
func findJSON(base string, key cid.Cid) ([]holding, error) {
	a, err := get(base+"/cid/"+key.String(), asJSON)
	if err != nil {
		return nil, err
	}
	if a.status == http.StatusNotFound {
		return nil, nil
	}
	if err := expectOK(a, asJSON); err != nil {
		return nil, err
	}
	var r find.Response
	if err := json.Unmarshal(a.body, &r); err != nil {
		return nil, err
	}
	if len(r.MultihashResults) != 1 || !bytes.Equal(r.MultihashResults[0].Multihash, key.Hash()) {
		return nil, fmt.Errorf("answer about another multihash: %s", a.body)
	}
	return holdings(r.MultihashResults[0].ProviderResults)
}

// findNDJSON asks for a stream: sorted, nil after 404.
func findNDJSON(base string, key cid.Cid) ([]holding, error) {
	a, err := get(base+"/cid/"+key.String(), asNDJSON)
	if err != nil {
		return nil, err
	}
	if a.status == http.StatusNotFound {
		return nil, nil
	}
	if err := expectOK(a, asNDJSON); err != nil {
		return nil, err
	}
	var results []find.ProviderResult
	lines := bufio.NewScanner(bytes.NewReader(a.body)) // its limit is the field's
	for lines.Scan() {
		var r find.ProviderResult
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("line %q: %w", lines.Bytes(), err)
		}
		results = append(results, r)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return holdings(results)
}

func expectOK(a answer, contentType string) error {
	if a.status != http.StatusOK {
		return fmt.Errorf("status %d: %s", a.status, a.body)
	}
	if got, _, _ := strings.Cut(a.header.Get("Content-Type"), ";"); got != contentType {
		return fmt.Errorf("content type %q, want %s", got, contentType)
	}
	if p := a.header.Get(find.HeaderPartial); p != "" {
		return fmt.Errorf("partial answer, missing %s", p)
	}
	return nil
}

func holdings(results []find.ProviderResult) ([]holding, error) {
	var out []holding
	for _, r := range results {
		if r.Provider == nil || len(r.Provider.Addrs) == 0 {
			return nil, errors.New("a result without provider or addresses")
		}
		out = append(out, newHolding(r.Provider.ID, r.ContextID, r.Metadata))
	}
	slices.Sort(out)
	return out, nil
}

// routingRecord is a provider in a delegated-routing answer.
type routingRecord struct {
	Schema    string
	ID        peer.ID
	Addrs     []string
	Protocols []string
}

// findRouting asks by delegated routing which peers provide key: sorted.
func findRouting(base string, key cid.Cid) ([]peer.ID, error) {
	a, err := get(base+"/routing/v1/providers/"+key.String(), asJSON)
	if err != nil {
		return nil, err
	}
	if err := expectOK(a, asJSON); err != nil {
		return nil, err
	}
	var r struct{ Providers []routingRecord }
	if err := json.Unmarshal(a.body, &r); err != nil {
		return nil, err
	}
	var ids []peer.ID
	for _, p := range r.Providers {
		if p.Schema != "peer" || len(p.Addrs) == 0 || len(p.Protocols) == 0 {
			return nil, fmt.Errorf("incomplete record: %s", a.body)
		}
		ids = append(ids, p.ID)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// index is what should be found: who holds each multihash (as string bytes).
// A multihash that nobody holds any more is there with no holding.
type index map[string][]holding

// with is x with mhs held as well, or with no holding known not to be.
func (x index) with(h holding, mhs []multihash.Multihash) index {
	for _, mh := range mhs {
		if h == "" {
			x[string(mh)] = nil
		} else {
			x[string(mh)] = append(x[string(mh)], h)
		}
	}
	return x
}

// drop notes that mhs are not held in this way any more.
func (x index) drop(h holding, mhs []multihash.Multihash) {
	for _, mh := range mhs {
		x[string(mh)] = slices.DeleteFunc(slices.Clone(x[string(mh)]), func(o holding) bool { return o == h })
	}
}

// check asks base for every multihash and reports what is not as expected.
func (x index) check(base string) error {
	return x.each(func(key cid.Cid, want []holding) error {
		got, err := findJSON(base, key)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("held by %q, want %q", got, want)
		}
		return err
	})
}

// each calls ask for every multihash, several at once, with a sorted list of
// holdings.
func (x index) each(ask func(key cid.Cid, want []holding) error) error {
	g := new(errgroup.Group)
	g.SetLimit(workers)
	for mh, want := range x {
		g.Go(func() error {
			want = slices.Clone(want)
			slices.Sort(want)
			want = slices.Compact(want)
			key := raw(multihash.Multihash(mh))
			if err := ask(key, want); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// mustFind fails the test unless base has just what x says.
func (x index) mustFind(t testing.TB, base, when string) {
	t.Helper()
	if err := x.check(base); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
}

// adStatus is what an indexer says about an ad.
type adStatus struct {
	Ad      string
	Indexed bool
	Verdict string
	Reason  string
}

func getAdStatus(ingest string, ad cid.Cid) (s adStatus, err error) {
	a, err := get(ingest+"/sync/status/ad/"+ad.String(), "")
	if err != nil {
		return s, err
	}
	if a.status != http.StatusOK {
		return s, fmt.Errorf("status of ad %s: %d %s", ad, a.status, a.body)
	}
	if err := json.Unmarshal(a.body, &s); err != nil {
		return s, err
	}
	if s.Ad != ad.String() {
		return s, fmt.Errorf("status of ad %s names %s", ad, s.Ad)
	}
	return s, nil
}

// untilIndexed waits until the indexer says that the ad is indexed, durably.
func untilIndexed(t testing.TB, ingest string, ad cid.Cid) {
	t.Helper()
	eventually(t, "ad "+ad.String()+" indexed", func() error {
		s, err := getAdStatus(ingest, ad)
		if err == nil && !s.Indexed {
			err = fmt.Errorf("status %+v", s)
		}
		return err
	})
}

// untilDone waits until every ad of the chain has its verdict, those that count
// as indexed durably. With bad ads among them the head may not be the last.
func untilDone(t testing.TB, ingest string, c *chain) {
	t.Helper()
	for link := c.head; link.Defined(); {
		block, err := c.mem.Block(t.Context(), link)
		if err != nil {
			t.Fatal(err)
		}
		ad, err := schema.DecodeAdvertisement(link, block)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "ad "+link.String()+" done", func() error {
			s, err := getAdStatus(ingest, link)
			if err == nil && !s.Indexed && s.Verdict != "rejected" && s.Verdict != "skipped-frozen" && s.Verdict != "marked-done" {
				err = fmt.Errorf("status %+v", s)
			}
			return err
		})
		link = ad.PreviousID
	}
}

// untilJudged waits until an ad has a verdict, or a reason why it has none.
func untilJudged(t testing.TB, ingest string, ad cid.Cid) {
	t.Helper()
	eventually(t, "ad "+ad.String()+" judged", func() error {
		s, err := getAdStatus(ingest, ad)
		if err == nil && s.Verdict == "pending" && s.Reason == "" {
			err = fmt.Errorf("status %+v", s)
		}
		return err
	})
}

// providerInfo is GET /providers/{id}; nil if unknown.
func providerInfo(t testing.TB, base string, id peer.ID) *find.ProviderInfo {
	t.Helper()
	c, err := find.NewClient(base, client)
	if err != nil {
		t.Fatal(err)
	}
	info, err := c.Provider(t.Context(), id)
	if err != nil && !errors.Is(err, find.ErrNotFound) {
		t.Fatal(err)
	}
	return info
}

func unbase64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// syncEnded reports nil once a sync of the publisher has ended, well or not,
// and none is under way.
func syncEnded(ix *indexer, publisher peer.ID) error {
	a, err := get(ix.Ingest+"/sync/status/"+publisher.String(), "")
	if err != nil {
		return err
	}
	var s struct{ Scan, ScanHistory json.RawMessage }
	if a.status != http.StatusOK {
		return fmt.Errorf("sync status: %d %s", a.status, a.body)
	}
	if err := json.Unmarshal(a.body, &s); err != nil {
		return err
	}
	if s.Scan != nil || s.ScanHistory == nil {
		return fmt.Errorf("sync status %s", a.body)
	}
	return nil
}
