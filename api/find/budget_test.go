package find

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/multiformats/go-multihash"
)

// endless knows more of a multihash than anybody could send, and one thing of
// every other.
type endless struct {
	static
	of multihash.Multihash
}

func (e *endless) Find(_ context.Context, mh multihash.Multihash) iter.Seq2[ProviderResult, error] {
	return func(yield func(ProviderResult, error) bool) {
		md := append([]byte{0x81, 0x7d, 0xfc, 0x07}, make([]byte, 1020)...) // code 16001
		for n := 0; ; n++ {
			if !yield(result(fmt.Sprint(n), md, provider), nil) || string(mh) != string(e.of) {
				return
			}
		}
	}
}

// TestAnAnswerInOnePieceIsBoundedAndSaysSo, however much is known.
func TestAnAnswerInOnePieceIsBoundedAndSaysSo(t *testing.T) {
	for _, frontend := range []bool{false, true} {
		srv := batchServer(t, &endless{of: testKey(1)}, frontend)
		resp, body := get(t, srv, "/multihash/"+testKey(1).B58String(), "")
		var answer Response
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatal(err)
		}
		if n := len(answer.MultihashResults[0].ProviderResults); resp.StatusCode != 200 || n < 16_384 || len(body) > maxAnswerBytes {
			t.Errorf("frontend %v: %d, %d results in %d bytes", frontend, resp.StatusCode, n, len(body))
		}
		if resp.Header.Get(HeaderLeftOut) != LeftUncounted || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("frontend %v: it does not say that it is not all: %v", frontend, resp.Header)
		}
		if resp, body := get(t, srv, "/?q="+testKey(1).B58String(), ""); resp.StatusCode != 200 || !strings.Contains(body, "More than ") {
			t.Errorf("frontend %v: the page: %d %s", frontend, resp.StatusCode, body)
		}
		if resp, _ := get(t, srv, "/multihash/"+testKey(2).B58String(), ""); resp.Header.Get(HeaderLeftOut) != "" {
			t.Errorf("frontend %v: an answer that is whole says that it is not", frontend)
		}
	}
}

// TestAKeyOfWhichTooMuchIsKnownStaysOpenInABatch, and is nobody else's trouble.
func TestAKeyOfWhichTooMuchIsKnownStaysOpenInABatch(t *testing.T) {
	srv := batchServer(t, &endless{of: testKey(1)}, false)
	keys := []string{base64.StdEncoding.EncodeToString(testKey(2)), base64.StdEncoding.EncodeToString(testKey(1))}
	resp, body := postBatch(t, srv.URL+"/multihash", `{"Multihashes":["`+strings.Join(keys, `","`)+`"]}`)
	if len(body) > 4<<10 || !strings.Contains(body, `"Unknown":["`+keys[1]+`"]`) || resp.Header.Get(HeaderPartial) != tooMuch {
		t.Errorf("%v, %d bytes: %.1000s", resp.Header, len(body), body)
	}
}

// TestTheRecordsThatAStoreFollowsFitInOneAnswer, at the length metadata may have.
func TestTheRecordsThatAStoreFollowsFitInOneAnswer(t *testing.T) {
	s := &static{}
	for n := range 16_384 {
		s.results = append(s.results, result(fmt.Sprintf("%064d", n), make([]byte, 1024), provider))
	}
	srv := batchServer(t, s, true)
	resp, body := get(t, srv, "/multihash/"+testKey(1).B58String(), "")
	if n := strings.Count(body, `"Metadata"`); n != len(s.results) || resp.Header.Get(HeaderLeftOut) != "" {
		t.Errorf("%d of %d records, left out: %q", n, len(s.results), resp.Header.Get(HeaderLeftOut))
	}
}
