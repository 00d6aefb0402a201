package assigner

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api"
)

func TestStandbyTakesOverAndYields(t *testing.T) {
	for _, tc := range []struct{ name, checks, states string }{
		{"a primary that answers is left alone", "+++++", "....."},
		{"three misses in a row", "---", "..A"},
		{"two are not enough", "--+--+", "......"},
		{"one that was never there", "----", "..AA"},
		{"three answers in a row give it back", "---+++", "..AAA."},
		{"two do not", "---++-++-", "..AAAAAAA"},
		{"over and over", "---+++---+++", "..AAA...AAA."},
	} {
		var w watch
		var got strings.Builder
		for _, check := range tc.checks {
			w = w.next(check == '+')
			if w.active {
				got.WriteByte('A')
			} else {
				got.WriteByte('.')
			}
		}
		if got.String() != tc.states {
			t.Errorf("%s: %s gives %s, want %s", tc.name, tc.checks, got.String(), tc.states)
		}
	}
}

func TestPassiveAssignerDoesNothingUntilThePrimaryIsGone(t *testing.T) {
	for name, journal := range map[string]bool{"with a journal": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			p, q, r := realID(t, 1), realID(t, 2), realID(t, 3)
			inBubble(t, "A\nB", func(t *testing.T, s *story) {
				var gone atomic.Bool
				s.announces.StandbyFor = "http://primary.example"
				s.announces.ForwardURLs = []string{"http://other.example"}
				others := 0
				s.other = func(context.Context, string, announce.Announce) error { others++; return nil }
				s.primary = func(_ context.Context, u string) error {
					if gone.Load() || u != s.announces.StandbyFor {
						return errors.New("connection refused")
					}
					return nil
				}
				if journal {
					s.announces.Journal = t.TempDir()
				}
				s.assign("A", p)
				s.mustStart()
				heard := func(what string) {
					t.Helper()
					for _, id := range []peer.ID{p, q} {
						if err := s.assigner.hear(t.Context(), announceOf(id, what)); err != nil {
							t.Fatal(err)
						}
					}
				}
				heard("1")
				time.Sleep(time.Minute)
				w := putAnnounce(s.assigner, announceOf(r, "direct"), false)
				if w.Code != http.StatusServiceUnavailable || w.Body.String() != errPassive.Text+"\n" || w.Header().Get("Retry-After") == "" {
					t.Errorf("direct announce while passive: %d %s", w.Code, w.Body)
				}
				if got := s.calls(); got != "none" || others > 0 || s.announcesTaken("A")+s.announcesTaken("B") > 0 {
					t.Errorf("while passive: calls %s, %d announces passed on", got, others)
				}
				if got := s.pageAndHealth(); got != "assigner standing by passive=true" {
					t.Errorf("while passive: %s", got)
				}
				if n := s.fakes["A"].lookedAt(); n < 10 {
					t.Errorf("the pool was looked at %d times: it is not warm", n)
				}

				gone.Store(true)
				time.Sleep((takeOverAfter-1)*healthInterval - 500*time.Millisecond)
				if s.announcesTaken("A") > 0 {
					t.Error("it acted before three checks had failed")
				}
				time.Sleep(3 * time.Second)
				if s.headOf("A", p) != "1" || s.headOf("A", q)+s.headOf("B", q) != "1" || others != 2 {
					t.Errorf("once active: %s; %d announces passed on", s.show(), others)
				}
				if got := s.pageAndHealth(); got != "assigner ready passive=false" {
					t.Errorf("while active: %s", got)
				}
				if w := putAnnounce(s.assigner, announceOf(p, "2"), false); w.Code != http.StatusNoContent {
					t.Errorf("direct announce while active: %d", w.Code)
				}

				gone.Store(false)
				time.Sleep((yieldAfter + 1) * healthInterval)
				s.calls()
				taken := s.announcesTaken("A") + s.announcesTaken("B")
				heard("3")
				time.Sleep(time.Minute)
				if n := s.announcesTaken("A") + s.announcesTaken("B"); n != taken || s.calls() != "none" {
					t.Errorf("after the primary came back: %d announces sent", n-taken)
				}
				if got := s.pageAndHealth(); got != "assigner standing by passive=true" {
					t.Errorf("once passive again: %s", got)
				}
			})
		})
	}
}

// pageAndHealth is what the assigner says of itself.
func (s *story) pageAndHealth() string {
	get := func(path string) string {
		w := httptest.NewRecorder()
		s.assigner.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Body.String()
	}
	passive := "false"
	if strings.Contains(get(PoolPath), `"Passive":true`) {
		passive = "true"
	}
	return strings.TrimSpace(get("/health")) + " passive=" + passive
}

func TestCallUnderWayIsFinishedWhenAnAssignerBecomesPassive(t *testing.T) {
	p := realID(t, 1)
	inBubble(t, "A", func(t *testing.T, s *story) {
		var gone atomic.Bool
		gone.Store(true)
		s.announces.StandbyFor = "http://primary.example"
		s.primary = func(context.Context, string) error {
			if gone.Load() {
				return errors.New("connection refused")
			}
			return nil
		}
		s.assign("A", p)
		s.fakes["A"].syncTakes = 900 * time.Millisecond
		s.mustStart()
		time.Sleep(takeOverAfter * healthInterval)
		synctest.Wait()
		gone.Store(false)
		time.Sleep(time.Minute)
		var synced int
		s.fakes["A"].set(func() { synced = len(s.fakes["A"].synced) })
		if synced != 1 {
			t.Errorf("%d polls came to their end, want 1", synced)
		}
	})
}

func TestHealthOfThePrimaryIsItsStatus(t *testing.T) {
	status := http.StatusOK
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/below/health" || r.Method != http.MethodGet {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte("assigner ready\n"))
	}))
	defer srv.Close()
	hc := api.NewHTTPClient()
	defer hc.CloseIdleConnections()
	ask := askHealth(hc)
	if err := ask(t.Context(), srv.URL+"/below"); err != nil {
		t.Error(err)
	}
	status = http.StatusServiceUnavailable
	if err := ask(t.Context(), srv.URL+"/below"); err == nil {
		t.Error("503 counts as an answer")
	}
	if err := ask(t.Context(), "http://127.0.0.1:1"); err == nil {
		t.Error("nobody there counts as an answer")
	}
}
