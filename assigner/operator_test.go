package assigner

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
)

// thawing is a fake that can be frozen and unfrozen.
type thawing struct{ *fakeIndexer }

func (f thawing) Freeze(context.Context) error {
	f.set(func() { f.frozen = true })
	return nil
}

func (f thawing) Unfreeze(context.Context) error {
	f.set(func() { f.frozen = false })
	return nil
}

func (f thawing) Node(context.Context) (admin.NodeStatus, error) {
	return admin.NodeStatus{}, errNotUsed
}

// operatorTest is an assigner that does not run, over two indexers it has read, X
// with a publisher and Y without one, and a third it has not.
type operatorTest struct {
	*Assigner
	client *Client
	x, y   thawing
	p      peer.ID
}

func newOperatorTest(t *testing.T, o Operating) *operatorTest {
	t.Helper()
	ot := &operatorTest{x: thawing{newFake(realID(t, 1))}, y: thawing{newFake(realID(t, 2))}, p: realID(t, 11)}
	cfg := Config{Listener: newIdleListener(), Replication: 2, Operating: o, Logger: slog.New(slog.DiscardHandler), ReadToken: admin.ReadTokenFile}
	if o.PoolFile == "" {
		for _, name := range []string{"x", "y", "z"} {
			cfg.Members = append(cfg.Members, admin.PoolMember{Find: url("find", name), Ingest: url("ingest", name), Admin: url("admin", name)})
		}
	}
	fakes := map[string]client{url("admin", "x"): ot.x, url("admin", "y"): ot.y}
	var err error
	ot.Assigner, err = open(cfg, links{connect: func(m admin.PoolMember, _ string) (client, error) {
		if f := fakes[m.Admin]; f != nil {
			return f, nil
		}
		return newFake("Z"), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ot.Close)
	for _, n := range ot.pool.starting() {
		var f *facts
		switch n.indexer {
		case client(ot.x):
			f = plainFacts(admin.Status{ID: ot.x.id}, []admin.Assignment{{Publisher: ot.p}})
		case client(ot.y):
			f = plainFacts(admin.Status{ID: ot.y.id}, nil)
		default:
			continue
		}
		look, _, _, _ := ot.pool.startLook(n)
		ot.pool.finishLook(n, look, f, nil, time.Now())
	}
	srv := httptest.NewServer(ot.operatorHandler())
	t.Cleanup(srv.Close)
	if ot.client, err = NewClient(srv.URL, srv.Client(), o.Access.Token); err != nil {
		t.Fatal(err)
	}
	return ot
}

// hosts are those of the pool's members.
func (ot *operatorTest) hosts() string {
	members, _, _ := ot.pool.members(time.Now())
	var hosts []string
	for _, m := range members {
		hosts = append(hosts, strings.TrimPrefix(adminHost(m.Admin), "admin."))
	}
	return strings.Join(hosts, " ")
}

// TestTheOperatorsWishesAreKept, over HTTP and in the file, and each is an event.
func TestTheOperatorsWishesAreKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "intents")
	ot := newOperatorTest(t, Operating{IntentsFile: file})
	ctx, c := t.Context(), ot.client
	x, y := ot.x.id.String(), ot.y.id.String()
	why := Wish{By: "root", Reason: "disk is dying"}
	for _, step := range []struct {
		name string
		do   func() (Done, error)
		says string // in the answer
	}{
		{"drain", func() (Done, error) { return c.Drain(ctx, x, why) }, "indexer " + x + " is drained of its 1 publishers"},
		{"drain by URL", func() (Done, error) { return c.Drain(ctx, url("admin", "y"), why) }, "indexer " + y},
		{"undrain", func() (Done, error) { return c.Undrain(ctx, y, why) }, "takes publishers again"},
		{"replication", func() (Done, error) { return c.SetReplication(ctx, ot.p, 3, why) }, "3 copies"},
		{"move", func() (Done, error) { return c.Move(ctx, ot.p, x, y, why) }, "moves from " + x + " to " + y},
		{"deny all", func() (Done, error) { return c.SetAllowed(ctx, "", false, why) }, "all publishers are refused"},
		{"allow one", func() (Done, error) { return c.SetAllowed(ctx, ot.p, true, why) }, "are taken"},
		{"no rebalance", func() (Done, error) { return c.SetRebalance(ctx, false, why) }, "no longer moved"},
		{"add", func() (Done, error) { return c.Add(ctx, poolLine(t, "find=h:1 ingest=h:2 admin=h:3"), why) }, "added to the pool: find=http://h:1"},
		{"remove", func() (Done, error) { return c.Remove(ctx, y, false, why) }, y + " at http://admin.y is removed"},
	} {
		done, err := step.do()
		if err != nil || !strings.Contains(done.Text, step.says) || done.Note != "" {
			t.Errorf("%s: %+v, %v", step.name, done, err)
		}
	}
	if got := ot.hosts(); got != "x z h" {
		t.Errorf("pool %q, want x z h", got)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"add find=http://h:1", "remove admin=http://admin.y indexer=" + y, "drain " + x + " since=", `by="root" reason="disk is dying"`,
		"replication " + ot.p.String() + " 3", "pin " + ot.p.String() + " " + y, "policy deny\nexcept " + ot.p.String(), "rebalance off",
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in\n%s", want, b)
		}
	}
	if page, err := c.Intents(ctx); err != nil || !page.Kept || string(page.Intents.text()) != string(b) {
		t.Errorf("intents %s, %v; want those of the file\n%s", page.Intents.text(), err, b)
	}
	page, err := c.Events(ctx, EventQuery{Indexer: ot.x.id, Publisher: ot.p})
	if err != nil || len(page.Events) != 1 || page.Events[0].Kind != EventOperator || !strings.Contains(page.Events[0].Text, "(root: disk is dying)") {
		t.Errorf("events of the move: %+v, %v", page, err)
	}
	again := newOperatorTest(t, Operating{IntentsFile: file})
	if got := again.hosts(); got != "x z h" {
		t.Errorf("pool %q after a restart, want x z h", got)
	}
}

func TestWithoutAFileTheAnswerSaysThatAWishIsNotKept(t *testing.T) {
	ot := newOperatorTest(t, Operating{})
	done, err := ot.client.SetRebalance(t.Context(), false, Wish{})
	if err != nil || done.Note != notKept || !ot.intents.Current().NoRebalance {
		t.Errorf("%+v, %v", done, err)
	}
	if page, err := ot.client.Intents(t.Context()); err != nil || page.Kept {
		t.Errorf("%+v, %v", page, err)
	}
}

func TestFreezingGoesToTheIndexerNamed(t *testing.T) {
	ot := newOperatorTest(t, Operating{})
	if done, err := ot.client.Freeze(t.Context(), ot.x.id.String(), Wish{}); err != nil || !ot.x.frozen || ot.y.frozen || done.Note != "" {
		t.Errorf("%+v, %v", done, err)
	}
	if _, err := ot.client.Unfreeze(t.Context(), url("admin", "x")+"/", Wish{}); err != nil || ot.x.frozen {
		t.Errorf("unfreeze: %v", err)
	}
	_, err := ot.client.Unfreeze(t.Context(), url("admin", "z"), Wish{})
	if !errors.Is(err, admin.ErrNotSupported) {
		t.Errorf("an indexer that cannot: %v", err)
	}
	page, err := ot.client.Events(t.Context(), EventQuery{Limit: 1})
	if err != nil || len(page.Events) != 1 || page.Events[0].Error == "" {
		t.Errorf("the failure is no event: %+v, %v", page, err)
	}
}

// TestRemovalIsRefusedWhereItWouldDoHarm, and a dry run changes nothing.
func TestRemovalIsRefusedWhereItWouldDoHarm(t *testing.T) {
	ot := newOperatorTest(t, Operating{})
	for _, dry := range []bool{true, false} {
		if _, err := ot.client.Remove(t.Context(), ot.x.id.String(), dry, Wish{}); !errors.Is(err, admin.ErrRefused) || !strings.Contains(err.Error(), "drain it first") {
			t.Errorf("dry %v: %v", dry, err)
		}
	}
	if done, err := ot.client.Remove(t.Context(), ot.y.id.String(), true, Wish{}); err != nil || !done.DryRun || ot.hosts() != "x y z" || len(ot.intents.Current().Removed) > 0 {
		t.Errorf("%+v, %v, pool %s", done, err, ot.hosts())
	}
	for _, n := range ot.pool.nodes {
		if n.member.Admin == url("admin", "x") {
			look, _, _, _ := ot.pool.startLook(n)
			ot.pool.finishLook(n, look, nil, admin.ErrUnavailable, time.Now().Add(-time.Hour)) // so it is lost
		}
	}
	if done, err := ot.client.Remove(t.Context(), ot.x.id.String(), false, Wish{}); err != nil || !strings.Contains(done.Note, "had 1 publishers") || ot.hosts() != "y z" {
		t.Errorf("one that is lost: %+v, %v, pool %s", done, err, ot.hosts())
	}
}

// TestANameIsAddedAndRemoved by the operator.
func TestANameIsAddedAndRemoved(t *testing.T) {
	ot := newOperatorTest(t, Operating{})
	l := poolLine(t, "dns=p.example find-port=1 ingest-port=2 admin-port=3")
	if _, err := ot.client.Add(t.Context(), l, Wish{}); err != nil {
		t.Fatal(err)
	}
	if ot.roster.absent(time.Now(), time.Minute) != 1 {
		t.Error("the name is not waited for")
	}
	if _, err := ot.client.Remove(t.Context(), "p.example", false, Wish{}); err != nil || len(ot.intents.Current().Added) > 0 {
		t.Errorf("%v, %v", ot.intents.Current().Added, err)
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, strings.Repeat("s", 40))
	pool := filepath.Join(dir, "pool")
	writeFile(t, pool, "find=find.x ingest=ingest.x admin=admin.x\nfind=find.y ingest=ingest.y admin=admin.y\nfind=find.z ingest=ingest.z admin=admin.z\n")
	ot := newOperatorTest(t, Operating{PoolFile: pool})
	x, p := ot.x.id.String(), ot.p.String()
	for _, test := range []struct {
		method, path, body string
		status             int
	}{
		{http.MethodPost, membersPath, "", 400},
		{http.MethodPost, membersPath, "find=a:1", 400},
		{http.MethodPost, membersPath, "find=a:1 ingest=a:2 admin=a:3\nfind=b:1 ingest=b:2 admin=b:3", 400},
		{http.MethodPost, membersPath, strings.Repeat("x", maxIntentsLine+1), 400},
		{http.MethodPost, membersPath, "find=a:1 ingest=a:2 admin=admin.x", 409},
		{http.MethodPost, membersPath, "find=u:p@a:1 ingest=a:2 admin=a:3", 400},
		{http.MethodPost, membersPath, "find=a:1 ingest=a:2 admin=a:3 token-file=" + secret, 403},
		{http.MethodPost, membersPath, "find=a:1 ingest=a:2 admin=a:3 token-file=pool", 403},
		{http.MethodPost, membersPath, "find=a:1 ingest=a:2 admin=a:3 token-file=" + dir + "/../" + filepath.Base(filepath.Dir(secret)) + "/secret", 403},
		{http.MethodPost, membersPath, "find=a:1 ingest=a:2 admin=a:3 token-file=" + filepath.Join(dir, "none"), 400},
		{http.MethodDelete, membersPath + "?indexer=nobody", "", 404},
		{http.MethodDelete, membersPath, "", 400},
		{http.MethodDelete, membersPath + "?dry-run=perhaps&indexer=" + x, "", 400},
		{http.MethodPut, drainPath, "", 400},
		{http.MethodPut, drainPath + "?indexer=http://admin.z", "", 502},
		{http.MethodDelete, drainPath + "?indexer=" + x, "", 404},
		{http.MethodPut, freezePath + "?indexer=" + p, "", 404},
		{http.MethodPut, replicationPath + "?publisher=" + p, "", 400},
		{http.MethodPut, replicationPath + "?publisher=nobody&copies=1", "", 400},
		{http.MethodPut, replicationPath + "?copies=1000&publisher=" + p, "", 400},
		{http.MethodPut, pinPath + "?publisher=" + p + "&indexer=nobody", "", 404},
		{http.MethodPut, pinPath + "?publisher=" + p + "&from=" + x, "", 400},
		{http.MethodPut, pinPath + "?publisher=" + p + "&from=" + x + "&indexer=" + x, "", 400},
		{http.MethodPut, pinPath + "?publisher=" + p + "&from=" + ot.y.id.String() + "&indexer=" + x, "", 404},
		{http.MethodPut, policyPath, "", 400},
		{http.MethodPut, policyPath + "?allow=all&deny=all", "", 400},
		{http.MethodPut, policyPath + "?deny=nobody", "", 400},
		{http.MethodPut, rebalancePath, "", 400},
		{http.MethodPost, rebalancePath + "?on=true", "", 405},
		{http.MethodGet, EventsPath + "?since=-1", "", 400},
		{http.MethodGet, EventsPath + "?publisher=nobody", "", 400},
		{http.MethodGet, membersPath, "", 405},
		{http.MethodPut, "/announce", "", 404},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(test.method, "http://127.0.0.1"+test.path, strings.NewReader(test.body))
		ot.operatorHandler().ServeHTTP(w, r)
		if w.Code != test.status {
			t.Errorf("%s %s %.60s: %d %s, want %d", test.method, test.path, test.body, w.Code, w.Body, test.status)
		}
	}
	if diff := len(ot.intents.Current().text()) - len(Intents{}.text()); diff != 0 {
		t.Errorf("something was wished: %s", ot.intents.Current().text())
	}
	if ot.hosts() != "x y z" {
		t.Errorf("pool %s", ot.hosts())
	}
}

// TestTheOperatorsAPIIsGuarded: by the token, or else against web pages, and it is
// not at the public listener.
func TestTheOperatorsAPIIsGuarded(t *testing.T) {
	ot := newOperatorTest(t, Operating{Access: admin.Access{Token: "a token of some length"}})
	if _, err := ot.client.Intents(t.Context()); err != nil {
		t.Errorf("with the token: %v", err)
	}
	stranger, err := NewClient(ot.client.String(), ot.client.http, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Drain(t.Context(), ot.x.id.String(), Wish{}); !errors.Is(err, admin.ErrUnauthorized) {
		t.Errorf("without the token: %v", err)
	}
	open := newOperatorTest(t, Operating{})
	r := httptest.NewRequest(http.MethodPut, "http://evil.example"+rebalancePath+"?on=false", nil)
	w := httptest.NewRecorder()
	if open.operatorHandler().ServeHTTP(w, r); w.Code != http.StatusForbidden {
		t.Errorf("from elsewhere: %d", w.Code)
	}
	r = httptest.NewRequest(http.MethodPut, "http://127.0.0.1"+rebalancePath+"?on=false", nil)
	w = httptest.NewRecorder()
	if open.handler().ServeHTTP(w, r); w.Code != http.StatusNotFound {
		t.Errorf("at the public listener: %d", w.Code)
	}
	var status *api.StatusError
	if _, err := open.client.Remove(t.Context(), "nobody", false, Wish{}); !errors.As(err, &status) || !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("the client's error: %v", err)
	}
}
