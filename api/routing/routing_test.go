package routing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	boxo "github.com/ipfs/boxo/routing/http/client"
	"github.com/ipfs/boxo/routing/http/types"
	boxoiter "github.com/ipfs/boxo/routing/http/types/iter"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
	"go.uber.org/goleak"

	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/ingest/metadata"
)

func TestMain(m *testing.M) {
	// boxo's client imports opencensus, which starts a worker when it is
	// loaded: census-instrumentation/opencensus-go issues 1191 and 1262.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

// static is a Finder with one answer to every find.
type static struct {
	find.Finder
	results []find.ProviderResult
	err     error
}

func (s *static) Find(context.Context, multihash.Multihash) iter.Seq2[find.ProviderResult, error] {
	return func(yield func(find.ProviderResult, error) bool) {
		for _, r := range s.results {
			if !yield(r, nil) {
				return
			}
		}
		if s.err != nil {
			yield(find.ProviderResult{}, s.err)
		}
	}
}

const anyCID = "bafkreigtkbzkhbeteylbth62j3irng25jwmalz2ailqnf3ozv7war7jxly"

var (
	missing   = &find.PartialError{Missing: []string{"b", "c"}}
	errBroken = errors.New("the disk is on fire")

	bitswap     = encoded(metadata.Bitswap)
	gateway     = encoded(metadata.IPFSGatewayHTTP)
	both        = encoded(metadata.Bitswap, metadata.IPFSGatewayHTTP)
	unreadable  = []byte{0xff}
	vendorOne   = []byte{0x81, 0x7d, 0x01, 0x01} // code 16001, one byte of payload
	vendorOther = []byte{0x81, 0x7d, 0x01, 0x02}
)

func encoded(codes ...metadata.Code) []byte {
	md, err := metadata.Encode(codes...)
	if err != nil {
		panic(err)
	}
	return md
}

// peerOf makes a peer ID of a name; names sort as their IDs do.
func peerOf(name string) peer.ID {
	mh, err := multihash.Sum([]byte(name), multihash.IDENTITY, -1)
	if err != nil {
		panic(err)
	}
	return peer.ID(mh)
}

func result(name, contextID string, md []byte, addrs ...string) find.ProviderResult {
	info := &peer.AddrInfo{ID: peerOf(name)}
	for _, addr := range addrs {
		info.Addrs = append(info.Addrs, multiaddr.StringCast(addr))
	}
	return find.ProviderResult{ContextID: []byte(contextID), Metadata: md, Provider: info}
}

// text shows records as "name code=payload,... @addr,...".
func text(records []record) (lines []string) {
	for _, r := range records {
		line := string(r.id[2:])
		for _, p := range r.protocols {
			line += fmt.Sprintf(" %s=%x", p.Code, p.Bytes)
		}
		for _, addr := range r.addrs {
			line += " @" + addr.String()
		}
		lines = append(lines, line)
	}
	return lines
}

const (
	tcp4  = "/ip4/203.0.113.7/tcp/1"
	tcp6  = "/ip6/2001:db8::1/tcp/1"
	quic  = "/ip4/203.0.113.7/udp/1/quic-v1"
	wt    = "/ip4/203.0.113.7/udp/1/quic-v1/webtransport"
	https = "/dns4/gw.example.com/tcp/443/https"
)

func TestMergeMakesOneRecordOfWhatDoesNotContradict(t *testing.T) {
	tests := []struct {
		name    string
		results []find.ProviderResult
		want    []string
	}{
		{"nothing", nil, nil},
		{"contexts of one peer",
			[]find.ProviderResult{result("P", "a", bitswap, tcp4), result("P", "b", gateway, tcp4), result("P", "c", both, tcp4)},
			[]string{"P transport-bitswap=8012 transport-ipfs-gateway-http=a01200 @" + tcp4}},
		{"protocols in the order of their codes",
			[]find.ProviderResult{result("P", "a", gateway), result("P", "b", bitswap)},
			[]string{"P transport-bitswap=8012 transport-ipfs-gateway-http=a01200"}},
		{"unreadable metadata adds nothing to a known peer",
			[]find.ProviderResult{result("P", "a", unreadable, tcp4), result("P", "b", bitswap, tcp4)},
			[]string{"P transport-bitswap=8012 @" + tcp4}},
		{"only unreadable metadata", []find.ProviderResult{result("P", "a", unreadable)}, []string{"P"}},
		{"no metadata", []find.ProviderResult{result("P", "a", nil)}, []string{"P"}},
		{"other parameters, other record, same addresses",
			[]find.ProviderResult{result("P", "a", vendorOne, tcp4), result("P", "b", vendorOther), result("P", "c", bitswap), result("P", "d", vendorOther)},
			[]string{"P transport-bitswap=8012 Code(16001)=817d0101 @" + tcp4, "P Code(16001)=817d0102 @" + tcp4}},
		{"two parameters in one metadata",
			[]find.ProviderResult{result("P", "a", slices.Concat(vendorOne, vendorOther))},
			[]string{"P Code(16001)=817d0101", "P Code(16001)=817d0102"}},
		{"peers are sorted",
			[]find.ProviderResult{result("Q", "a", bitswap), result("P", "a", bitswap), result("Q", "b", gateway)},
			[]string{"P transport-bitswap=8012", "Q transport-bitswap=8012 transport-ipfs-gateway-http=a01200"}},
		{"addresses are joined",
			[]find.ProviderResult{result("P", "a", bitswap, tcp6), result("P", "b", bitswap, tcp4)},
			[]string{"P transport-bitswap=8012 @" + tcp4 + " @" + tcp6}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for range 10 {
				rand.Shuffle(len(test.results), func(i, j int) {
					test.results[i], test.results[j] = test.results[j], test.results[i]
				})
				if diff := cmp.Diff(test.want, text(merge(slices.Clone(test.results)))); diff != "" {
					t.Fatalf("-want +got\n%s", diff)
				}
			}
		})
	}
}

func TestFilters(t *testing.T) {
	results := []find.ProviderResult{
		result("A", "", both, tcp4, https),
		result("B", "", bitswap, quic, wt),
		result("C", "", gateway),
		result("D", "", unreadable, tcp6),
	}
	all := []string{"A 2", "B 2", "C 0", "D 1"}
	tests := []struct {
		name, query string
		want        []string // name and number of addresses
		err         error
	}{
		{"none", "", all, nil},
		{"empty", "filter-addrs=&filter-protocols=%20,", all, nil},
		{"one protocol", "filter-protocols=transport-bitswap", []string{"A 2", "B 2"}, nil},
		{"one of several", "filter-protocols=transport-ipfs-gateway-http,nonsense", []string{"A 2", "C 0"}, nil},
		{"case and blanks", "filter-protocols=%20Transport-BITSWAP%20,%20", []string{"A 2", "B 2"}, nil},
		{"unknown protocol", "filter-protocols=unknown", []string{"D 1"}, nil},
		{"unknown or gateway", "filter-protocols=unknown,transport-ipfs-gateway-http", []string{"A 2", "C 0", "D 1"}, nil},
		{"no such protocol", "filter-protocols=nonsense", nil, nil},
		{"protocols have no negation", "filter-protocols=!transport-bitswap", nil, nil},

		{"one address protocol", "filter-addrs=tcp", []string{"A 2", "D 1"}, nil},
		{"any component", "filter-addrs=quic-v1", []string{"B 2"}, nil},
		{"addresses that do not match are left out", "filter-addrs=HTTPS", []string{"A 1"}, nil},
		{"one of several", "filter-addrs=https,webtransport", []string{"A 1", "B 1"}, nil},
		{"negation", "filter-addrs=!webtransport", []string{"A 2", "B 1", "D 1"}, nil},
		{"negation wins", "filter-addrs=quic-v1,!webtransport", []string{"B 1"}, nil},
		{"two negations", "filter-addrs=!tcp,!udp", nil, nil},
		{"unknown alone", "filter-addrs=unknown", []string{"C 0"}, nil},
		{"unknown or https", "filter-addrs=unknown,https", []string{"A 1", "C 0"}, nil},
		{"unknown does not rescue", "filter-addrs=unknown,webtransport", []string{"B 1", "C 0"}, nil},
		{"unknown or not tcp", "filter-addrs=unknown,!tcp", []string{"B 2", "C 0"}, nil},
		{"no such address protocol", "filter-addrs=nonsense", nil, nil},

		{"both filters", "filter-addrs=udp&filter-protocols=transport-bitswap", []string{"B 2"}, nil},
		{"addresses twice", "filter-addrs=tcp&filter-addrs=udp", nil, errBadFilter},
		{"protocols twice", "filter-protocols=a&filter-protocols=b", nil, errBadFilter},
		{"too many names", "filter-addrs=" + strings.Repeat("tcp,", maxFilterNames), nil, errLongFilter},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/?"+test.query, nil)
			f, err := parseFilter(r.URL.Query())
			if !errors.Is(err, test.err) {
				t.Fatalf("got %v, want %v", err, test.err)
			}
			if err != nil {
				return
			}
			var got []string
			for _, rec := range f.all(merge(slices.Clone(results))) {
				got = append(got, fmt.Sprintf("%s %d", string(rec.id[2:]), len(rec.addrs)))
			}
			if diff := cmp.Diff(test.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func FuzzParseFilter(f *testing.F) {
	f.Add("filter-addrs=unknown,!tcp,https&filter-protocols=transport-bitswap")
	f.Fuzz(func(t *testing.T, query string) {
		values, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		filter, err := parseFilter(values)
		if err != nil {
			return
		}
		records := merge([]find.ProviderResult{result("P", "a", both, tcp4, https), result("Q", "a", unreadable)})
		for _, r := range filter.all(records) {
			if filter.filterAddrs && len(r.addrs) == 0 && !filter.withoutAddress {
				t.Fatalf("%q kept a record without addresses", query)
			}
		}
	})
}

// ask gets a whole answer.
func ask(t *testing.T, f find.Finder, method, path, accept string) (*http.Response, string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(NewHandler(f, Config{}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	srv.Start()
	defer srv.Close()
	req, err := http.NewRequest(method, srv.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		body = append(body, "CUT OFF"...)
	}
	return resp, string(body)
}

// TestAnswersSayWhetherTheyAreWhole is the table of found, nothing, and not
// known.
func TestAnswersSayWhetherTheyAreWhole(t *testing.T) {
	found := []find.ProviderResult{result("P", "a", bitswap, tcp4)}
	const ndjson, noMatch = "application/x-ndjson", "?filter-addrs=https"
	tests := []struct {
		name    string
		finder  static
		query   string
		accept  string
		status  int
		cache   string
		partial string // header or trailer
		body    string // its start or, after "...", its end
	}{
		{"found", static{results: found}, "", "", 200, cacheFound, "", `{"Providers":[{"Addrs":`},
		{"nothing", static{}, "", "", 200, cacheEmpty, "", `{"Providers":[]}`},
		{"nothing left", static{results: found}, noMatch, "", 200, cacheEmpty, "", `{"Providers":[]}`},
		{"found in part", static{results: found, err: missing}, "", "", 200, "no-store", "b, c", `{"Providers":[{"Addrs":`},
		{"undecided", static{err: missing}, "", "", 503, "no-store", "b, c", "undecided: no answer from b, c\n"},
		{"undecided what is left", static{results: found, err: missing}, noMatch, "", 503, "no-store", "b, c", "undecided: no answer from b, c\n"},
		{"broken", static{results: found, err: errBroken}, "", "", 500, "no-store", "", "\n"},

		{"stream", static{results: found}, "", ndjson, 200, "no-store", "", `{"Addrs":`},
		{"stream of nothing", static{}, "", ndjson, 200, cacheEmpty, "", ""},
		{"stream of nothing left", static{results: found}, noMatch, ndjson, 200, cacheEmpty, "", ""},
		{"stream in part", static{results: found, err: missing}, "", ndjson, 200, "no-store", "b, c", `{"Addrs":`},
		{"stream undecided", static{err: missing}, "", ndjson, 503, "no-store", "b, c", "undecided"},
		{"stream broken at once", static{err: errBroken}, "", ndjson, 500, "no-store", "", "\n"},
		{"stream broken later", static{results: found, err: errBroken}, "", ndjson, 200, "no-store", "", "...CUT OFF"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			resp, body := ask(t, &test.finder, "GET", providersPath+"/"+anyCID+test.query, test.accept)
			if resp.StatusCode != test.status {
				t.Errorf("got %d", resp.StatusCode)
			}
			if end, ok := strings.CutPrefix(test.body, "..."); ok && !strings.HasSuffix(body, end) || !ok && !strings.HasPrefix(body, test.body) {
				t.Errorf("body %q", body)
			}
			if got := resp.Header.Get(find.HeaderPartial) + resp.Trailer.Get(find.HeaderPartial); got != test.partial {
				t.Errorf("partial: got %q, want %q", got, test.partial)
			}
			if got := resp.Header.Get("Retry-After"); (got != "") != (test.status == 503) {
				t.Errorf("Retry-After %q", got)
			}
			for name, want := range map[string]string{
				"Cache-Control":                test.cache,
				"Vary":                         "Accept",
				"Access-Control-Allow-Origin":  "*",
				"Access-Control-Allow-Methods": "GET, OPTIONS",
				"X-Content-Type-Options":       "nosniff",
			} {
				if got := resp.Header.Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestRequestsThatAreNotForUs(t *testing.T) {
	tests := []struct {
		method, path, accept string
		status               int
	}{
		{"GET", providersPath, "", 400},
		{"GET", providersPath + "/", "", 400},
		{"GET", providersPath + "/zzz", "", 400},
		{"GET", providersPath + "/b" + strings.Repeat("a", maxCIDText), "", 400},
		{"GET", providersPath + "/" + anyCID, "a b", 400},
		{"GET", providersPath + "/" + anyCID, "text/html", 200},
		{"GET", providersPath + "/" + anyCID + "/more", "", 404},
		{"HEAD", providersPath + "/" + anyCID, "", 405},
		{"POST", providersPath + "/" + anyCID, "", 405},
		{"PUT", providersPath + "/" + anyCID, "", 501},
		{"PUT", providersPath, "", 501},
		{"PUT", providersPath + "/", "", 501},
		{"OPTIONS", providersPath + "/" + anyCID, "", 200},
		{"OPTIONS", providersPath, "", 200},
		{"GET", peersPath + "/nobody", "", 422},
		{"GET", peersPath + "/" + strings.Repeat("1", maxPeerText+1), "", 422},
		{"PUT", peersPath + "/" + peerOf("P").String(), "", 501},
		{"OPTIONS", peersPath + "/" + peerOf("P").String(), "", 200},
		{"GET", "/routing/v1/ipns/k51", "", 404},
		{"GET", "/routing/v1/dht/closest/peers/x", "", 404},
		{"GET", "/routing/v1/", "", 404},
	}
	for _, test := range tests {
		t.Run(test.method+" "+strings.ReplaceAll(test.path, "/", ":"), func(t *testing.T) {
			resp, body := ask(t, &static{}, test.method, test.path, test.accept)
			if resp.StatusCode != test.status {
				t.Errorf("got %d %q, want %d", resp.StatusCode, body, test.status)
			}
		})
	}
}

func TestJSONHasAtMostAHundredRecords(t *testing.T) {
	f := &static{}
	for i := range maxRecords + 50 {
		f.results = append(f.results, result(fmt.Sprintf("%03d", i), "a", bitswap, tcp4), result(fmt.Sprintf("%03d", i), "b", bitswap, tcp4))
	}
	resp, body := ask(t, f, "GET", providersPath+"/"+anyCID, "")
	var got struct{ Providers []any }
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if left := resp.Header.Get(find.HeaderLeftOut); len(got.Providers) != maxRecords || left != "50" {
		t.Errorf("%d records, %q left out", len(got.Providers), left)
	}
	_, body = ask(t, f, "GET", providersPath+"/"+anyCID, "application/x-ndjson")
	if n := strings.Count(body, "\n"); n != maxRecords+50 {
		t.Errorf("%d lines, want each record once and all of them", n)
	}
}

// TestStreamHasEachRecordOnce: addresses and context IDs make no other record,
// protocols and their parameters do.
func TestStreamHasEachRecordOnce(t *testing.T) {
	f := &static{results: []find.ProviderResult{
		result("P", "a", bitswap, tcp4),
		result("P", "b", bitswap, tcp6),
		result("P", "a", both, tcp4),
		result("P", "a", vendorOne, tcp4),
		result("P", "a", vendorOther, tcp4),
		result("Q", "a", bitswap, tcp4),
		result("Q", "a", unreadable, tcp4),
		result("Q", "b", nil, tcp4),
	}}
	_, body := ask(t, f, "GET", providersPath+"/"+anyCID, "application/x-ndjson")
	want := []string{
		`{"Addrs":["` + tcp4 + `"],"ID":"` + peerOf("P").String() + `","Protocols":["transport-bitswap"],"Schema":"peer","transport-bitswap":"gBI="}`,
		`{"Addrs":["` + tcp4 + `"],"ID":"` + peerOf("P").String() + `","Protocols":["transport-bitswap","transport-ipfs-gateway-http"],"Schema":"peer","transport-bitswap":"gBI=","transport-ipfs-gateway-http":"oBIA"}`,
		`{"Addrs":["` + tcp4 + `"],"Code(16001)":"gX0BAQ==","ID":"` + peerOf("P").String() + `","Protocols":["Code(16001)"],"Schema":"peer"}`,
		`{"Addrs":["` + tcp4 + `"],"Code(16001)":"gX0BAg==","ID":"` + peerOf("P").String() + `","Protocols":["Code(16001)"],"Schema":"peer"}`,
		`{"Addrs":["` + tcp4 + `"],"ID":"` + peerOf("Q").String() + `","Protocols":["transport-bitswap"],"Schema":"peer","transport-bitswap":"gBI="}`,
		`{"Addrs":["` + tcp4 + `"],"ID":"` + peerOf("Q").String() + `","Schema":"peer"}`,
	}
	if diff := cmp.Diff(want, strings.Split(strings.TrimSuffix(body, "\n"), "\n")); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestBoxoClientUnderstandsUs asks with the client of Kubo and someguy, in
// both forms.
func TestBoxoClientUnderstandsUs(t *testing.T) {
	f := &static{results: []find.ProviderResult{
		result("P", "a", both, tcp4, https),
		result("Q", "a", bitswap, quic),
		result("R", "a", unreadable, tcp6),
	}}
	for _, form := range []string{"application/x-ndjson", "application/json"} {
		t.Run(form, func(t *testing.T) {
			h := NewHandler(f, Config{})
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if accept := r.Header.Get("Accept"); !strings.Contains(accept, form) {
					t.Errorf("the client accepts %q", accept)
				}
				r.Header.Set("Accept", form)
				h.ServeHTTP(w, r)
			}))
			defer srv.Close()
			client, err := boxo.New(srv.URL, boxo.WithHTTPClient(srv.Client()), boxo.WithDisabledLocalFiltering(true))
			if err != nil {
				t.Fatal(err)
			}
			answer, err := client.FindProviders(t.Context(), cid.MustParse(anyCID))
			if err != nil {
				t.Fatal(err)
			}
			records, err := boxoiter.ReadAllResults(answer)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range records {
				p := r.(*types.PeerRecord)
				got = append(got, fmt.Sprint(string((*p.ID)[2:]), " ", p.Protocols, " ", p.Addrs))
			}
			want := []string{
				"P [transport-bitswap transport-ipfs-gateway-http] [" + tcp4 + " " + https + "]",
				"Q [transport-bitswap] [" + quic + "]",
				"R [] [" + tcp6 + "]",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}
