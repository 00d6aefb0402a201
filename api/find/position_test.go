package find

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func placedResults() []ProviderResult {
	results := []ProviderResult{result("a", bitswap, provider), result("a", gateway, extended1), result("b", bitswap, provider)}
	results[0].Position = Position{[16]byte{1, 2, 3}, 1 << 40, false}
	results[1].Position = Position{[16]byte{15: 9}, 1, true}
	return results
}

// TestPositionsComeOverTheWire to whoever asks for them, in all forms of an answer and
// on a line; to nobody else.
func TestPositionsComeOverTheWire(t *testing.T) {
	want := placedResults()
	f := &static{results: want}
	byHTTP := answers(t, NewHandler(f, Config{}).ServeHTTP)
	onlyJSON := answers(t, func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Accept", "application/json")
		NewHandler(f, Config{Frontend: true}).ServeHTTP(w, r)
	})
	for name, c := range map[string]Finder{"NDJSON": byHTTP, "JSON": onlyJSON, "line": lineTo(t, f, prometheus.NewRegistry())} {
		got, err := collectFind(c.Find(t.Context(), mhA))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(Merge(placedResults()), Merge(got), compare); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
	for _, frontend := range []bool{true, false} {
		for _, accept := range []string{"application/json", "application/x-ndjson"} {
			req := httptest.NewRequest(http.MethodGet, "/multihash/"+mhA.B58String(), nil)
			req.Header.Set("Accept", accept)
			w := httptest.NewRecorder()
			NewHandler(f, Config{Frontend: frontend}).ServeHTTP(w, req)
			if w.Code != http.StatusOK || strings.Contains(w.Body.String(), "Position") {
				t.Errorf("%s, frontend %v: %d %s", accept, frontend, w.Code, w.Body)
			}
		}
	}
	if diff := cmp.Diff(want, f.results, compare); diff != "" {
		t.Errorf("the finder's own results have changed\n%s", diff)
	}
}

// TestAStreamLeavesOutWhatIsOutOfDate once something newer was sent.
func TestAStreamLeavesOutWhatIsOutOfDate(t *testing.T) {
	var results []ProviderResult
	for _, h := range []uint64{3, 2, 5, 4, 5} {
		r := result("a", fmt.Appendf(nil, "at %d", h), provider)
		r.Position = Position{[16]byte{1}, h, false}
		results = append(results, r)
	}
	got, err := collectFind(answers(t, NewHandler(&static{results: results}, Config{Frontend: true}).ServeHTTP).Find(t.Context(), mhA))
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, r := range got {
		texts = append(texts, string(r.Metadata))
	}
	if strings.Join(texts, ", ") != "at 3, at 5" {
		t.Errorf("got %q", texts)
	}
}

// TestOddPositionsAreNone: what says nothing of its place is kept as such, and a line
// that breaks the rules is malformed.
func TestOddPositionsAreNone(t *testing.T) {
	for _, text := range []string{`null`, `[]`, `7`, `{"Chain":"AAAA","Height":5}`, `{"Height":5}`, `{"Chain":"AQAAAAAAAAAAAAAAAAAAAA==","Height":0}`,
		`{"Chain":"AAAAAAAAAAAAAAAAAAAAAA==","Height":5}`, `{"Chain":"AQAAAAAAAAAAAAAAAAAAAA==","Height":-1}`, `{"Chain":7,"Height":5}`,
		`{"Chain":"AQAAAAAAAAAAAAAAAAAAAA==","Height":4611686018427387904}`, `{"Chain":"AQAAAAAAAAAAAAAAAAAAAA==","Height":18446744073709551615}`} {
		var r ProviderResult
		if err := r.UnmarshalJSON([]byte(`{"Provider":{"ID":"` + provider.ID.String() + `","Addrs":[]},"Position":` + text + `}`)); err != nil || r.Position != (Position{}) {
			t.Errorf("%s: %+v, %v", text, r.Position, err)
		}
	}
	// What is no height is not sent on a line either, where twice it has to fit.
	if b := appendBinaryPosition(nil, Position{[16]byte{1}, 1 << 63, false}); len(b) != 1 || b[0] != 0 {
		t.Errorf("sent %v", b)
	}
	for _, b := range [][]byte{{}, {1}, {2, 1, 2}, append([]byte{2}, make([]byte, 16)...), {0xff}} {
		r := &lineReader{b: b}
		if p := r.position(); !r.bad {
			t.Errorf("%v: %+v", b, p)
		}
	}
}
