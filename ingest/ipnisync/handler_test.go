package ipnisync

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multibase"

	"github.com/signpost-index/signpost/ingest/schema"
)

var discardLog = log.New(io.Discard, "", 0)

func ask(t *testing.T, h http.Handler, method, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

func TestHandlerStatuses(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	h := NewHandler(m)
	empty := NewHandler(newMemory(t))
	broken := NewHandler(brokenSource{})
	base64, err := cids[0].StringOfBase(multibase.Base64url)
	if err != nil {
		t.Fatal(err)
	}
	missing := schema.LinkOf(schema.DagJSON, nil).String()
	for _, tc := range []struct {
		name         string
		h            http.Handler
		method, path string
		want         int
	}{
		{"head", h, "GET", "/ipni/v1/ad/head", 200},
		{"head, HEAD", h, "HEAD", "/ipni/v1/ad/head", 200},
		{"block", h, "GET", "/ipni/v1/ad/" + cids[0].String(), 200},
		{"block, HEAD", h, "HEAD", "/ipni/v1/ad/" + cids[0].String(), 200},
		{"block in another multibase", h, "GET", "/ipni/v1/ad/" + base64, 200},
		{"empty chain", empty, "GET", "/ipni/v1/ad/head", 204},
		{"not a CID", h, "GET", "/ipni/v1/ad/none", 400},
		{"no resource", h, "GET", "/ipni/v1/ad/", 400},
		{"the path itself", h, "GET", "/ipni/v1/ad", 400},
		{"two elements", h, "GET", "/ipni/v1/ad/ipfs/" + cids[0].String(), 400},
		{"another path", h, "GET", "/head", 400},
		{"unknown block", h, "GET", "/ipni/v1/ad/" + missing, 404},
		{"POST", h, "POST", "/ipni/v1/ad/head", 405},
		{"head of a broken source", broken, "GET", "/ipni/v1/ad/head", 500},
		{"block of a broken source", broken, "GET", "/ipni/v1/ad/" + missing, 500},
	} {
		rec := ask(t, tc.h, tc.method, tc.path, HintHeader, "Whatever")
		if rec.Code != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, rec.Code, tc.want)
		}
		if (tc.method == "HEAD" || tc.want == 204) && rec.Body.Len() > 0 {
			t.Errorf("%s: has a body", tc.name)
		}
		if tc.want == 405 && rec.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: allows %q", tc.name, rec.Header().Get("Allow"))
		}
		if bytes.Contains(rec.Body.Bytes(), []byte("secret")) {
			t.Errorf("%s: the error's text leaks: %s", tc.name, rec.Body)
		}
	}
}

type brokenSource struct{}

func (brokenSource) Head(context.Context) (*schema.SignedHead, error) {
	return nil, errors.New("secret file is gone")
}
func (brokenSource) Block(context.Context, cid.Cid) ([]byte, error) {
	return nil, errors.New("secret file is gone")
}

func TestHandlerHeaders(t *testing.T) {
	m := newMemory(t)
	json := m.Put([]byte(`{}`), schema.DagJSON)
	cbor := m.Put([]byte{0xa0}, schema.DagCBOR)
	raw := cid.NewCidV1(cid.Raw, cbor.Hash())
	m.PutCID(raw, []byte{1})
	if err := m.SetHead(json); err != nil {
		t.Fatal(err)
	}
	h := NewHandler(m)
	get := func(path string) map[string]string {
		rec := ask(t, h, "GET", path)
		got := map[string]string{}
		for _, k := range []string{"Cache-Control", "Content-Type", "X-Content-Type-Options"} {
			got[k] = rec.Header().Get(k)
		}
		return got
	}
	immutable := "public, max-age=29030400, immutable"
	for path, want := range map[string]map[string]string{
		"/ipni/v1/ad/head":             {"Cache-Control": "no-cache, no-store, must-revalidate", "Content-Type": "application/vnd.ipld.dag-json"},
		"/ipni/v1/ad/" + json.String(): {"Cache-Control": immutable, "Content-Type": "application/vnd.ipld.dag-json"},
		"/ipni/v1/ad/" + cbor.String(): {"Cache-Control": immutable, "Content-Type": "application/vnd.ipld.dag-cbor"},
		"/ipni/v1/ad/" + raw.String():  {"Cache-Control": immutable, "Content-Type": "application/octet-stream"},
	} {
		want["X-Content-Type-Options"] = "nosniff"
		if diff := cmp.Diff(want, get(path)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	for _, path := range []string{"/ipni/v1/ad/none", "/ipni/v1/ad/" + schema.LinkOf(schema.DagJSON, nil).String()} {
		if got := get(path)["Cache-Control"]; got == immutable {
			t.Errorf("%s: an error may be cached forever", path)
		}
	}
}

func TestBlocksAreServedAsStored(t *testing.T) {
	m := newMemory(t)
	spaced := []byte("{ \"a\" :\t1 }") // no encoder writes this
	c := m.Put(spaced, schema.DagJSON)
	if rec := ask(t, NewHandler(m), "GET", "/ipni/v1/ad/"+c.String()); !bytes.Equal(rec.Body.Bytes(), spaced) {
		t.Errorf("got %q", rec.Body)
	}
}

func TestHeadIsConditional(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 2)
	h := NewHandler(m)
	etag := ask(t, h, "GET", "/ipni/v1/ad/head").Header().Get("ETag")
	if etag == "" {
		t.Fatal("no ETag")
	}
	rec := ask(t, h, "GET", "/ipni/v1/ad/head", "If-None-Match", etag)
	if rec.Code != http.StatusNotModified || rec.Body.Len() > 0 {
		t.Errorf("same head: %d", rec.Code)
	}
	if err := m.SetHead(cids[0]); err != nil {
		t.Fatal(err)
	}
	if rec := ask(t, h, "GET", "/ipni/v1/ad/head", "If-None-Match", etag); rec.Code != http.StatusOK {
		t.Errorf("new head: %d", rec.Code)
	}
}

func TestWellKnownProtocolsNameThePath(t *testing.T) {
	h := NewHandler(newMemory(t))
	for _, path := range []string{"/.well-known/libp2p/protocols", "/.well-known/libp2p"} {
		rec := ask(t, h, "GET", path)
		if got, want := rec.Body.String(), `{"/ipni/v1/ad":{"path":"/ipni/v1/ad"}}`; got != want || rec.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s %s", path, rec.Header().Get("Content-Type"), got)
		}
	}
}

func TestMemoryHeadComesAndGoes(t *testing.T) {
	m := newMemory(t)
	cids := chain(t, m, 1)
	head, err := m.Head(t.Context())
	if err != nil || head.Head != cids[0] {
		t.Fatalf("got %+v, %v", head, err)
	}
	if signer, err := head.Verify(); err != nil || signer != m.ID() {
		t.Errorf("signed by %s, %v", signer, err)
	}
	if err := m.SetHead(cid.Undef); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Head(t.Context()); !errors.Is(err, ErrNoHead) {
		t.Errorf("got %v", err)
	}
	m.Delete(cids[0])
	if _, err := m.Block(t.Context(), cids[0]); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}
