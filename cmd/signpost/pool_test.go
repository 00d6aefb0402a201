package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signpost-index/signpost/assigner"
)

// servePool is the admin API of an assigner that answers as told, and notes what
// it was asked to do.
func servePool(t *testing.T, answers map[string]string) (url string, asked *[]string) {
	t.Helper()
	asked = new([]string)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		q := r.URL.Query()
		q.Del("by") // of whoever runs the test
		*asked = append(*asked, strings.TrimSpace(fmt.Sprintf("%s %s?%s %s", r.Method, strings.TrimPrefix(r.URL.Path, "/signpost/v1/"), q.Encode(), body)))
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, asked
}

func TestPoolCommandsAskTheAssigner(t *testing.T) {
	done := `{"Text":"done","Note":"not kept: no --intents file"}`
	answers := make(map[string]string)
	for _, path := range strings.Fields("members drain freeze unfreeze replication pin policy rebalance tasks") {
		answers["/signpost/v1/pool/"+path] = done
	}
	url, asked := servePool(t, answers)
	for _, tc := range []struct{ args, want string }{
		{"add find=a:1 ingest=a:2 admin=a:3 standby", "POST pool/members? find=http://a:1 ingest=http://a:2 admin=http://a:3 standby"},
		{"remove " + idA + " --dry-run", "DELETE pool/members?dry-run=true&indexer=" + idA},
		{"remove http://a:3", "DELETE pool/members?indexer=http%3A%2F%2Fa%3A3"},
		{"drain " + idA + " --reason dying", "PUT pool/drain?indexer=" + idA + "&reason=dying"},
		{"undrain " + idA, "DELETE pool/drain?indexer=" + idA},
		{"freeze " + idA, "PUT pool/freeze?indexer=" + idA},
		{"unfreeze " + idA, "PUT pool/unfreeze?indexer=" + idA},
		{"replication " + idA + " 3", "PUT pool/replication?copies=3&publisher=" + idA},
		{"assign " + idA + " " + idB, "PUT pool/pin?indexer=" + idB + "&publisher=" + idA},
		{"assign " + idA, "PUT pool/pin?indexer=&publisher=" + idA},
		{"move " + idA + " " + idB + " http://a:3", "PUT pool/pin?from=" + idB + "&indexer=http%3A%2F%2Fa%3A3&publisher=" + idA},
		{"allow " + idA, "PUT pool/policy?allow=" + idA},
		{"deny all", "PUT pool/policy?deny=all"},
		{"rebalance off", "PUT pool/rebalance?on=false"},
		{"reindex --detach --then-mark-whole --reason damage " + idA + " " + idB,
			"POST pool/tasks?back-within=4m0s&indexer=" + idA + "%2C" + idB + "&kind=reindex&mark-whole=true&reason=damage"},
		{"reindex --detach", "POST pool/tasks?back-within=4m0s&indexer=&kind=reindex&mark-whole=false"},
		{"tasks pause upgrade-1", "PUT pool/tasks?do=pause&id=upgrade-1&indexer="},
		{"tasks skip upgrade-1 " + idA + " --reason old", "PUT pool/tasks?do=skip&id=upgrade-1&indexer=" + idA + "&reason=old"},
		{"tasks retry upgrade-1", "PUT pool/tasks?do=retry&id=upgrade-1&indexer="},
		{"tasks end upgrade-1", "PUT pool/tasks?do=end&id=upgrade-1&indexer="},
	} {
		*asked = nil
		var out, errs bytes.Buffer
		code := run(append([]string{"signpost", "pool"}, append(strings.Fields(tc.args), "--admin", url)...), &out, &errs)
		if got := strings.Join(*asked, "\n"); code != 0 || got != tc.want {
			t.Errorf("%s: status %d, asked %q, want %q", tc.args, code, got, tc.want)
		}
		if errs.String() != "done (not kept: no --intents file)\n" || out.Len() > 0 {
			t.Errorf("%s: prints %q and %q", tc.args, out.String(), errs.String())
		}
	}
}

// TestPoolListShowsMembersAndWishes, and no text of an answer reaches the terminal
// as anything but text.
func TestPoolListShowsMembersAndWishes(t *testing.T) {
	url, _ := servePool(t, map[string]string{
		"/signpost/v1/pool": fmt.Sprintf(`{"Members":[
			{"ID":%q,"Admin":"http://a:3","State":"draining","Publishers":1300,"Owned":1234,"Usage":12.5,"FreezeSeconds":90,"MultihashesPerSecond":1500000,"PendingAds":7,"LostShare":0.031},
			{"Admin":"http://b:3","State":"\u001b[31munknown","Usage":-1,"Error":"connection refused\u001b[2J"}],"Publishers":1234,"Unplaced":7}`, idA),
		"/signpost/v1/intents": fmt.Sprintf(`{"Kept":false,"Intents":{"Added":["find=http://c:1 ingest=http://c:2 admin=http://c:3"],
			"Drains":[{"Indexer":%q,"Since":%q,"By":"root","Reason":"disk\u001b is dying"}],"Copies":[{"Publisher":%q,"Copies":3}],
			"Pins":[{"Publisher":%q,"Indexers":[%q]}],"Policy":{"Deny":true,"Except":[%q]},"NoRebalance":true}}`, idA, stamp(time.Hour), idB, idB, idA, idB),
	})
	var out, errs bytes.Buffer
	if code := run([]string{"signpost", "pool", "list", "--admin", url}, &out, &errs); code != 0 {
		t.Fatalf("status %d: %s", code, errs.String())
	}
	lines := strings.Split(out.String(), "\n")
	for _, want := range [][]string{
		{"2 indexers", "1,234 publishers", "7 that no indexer has"},
		{idA, "http://a:3", "draining", "1,234", "66", "1.5 M", "7", "12.5 %", "1m30s", "3.1 % of its postings may be lost"},
		{"(not read yet)", "http://b:3", "unknown", "connection refused"},
		{"added", "admin=http://c:3"},
		{"draining", idA + ", 1 hour ago by root: disk  is dying"},
		{"copies", idB + " has 3"}, {"assigned", idB + " to " + idA}, {"policy", "refused"}, {"policy", "but not " + idB}, {"rebalance", "off"},
		{"no --intents file"},
	} {
		if !hasLine(lines, want) {
			t.Errorf("no line with %q in\n%s", want, out.String())
		}
	}
	if strings.ContainsRune(out.String(), 0x1b) {
		t.Error("an escape is printed")
	}
}

func TestPoolEventsAreLines(t *testing.T) {
	url, asked := servePool(t, map[string]string{"/signpost/v1/events": fmt.Sprintf(`{"Newest":9,"Events":[
		{"Seq":8,"Time":"2026-11-27T03:00:00Z","Kind":"operator","Indexer":%q,"Text":"indexer %s is drained"},
		{"Seq":9,"Time":"2026-11-27T03:00:05Z","Kind":"move","Publisher":%q,"From":%q,"Error":"no\nroute\u001b"}]}`, idA, idA, idB, idA)})
	var out, errs bytes.Buffer
	if code := run([]string{"signpost", "pool", "events", "--since", "7", "--publisher", idB, "--admin", url}, &out, &errs); code != 0 {
		t.Fatalf("status %d: %s", code, errs.String())
	}
	want := "8  2026-11-27T03:00:00Z  operator  indexer " + idA + " is drained\n" +
		"9  2026-11-27T03:00:05Z  move      publisher " + idB + ", from " + idA + ", failed: no route\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	if got := (*asked)[0]; got != "GET events?limit=50&publisher="+idB+"&since=7" {
		t.Errorf("asked %s", got)
	}
}

// TestAPoolChangesWhileItRuns: a line added to the file, and one by the operator,
// with the daemon's own flags and no signal; the wish is there after a restart.
func TestAPoolChangesWhileItRuns(t *testing.T) {
	dir := t.TempDir()
	file, intents := filepath.Join(dir, "pool"), filepath.Join(dir, "intents")
	first := "find=127.0.0.1:1 ingest=127.0.0.1:2 admin=127.0.0.1:3\n"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(first)
	start := func() (url string, stop func()) {
		pr, pw := io.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			err := newApp(pw, io.Discard).RunContext(ctx, []string{"signpost", "assigner", "--pool", file, "--intents", intents,
				"--events", filepath.Join(dir, "events"), "--listen", "127.0.0.1:0", "--listen-admin", "127.0.0.1:0", "--listen-p2p", "none"})
			_ = pw.CloseWithError(io.EOF)
			ended <- err
		}()
		var ready readyLine
		if err := json.NewDecoder(pr).Decode(&ready); err != nil {
			t.Fatalf("%v: %v", err, <-ended)
		}
		return ready.Admin, func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	members := func(url string) int {
		t.Helper()
		var out, errs bytes.Buffer
		if code := run([]string{"signpost", "pool", "list", "--json", "--admin", url}, &out, &errs); code != 0 {
			t.Fatal(errs.String())
		}
		var l poolList
		if err := json.Unmarshal(out.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		return len(l.Pool.Members)
	}
	url, stop := start()
	if n := members(url); n != 1 {
		t.Errorf("%d members, want 1", n)
	}
	var out, errs bytes.Buffer
	if code := run([]string{"signpost", "pool", "add", "find=127.0.0.1:4", "ingest=127.0.0.1:5", "admin=127.0.0.1:6", "--admin", url}, &out, &errs); code != 0 {
		t.Fatal(errs.String())
	}
	if n := members(url); n != 2 {
		t.Errorf("%d members after one was added, want 2", n)
	}
	client, err := assigner.NewClient(url, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	write(first + "find=127.0.0.1:7 ingest=127.0.0.1:8 admin=127.0.0.1:9\n")
	deadline, tick := time.After(20*time.Second), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for members(url) != 3 {
		select {
		case <-tick.C:
		case <-deadline:
			page, err := client.Events(t.Context(), assigner.EventQuery{})
			t.Fatalf("the file's new line is not in the pool: %+v, %v", page, err)
		}
	}
	stop()
	url, stop = start()
	defer stop()
	if n := members(url); n != 3 {
		t.Errorf("%d members after a restart, want 3", n)
	}
}
