package assigner

import (
	"context"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

const pageToken = "a token that is long enough"

// ask asks a handler as somebody from that host would.
func ask(t testing.TB, h http.Handler, method, target, host, token string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	r.Host = host
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	b, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(b)
}

// TestWhoHasNoTokenSeesThePoolAndCannotAct: the page is there, without what
// operators say to each other; each of its buttons asks an address that refuses.
func TestWhoHasNoTokenSeesThePoolAndCannotAct(t *testing.T) {
	ot := newOperatorTest(t, Operating{Access: admin.Access{Token: pageToken}})
	if _, err := ot.client.Drain(t.Context(), ot.x.id.String(), Wish{By: "a private name", Reason: "a private reason"}); err != nil {
		t.Fatal(err)
	}
	ot.events.add(Event{Kind: EventMember, Indexer: ot.x.id, Text: "for everybody"})
	h, public := ot.operatorHandler(), ot.handler()
	for name, seen := range map[string]func(query string) (int, string){
		"admin": func(query string) (int, string) { return ask(t, h, http.MethodGet, "/?"+query, "pool.example", "") },
		"public": func(query string) (int, string) {
			return ask(t, public, http.MethodGet, "/?"+query, "pool.example", "")
		},
	} {
		for _, query := range []string{"", "part=live", "publisher=" + ot.p.String(), "publisher=" + ot.p.String() + "&part=live"} {
			code, body := seen(query)
			if code != http.StatusOK || !strings.Contains(body, ot.x.id.String()) || !strings.Contains(body, "draining") || !strings.Contains(body, "for everybody") {
				t.Errorf("%s %q: status %d, want the pool in\n%s", name, query, code, body)
			}
			for _, private := range []string{"a private reason", "a private name", "operate"} {
				if strings.Contains(regexp.MustCompile(`(?s)<script>.*</script>`).ReplaceAllString(body, ""), private) {
					t.Errorf("%s %q tells %q", name, query, private)
				}
			}
			if all := buttons(body, ">"); all != buttons(body, " disabled>") || (all > 0) != (name == "admin") {
				t.Errorf("%s %q: a button can be pressed", name, query)
			}
		}
	}
	code, body := ask(t, h, http.MethodGet, "/?part=live&publisher="+ot.p.String(), "pool.example", pageToken)
	if code != http.StatusOK || !strings.Contains(body, "a private reason") || strings.Contains(body, " disabled") || !strings.Contains(body, `data-access="operate"`) {
		t.Errorf("with the token: status %d\n%s", code, body)
	}
	if code, _ := ask(t, h, http.MethodGet, "/?part=live", "pool.example", "another token, just as long"); code != http.StatusUnauthorized {
		t.Errorf("with a wrong token: status %d, want 401", code)
	}
	actions := regexp.MustCompile(`data-do="([^ "]*) ([^"]*)"`).FindAllStringSubmatch(body, -1)
	if len(actions) < 10 {
		t.Fatalf("%d actions in\n%s", len(actions), body)
	}
	for _, a := range actions {
		target := html.UnescapeString(a[2])
		for _, wrong := range []string{"", "another token, just as long"} {
			if code, _ := ask(t, h, a[1], target, "pool.example", wrong); code != http.StatusUnauthorized {
				t.Errorf("%s %s with token %q: status %d, want 401", a[1], target, wrong, code)
			}
		}
		if code, _ := ask(t, public, a[1], target, "pool.example", pageToken); code != http.StatusNotFound {
			t.Errorf("%s %s where anybody asks: status %d, want 404", a[1], target, code)
		}
		if code, body := ask(t, h, a[1], target, "pool.example", pageToken); code == http.StatusNotFound && strings.HasPrefix(body, "404 page") || code == http.StatusMethodNotAllowed {
			t.Errorf("%s %s is no address of the operator's API: status %d", a[1], target, code)
		}
	}
}

func buttons(body, end string) int {
	return len(regexp.MustCompile(`<button[^>]*data-do="[^>]*`+end).FindAllString(body, -1))
}

// TestThePageOnLoopbackIsForThisMachine: without a token, who comes by another name
// of this machine or from another page does not get in.
func TestThePageOnLoopbackIsForThisMachine(t *testing.T) {
	ot := newOperatorTest(t, Operating{})
	h := ot.operatorHandler()
	if code, body := ask(t, h, http.MethodGet, "/", "127.0.0.1:3004", ""); code != http.StatusOK || !strings.Contains(body, `data-access="operate"`) {
		t.Errorf("status %d", code)
	}
	if code, _ := ask(t, h, http.MethodGet, "/", "rebound.example", ""); code != http.StatusForbidden {
		t.Errorf("by another name: status %d, want 403", code)
	}
	r := httptest.NewRequest(http.MethodPut, freezePath+"?indexer="+ot.x.id.String(), nil)
	r.Host = "127.0.0.1:3004"
	r.Header.Set("Origin", "https://elsewhere.example")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusForbidden {
		t.Errorf("from another page: status %d, want 403", w.Code)
	}
	if code, _ := ask(t, h, http.MethodGet, "/nothing", "127.0.0.1:3004", ""); code != http.StatusNotFound {
		t.Error("the page is at other paths too")
	}
}

// largeFacts are those of an indexer that owns many publishers: of each hundred one
// lags, and of each thousand one fails.
func largeFacts(n, publishers int) *facts {
	f := &facts{id: peer.ID(fmt.Sprintf("node-%05d", n)), node: admin.NodeStatus{Version: "1.2.3", Disks: []admin.Disk{{FreeBytes: 1 << 30, Usage: 12.5}}}, usage: 12.5}
	var roles []admin.PublisherRole
	for i := range publishers {
		r := admin.PublisherRole{Publisher: peer.ID(fmt.Sprintf("publisher-%05d-%06d", n, i)), Role: admin.RoleOwner}
		if i%100 == 0 {
			r.Pending = i + 1
		}
		if i%1000 == 7 {
			r.LastError = "connection refused"
		}
		roles = append(roles, r)
	}
	f.setRoles(roles)
	return f
}

// TestThePageOfALargePoolIsBounded: a hundred thousand publishers, a thousand nodes,
// and steps without end.
func TestThePageOfALargePoolIsBounded(t *testing.T) {
	const nodes, publishers = 1000, 100
	a := idleAssigner(t, "seed")
	now := time.Now()
	a.pool.mu.Lock()
	for n := range nodes {
		added := newNode(now)
		added.member = admin.PoolMember{Admin: fmt.Sprintf("http://node-%d.example:3002", n)}
		size := publishers
		if n == 0 {
			size = 100_000
		}
		added.facts = largeFacts(n, size)
		for i := range 200 {
			p := peer.ID(fmt.Sprint("moving ", n, i))
			added.underway[p] = &underway{Step: Step{Kind: Handoff, Publisher: p, Indexer: added.facts.id, From: peer.ID(fmt.Sprint("from ", i))}, state: stepDone}
		}
		added.leaving = leaving{since: now, owned: size, held: size}
		a.pool.nodes = append(a.pool.nodes, added)
	}
	a.pool.mu.Unlock()
	for range maxEvents {
		a.events.add(Event{Kind: EventMember, Text: strings.Repeat("long ", 1000)})
	}
	start := time.Now()
	p := a.pages.pool(true)
	t.Logf("picture of %d nodes and %d publishers: %v", len(p.Nodes), nodes*publishers+100_000, time.Since(start))
	if len(p.Worst) != worstShown || len(p.Steps) != stepsShown || p.MoreSteps != nodes*200-stepsShown || len(p.Leaving) != leavingShown || len(p.Events) != eventsShown {
		t.Errorf("%d publishers, %d steps and %d more, %d leaving, %d events", len(p.Worst), len(p.Steps), p.MoreSteps, len(p.Leaving), len(p.Events))
	}
	if p.Lagging != 1000+nodes-1 || p.Failing != 100+nodes-1 {
		t.Errorf("%d lag, %d fail", p.Lagging, p.Failing)
	}
	errors := 0
	for _, w := range p.Worst {
		if w.LastError != "" {
			errors++
		} else if w.Lag < 90_000 {
			t.Errorf("publisher with lag %d is shown", w.Lag)
		}
	}
	if errors != worstShown/2 {
		t.Errorf("%d publishers with an error are shown, want %d", errors, worstShown/2)
	}
	code, body := ask(t, a.handler(), http.MethodGet, "/", "pool.example", "")
	if code != http.StatusOK || len(body) > 1<<20 {
		t.Errorf("status %d, %d bytes", code, len(body))
	}
	t.Logf("page of %d bytes", len(body))
	if again := a.pages.pool(true); again != p && time.Since(p.At) < pictureAge {
		t.Error("a second reader has a picture made of his own")
	}
}

// TestAPicturesProgressBeginsWhereTheFreezeDid: what has gone on elsewhere since.
func TestAPicturesProgressBeginsWhereTheFreezeDid(t *testing.T) {
	ot := newOperatorTest(t, Operating{})
	show := func(frozen bool, owned, held int) []string {
		t.Helper()
		f := largeFacts(0, owned+held)
		f.id, f.frozen = ot.x.id, frozen
		for i := range held {
			f.roles[i].Role = admin.RoleHolder
		}
		ot.pool.mu.Lock()
		ot.pool.byID(ot.x.id).facts = f
		ot.pool.noteOutcome(decision{}, time.Now())
		ot.pool.mu.Unlock()
		var out []string
		for _, l := range ot.picture(time.Now()).Leaving {
			out = append(out, fmt.Sprintf("%d of %d, %d of %d, drained %v", l.OwnedDone(), l.OwnedTotal, l.HeldDone(), l.HeldTotal, l.Drained))
		}
		return out
	}
	for _, step := range []struct {
		frozen      bool
		owned, held int
		want        string
	}{
		{false, 10, 5, "[]"}, {true, 10, 5, "[0 of 10, 0 of 15, drained false]"}, {true, 4, 11, "[6 of 10, 0 of 15, drained false]"},
		{true, 0, 15, "[]"}, {false, 0, 15, "[]"}, {true, 1, 14, "[0 of 1, 0 of 15, drained false]"},
	} {
		if got := fmt.Sprint(show(step.frozen, step.owned, step.held)); got != step.want {
			t.Errorf("%+v: %s", step, got)
		}
	}
	if _, err := ot.client.Drain(context.Background(), ot.x.id.String(), Wish{}); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(show(false, 0, 3)); got != "[1 of 1, 12 of 15, drained true]" {
		t.Errorf("drained: %s", got)
	}
}

// TestAViewerSeesThePoolAndCannotAct: with a viewer's token the page has no button that
// can be pressed, and what the buttons of others ask is refused.
func TestAViewerSeesThePoolAndCannotAct(t *testing.T) {
	const viewer = "viewer-0123456789abcdef"
	file := filepath.Join(t.TempDir(), "callers")
	if err := os.WriteFile(file, []byte("viewer eve token="+viewer+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	callers, err := admin.OpenCallers(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	ot := newOperatorTest(t, Operating{Access: admin.Access{Callers: callers}})
	h := ot.operatorHandler()
	code, body := ask(t, h, http.MethodGet, "/", "pool.example", viewer)
	if code != http.StatusOK || !strings.Contains(body, ot.x.id.String()) || buttons(body, ">") != buttons(body, " disabled>") {
		t.Errorf("status %d, %d buttons, %d disabled", code, buttons(body, ">"), buttons(body, " disabled>"))
	}
	if code, _ := ask(t, h, http.MethodPut, freezePath+"?indexer="+ot.x.id.String(), "pool.example", viewer); code != http.StatusForbidden {
		t.Errorf("freeze by a viewer: status %d, want 403", code)
	}
}
