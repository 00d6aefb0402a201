package find

import (
	"encoding/json"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
)

func wantErr(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got error %v, want one with %q", err, text)
	}
}

// The oracle: the reference's types with encoding/json.
type (
	oracleResult struct {
		ContextID []byte `json:",omitempty"`
		Metadata  []byte `json:",omitempty"`
		Provider  *peer.AddrInfo
	}
	oracleMultihash struct {
		Multihash       []byte
		ProviderResults []oracleResult
	}
)

// TestEncoderWritesWhatEncodingJSONDoes compares random results, and strings
// that need escaping.
func TestEncoderWritesWhatEncodingJSONDoes(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	bytesOf := func(n int) []byte {
		b := make([]byte, random.IntN(n))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	for range 500 {
		mh, err := multihash.Sum(bytesOf(10), multihash.SHA2_256, -1)
		if err != nil {
			t.Fatal(err)
		}
		want := oracleMultihash{Multihash: mh, ProviderResults: []oracleResult{}}
		var results []ProviderResult
		for range random.IntN(4) {
			r := ProviderResult{ContextID: bytesOf(65), Metadata: bytesOf(100), Provider: randomPeer(random)}
			results = append(results, r)
			want.ProviderResults = append(want.ProviderResults, oracleResult{r.ContextID, r.Metadata, r.Provider})
		}
		wantJSON, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendMultihashResult(nil, mh, results); string(got) != string(wantJSON) {
			t.Fatalf("got  %s\nwant %s", got, wantJSON)
		}
	}
}

// randomPeer has addresses of which some need escaping in JSON.
func randomPeer(random *rand.Rand) *peer.AddrInfo {
	hosts := []string{"example.com", "a<b>.com", `quo"te`, `back\slash`, "ünïcode", "amp&ersand", "line\u2028separator", "bad\xffutf8", "tab\t"}
	if random.IntN(8) == 0 {
		return nil
	}
	mh, _ := multihash.Sum([]byte{byte(random.Uint32())}, multihash.SHA2_256, -1)
	info := &peer.AddrInfo{ID: peer.ID(mh)}
	for range random.IntN(4) {
		if addr, err := multiaddr.NewMultiaddr("/dns/" + hosts[random.IntN(len(hosts))] + "/tcp/1"); err == nil {
			info.Addrs = append(info.Addrs, addr)
		}
	}
	return info
}

func TestAppendStringEscapesAsEncodingJSON(t *testing.T) {
	for c := range 256 {
		s := "a" + string([]byte{byte(c)}) + "b"
		want, _ := json.Marshal(s)
		if got := appendString(nil, s); string(got) != string(want) {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
}

// TestLinesStayBelowTheLimit gives a provider more addresses than a line
// takes: the first ones are kept.
func TestLinesStayBelowTheLimit(t *testing.T) {
	many := mustInfo(provider.ID.String())
	for range 4000 {
		many.Addrs = append(many.Addrs, multiaddr.StringCast("/dns4/a-rather-long-name.example.com/tcp/24001"))
	}
	for _, prefix := range []string{"", "x", "xx", "xxx"} {
		r := result("context"+prefix, bitswap, many)
		line, ok := appendLine([]byte("before"), &r, maxLine)
		line = []byte(strings.TrimPrefix(string(line), "before"))
		if !ok || len(line) >= maxLine {
			t.Fatalf("got %v and %d bytes, limit %d", ok, len(line), maxLine)
		}
		if len(line) < maxLine-100 {
			t.Errorf("only %d of %d bytes used", len(line), maxLine)
		}
		var got ProviderResult
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Provider.Addrs) == 0 || line[len(line)-1] != '\n' {
			t.Errorf("got %d addresses in a line that ends in %q", len(got.Provider.Addrs), line[len(line)-1])
		}
	}
	huge := ProviderResult{Metadata: make([]byte, 50<<10), Provider: &many}
	if line, ok := appendLine([]byte("before"), &huge, maxLine); ok || string(line) != "before" {
		t.Errorf("a line of %d bytes for what does not fit", len(line))
	}
}

func TestParseMultihash(t *testing.T) {
	hexText := "1220d35072a384932616199fda4ed1169b5d4d9805e74042e0d2edd9afec08fd375e"
	for _, s := range []string{"QmcZXt82F7ha91gQVwsPWWBweVVMe2ScBx1wTcG4Yibowj", hexText, strings.ToUpper(hexText)} {
		if mh, err := ParseMultihash(s); err != nil || mh.HexString() != hexText {
			t.Errorf("%s: got %v, %v", s, mh, err)
		}
	}
	for _, s := range []string{"", "zzz", "multihash", hexText[2:], hexText + "00", hexText[:66], "0", strings.Repeat("1", maxText+1), strings.Repeat("00", maxText)} {
		if mh, err := ParseMultihash(s); err == nil {
			t.Errorf("%q: got %v, want an error", s, mh)
		}
	}
	if mh, err := ParseMultihash("0000"); err != nil || !zeroLength(mh) {
		t.Errorf("zero-length digest: got %v, %v", mh, err)
	}
}

func FuzzParseMultihash(f *testing.F) {
	f.Add("QmcZXt82F7ha91gQVwsPWWBweVVMe2ScBx1wTcG4Yibowj")
	f.Add("1220d35072a384932616199fda4ed1169b5d4d9805e74042e0d2edd9afec08fd375e")
	f.Fuzz(func(t *testing.T, s string) {
		mh, err := ParseMultihash(s)
		if err != nil {
			return
		}
		again, err := ParseMultihash(mh.B58String())
		if len(mh) < maxText/2 && (err != nil || again.HexString() != mh.HexString()) {
			t.Fatalf("%q is %s, in base58 %s, %v", s, mh, again, err)
		}
	})
}

func FuzzReadResult(f *testing.F) {
	for _, r := range extendedResults {
		line, _ := appendLine(nil, &r, maxLine)
		f.Add(line)
	}
	f.Add([]byte(`{"Provider":{"ID":"","Addrs":null}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var r ProviderResult
		if json.Unmarshal(line, &r) != nil || r.Provider == nil {
			return
		}
		written, ok := appendLine(nil, &r, maxLine)
		if !ok {
			return
		}
		var again ProviderResult
		if err := json.Unmarshal(written, &again); err != nil {
			t.Fatalf("own line %s: %v", written, err)
		}
		if !sameIdentity(&r, &again) {
			t.Fatalf("read %+v, wrote %s", r, written)
		}
	})
}

func FuzzReadProviderInfo(f *testing.F) {
	f.Add([]byte(vector(f, "provider-info-full")))
	f.Add([]byte(vector(f, "provider-info-minimal")))
	f.Fuzz(func(t *testing.T, body []byte) {
		var info ProviderInfo
		if json.Unmarshal(body, &info) != nil {
			return
		}
		written, err := json.Marshal(info)
		if err != nil {
			t.Fatalf("%+v: %v", info, err)
		}
		if err := json.Unmarshal(written, &info); err != nil {
			t.Fatalf("own record %s: %v", written, err)
		}
	})
}

func BenchmarkAppendMultihashResult(b *testing.B) {
	b.ReportAllocs()
	buf := make([]byte, 0, 4096)
	for b.Loop() {
		buf = appendMultihashResult(buf[:0], mhA, extendedResults)
	}
}

// BenchmarkHandler is a find as JSON, without the network.
func BenchmarkHandler(b *testing.B) {
	b.ReportAllocs()
	h := NewHandler(&static{results: extendedResults}, Config{})
	r := httptest.NewRequest("GET", "/multihash/"+mhA.B58String(), nil)
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "finds/s")
}

func BenchmarkEncodingJSON(b *testing.B) {
	b.ReportAllocs()
	value := oracleMultihash{Multihash: mhA}
	for _, r := range extendedResults {
		value.ProviderResults = append(value.ProviderResults, oracleResult{r.ContextID, r.Metadata, r.Provider})
	}
	for b.Loop() {
		_, _ = json.Marshal(value)
	}
}
