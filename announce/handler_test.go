package announce

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
)

type exchange struct {
	Peer, Method, Path, Note string
	RequestHeaders           map[string]string `json:"request_headers"`
	ResponseHeaders          map[string]string `json:"response_headers"`
	Status                   int
	RequestBody              string `json:"request_body"`
	RequestB64               []byte `json:"request_body_b64"`
	ResponseBody             string `json:"response_body"`
}

func TestRecordedExchangesReplay(t *testing.T) {
	var file struct{ Exchanges []exchange }
	readVectors(t, "transcripts.json", &file)
	notAssigned := mustPeer(t, "QmSe44jQ4PrLxT7ei7hkLTc1kPjVjWS5GAoQDS8uhBRXpG")
	h := NewHandler(func(_ context.Context, a Announce) error {
		if a.Publisher.ID == notAssigned {
			return ErrNotAllowed
		}
		return nil
	})
	for _, e := range file.Exchanges {
		t.Run(e.Peer+" "+e.Method+" "+e.Note, func(t *testing.T) {
			// The assigner of storetheindex knows neither OPTIONS nor JSON; this
			// handler behaves as an indexer does.
			want := e.Status
			if e.Peer == "assigner" && e.Method == "OPTIONS" {
				want = http.StatusOK
			}
			if e.Peer == "assigner" && strings.HasPrefix(e.Note, "JSON") {
				want = http.StatusNoContent
			}
			body := e.RequestB64
			if body == nil {
				body = []byte(e.RequestBody)
			}
			req := httptest.NewRequest(e.Method, e.Path, bytes.NewReader(body))
			for k, v := range e.RequestHeaders {
				req.Header.Set(k, v)
			}
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, req)
			if want != e.Status {
				if rec.Code != want {
					t.Errorf("got %d %q, want %d where the reference's assigner says %d", rec.Code, rec.Body, want, e.Status)
				}
				return
			}
			if rec.Code != e.Status || rec.Body.String() != e.ResponseBody {
				t.Errorf("got %d %q, recorded %d %q", rec.Code, rec.Body, e.Status, e.ResponseBody)
			}
			for k, want := range e.ResponseHeaders {
				if got := rec.Header().Get(k); k != "Content-Length" && got != want {
					t.Errorf("header %s is %q, recorded %q", k, got, want)
				}
			}
		})
	}
}

func TestHandlerHandsOverTheAnnounce(t *testing.T) {
	body := unhex(t, vectors(t)[1].CBORHex)
	var got Announce
	h := NewHandler(func(_ context.Context, a Announce) error { got = a; return nil })
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("PUT", "/announce", bytes.NewReader(body)))
	if rec.Code != http.StatusNoContent || rec.Body.Len() > 0 {
		t.Fatalf("answer %d %q", rec.Code, rec.Body)
	}
	want := []string{"/dns4/publisher.example.com/tcp/443/https/http-path/ipni%2Fprovider", "/ip4/203.0.113.9/tcp/3103"}
	if diff := cmp.Diff(want, addrStrings(got.Publisher.Addrs)); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	if got.Head.String() != someAd || got.Publisher.ID.String() != providerID || !got.Direct {
		t.Errorf("got %+v", got)
	}
}

func TestHandlerAnswersForEachOutcome(t *testing.T) {
	body := unhex(t, vectors(t)[1].CBORHex)
	for _, tc := range []struct {
		err        error
		wantStatus int
		wantBody   string
	}{
		{ErrNotAllowed, 403, "announce requests not allowed from peer " + providerID + "\n"},
		{errors.Join(errors.New("not assigned"), ErrNotAllowed), 403, "announce requests not allowed from peer " + providerID + "\n"},
		{ErrUnavailable, 503, "announces cannot be taken now\n"},
		{errors.New("disk on fire"), 500, "\n"},
	} {
		h := NewHandler(func(context.Context, Announce) error { return tc.err })
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("PUT", "/ingest/announce", bytes.NewReader(body)))
		if rec.Code != tc.wantStatus || rec.Body.String() != tc.wantBody {
			t.Errorf("%v: got %d %q, want %d %q", tc.err, rec.Code, rec.Body, tc.wantStatus, tc.wantBody)
		}
		if tc.wantStatus == 503 && rec.Header().Get("Retry-After") == "" {
			t.Errorf("%v: no Retry-After", tc.err)
		}
	}
}

func TestHandlerRefusesBodiesBeyondTheLimit(t *testing.T) {
	called := false
	srv := httptest.NewServer(NewHandler(func(context.Context, Announce) error { called = true; return nil }))
	defer srv.Close()
	// A good message with a long tail: the tail would be ignored if it were read.
	body := append(unhex(t, vectors(t)[1].CBORHex), make([]byte, MaxMessageBytes)...)
	req, err := http.NewRequest("PUT", srv.URL+"/announce", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusBadRequest || called {
		t.Errorf("status %d, called %v", resp.StatusCode, called)
	}
}

func TestHandlerLeavesOtherPathsAlone(t *testing.T) {
	rec := httptest.NewRecorder()
	NewHandler(nil).ServeHTTP(rec, httptest.NewRequest("PUT", "/announce/more", nil))
	if rec.Code != http.StatusNotFound {
		t.Errorf("status %d", rec.Code)
	}
}

// receiver is a server that keeps the last request it got.
type receiver struct {
	*httptest.Server
	path, query, contentType, userAgent string
	body                                []byte
}

func newReceiver(t *testing.T, status int, answer string) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.path, r.query = req.Method+" "+req.URL.Path, req.URL.RawQuery
		r.contentType, r.userAgent = req.Header.Get("Content-Type"), req.Header.Get("User-Agent")
		r.body, _ = io.ReadAll(req.Body)
		w.WriteHeader(status)
		io.WriteString(w, answer)
	}))
	t.Cleanup(r.Close)
	return r
}

func TestSenderReachesAHandler(t *testing.T) {
	var got []Announce
	srv := httptest.NewServer(NewHandler(func(_ context.Context, a Announce) error { got = append(got, a); return nil }))
	defer srv.Close()
	sent, err := mustMessage(t, vectors(t)[1]).Direct()
	if err != nil {
		t.Fatal(err)
	}
	s := NewSender(srv.Client())
	for _, send := range []func(context.Context, string, Announce) error{s.Send, s.SendJSON} {
		if err := send(t.Context(), srv.URL, sent); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 2 {
		t.Fatalf("%d announces arrived", len(got))
	}
	for _, a := range got {
		if a.Head != sent.Head || a.Publisher.String() != sent.Publisher.String() {
			t.Errorf("sent %+v, got %+v", sent, a)
		}
	}
}

func mustMessage(t *testing.T, v vector) *Message {
	t.Helper()
	m, err := DecodeCBOR(unhex(t, v.CBORHex))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSenderWritesWhatTheReferenceWrites(t *testing.T) {
	v := vectors(t)[1]
	a, err := mustMessage(t, v).Direct()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, suffix, wantQuery string }{
		{"no path", "", ""},
		{"slash", "/", ""},
		{"another path is replaced", "/some/where", ""},
		{"query stays", "/x?token=1", "token=1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newReceiver(t, http.StatusOK, "")
			s := NewSender(r.Client())
			if err := s.Send(t.Context(), r.URL+tc.suffix, a); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(r.body, unhex(t, v.CBORHex)) || r.contentType != "application/octet-stream" {
				t.Errorf("sent %s %x", r.contentType, r.body)
			}
			if err := s.SendJSON(t.Context(), r.URL+tc.suffix, a); err != nil {
				t.Fatal(err)
			}
			if string(r.body) != v.JSON || r.contentType != "application/json" {
				t.Errorf("sent %s %s", r.contentType, r.body)
			}
			if r.path != "PUT /announce" || r.query != tc.wantQuery || r.userAgent != "signpost" {
				t.Errorf("%s?%s by %s", r.path, r.query, r.userAgent)
			}
		})
	}
}

func TestSenderWithoutAddressNamesThePublisher(t *testing.T) {
	r := newReceiver(t, http.StatusNoContent, "")
	c := mustMessage(t, vectors(t)[1]).Cid
	a := Announce{Head: c, Publisher: peer.AddrInfo{ID: mustPeer(t, providerID)}}
	if err := NewSender(r.Client()).Send(t.Context(), r.URL, a); err != nil {
		t.Fatal(err)
	}
	m, err := DecodeCBOR(r.body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/p2p/" + providerID}, addrStrings(m.Addrs)); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

func TestSenderErrorCarriesStatusAndKind(t *testing.T) {
	a, err := mustMessage(t, vectors(t)[1]).Direct()
	if err != nil {
		t.Fatal(err)
	}
	for status, kind := range map[int]error{400: ErrMalformed, 403: ErrNotAllowed, 503: ErrUnavailable, 202: nil, 500: nil} {
		r := newReceiver(t, status, "because\n"+strings.Repeat("x", 1<<20))
		u := strings.Replace(r.URL, "http://", "http://user:secret@", 1)
		err := NewSender(r.Client()).Send(t.Context(), u, a)
		var se *StatusError
		if !errors.As(err, &se) || se.Code != status || !strings.HasPrefix(se.Body, "because") || len(se.Body) > maxAnswerBytes {
			t.Errorf("%d: got %v", status, err)
			continue
		}
		if kind != nil && !errors.Is(err, kind) {
			t.Errorf("%d is not %v", status, kind)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("error tells the password: %v", err)
		}
	}
}

func TestSenderRefusesBadInput(t *testing.T) {
	good, err := mustMessage(t, vectors(t)[1]).Direct()
	if err != nil {
		t.Fatal(err)
	}
	s := NewSender(nil)
	for _, u := range []string{"", "indexer.example:3001", "ftp://indexer.example", "http://", "http://[::1"} {
		if err := s.Send(t.Context(), u, good); err == nil {
			t.Errorf("sent to %q", u)
		}
	}
	other := good
	other.Publisher.Addrs = mustAddrs(t, "/ip4/203.0.113.9/tcp/1/p2p/"+publisherID)
	for name, a := range map[string]Announce{
		"no publisher": {Head: good.Head}, "no head": {Publisher: good.Publisher}, "address of another": other,
	} {
		if err := s.Send(t.Context(), "http://127.0.0.1:1", a); err == nil {
			t.Errorf("%s: sent", name)
		}
	}
}

func TestSenderStopsWithItsContext(t *testing.T) {
	stalled := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice a leaving client
		close(stalled)
		<-r.Context().Done()
	}))
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-stalled; cancel() }()
	a, err := mustMessage(t, vectors(t)[1]).Direct()
	if err != nil {
		t.Fatal(err)
	}
	if err := NewSender(srv.Client()).Send(ctx, srv.URL, a); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestMessageIsAJSONValue(t *testing.T) {
	v := vectors(t)[2]
	var m Message
	if err := json.Unmarshal([]byte(v.JSON), &m); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(&m)
	if err != nil || string(b) != v.JSON {
		t.Errorf("got %s, %v", b, err)
	}
}

func TestUnavailableSaysWhyToTheSender(t *testing.T) {
	for name, c := range map[string]struct {
		err         error
		text, after string
	}{
		"with a text":        {fmt.Errorf("wrapped: %w", &UnavailableError{Text: "ask another", RetryAfter: 5 * time.Second}), "ask another\n", "5"},
		"without a time":     {&UnavailableError{Text: "ask another"}, "ask another\n", retryAfterSeconds},
		"an error of ours":   {errors.Join(ErrUnavailable, errors.New("disk path")), ErrUnavailable.Error() + "\n", retryAfterSeconds},
		"the sentinel alone": {ErrUnavailable, ErrUnavailable.Error() + "\n", retryAfterSeconds},
	} {
		w := httptest.NewRecorder()
		unavailable(w, c.err)
		if w.Code != http.StatusServiceUnavailable || w.Body.String() != c.text || w.Header().Get("Retry-After") != c.after {
			t.Errorf("%s: %d %q, Retry-After %s", name, w.Code, w.Body, w.Header().Get("Retry-After"))
		}
		if !errors.Is(c.err, ErrUnavailable) {
			t.Errorf("%s is no ErrUnavailable", name)
		}
	}
}
