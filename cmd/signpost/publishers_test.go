package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signpost-index/signpost/api/admin"
)

// serveNode is the admin API of a node that answers publishers as told.
func serveNode(t *testing.T, publishers func() (status int, body string)) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/status":
			fmt.Fprintf(w, `{"ID":%q,"Usage":12.5}`, idA)
		case admin.PublishersPath:
			status, body := publishers()
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		default:
			w.Header().Set(admin.HeaderError, "not-assigner")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// hostileList has a publisher that lags, and one whose texts are made to take
// over a terminal.
func hostileList() (int, string) {
	return http.StatusOK, fmt.Sprintf(`[
		{"ID":%q,"State":"polled","Allowed":true,"LastContact":%q,"LastAd":"baguqeera2ocl5mgh7zoitqrmfykahhhsgsgl7o53oluagt7ffqvaxxrazjiq",
		 "Mark":"x","MarkTime":%q,"Pending":1234,"Lag":"1h0m0s","LastError":"connection refused","LastErrorTime":%q},
		{"ID":%q,"State":"\u001b[31mred\n| all is well |","LastAd":"\u001b\u0007\u202e","LastError":%s,"LastErrorTime":%q}]`,
		idA, stamp(2*time.Hour), stamp(time.Hour), stamp(time.Minute),
		idB, `"\u001b[2J\u009b1m\r\n\u202egnorw `+strings.Repeat("long ", 100)+`"`, stamp(time.Minute))
}

func stamp(before time.Duration) string { return time.Now().Add(-before).Format(time.RFC3339) }

// TestStatusListsTheNodesPublishers: a row for each, and nothing of a node's
// answer but text reaches the terminal.
func TestStatusListsTheNodesPublishers(t *testing.T) {
	url := serveNode(t, hostileList)
	var out, errs bytes.Buffer
	if code := run([]string{"signpost", "status", "--admin", url}, &out, &errs); code != 0 {
		t.Fatalf("status %d: %s", code, errs.String())
	}
	lines := strings.Split(out.String(), "\n")
	for _, want := range [][]string{
		{"indexer " + idA, "active", "12.5 %"},
		{"2 publishers", "1 polled"},
		{idA, "polled", "2 hours ago", "…fqvaxxrazjiq", "1 hour ago", "1,234", "1h0m0s", "1 minute ago: connection refused"},
		{idB, "[31mred", "(not followed)", "never", "gnorw", "long…"},
	} {
		if !hasLine(lines, want) {
			t.Errorf("no line with %q in\n%s", want, out.String())
		}
	}
	for _, r := range out.String() {
		if r < ' ' && r != '\n' || r == 0x7f || r == 0x9b || r == 0x202e {
			t.Errorf("%U is printed", r)
		}
	}
	if n := len(lines); n != 2+2+2+2+1 {
		t.Errorf("%d lines, want one a publisher:\n%s", n, out.String())
	}
}

func hasLine(lines, want []string) bool {
next:
	for _, l := range lines {
		for _, w := range want {
			if !strings.Contains(l, w) {
				continue next
			}
		}
		return true
	}
	return false
}

// TestStatusOfANodeAsJSON: all the node says of its publishers, and no
// provider, as no frontend was named.
func TestStatusOfANodeAsJSON(t *testing.T) {
	url := serveNode(t, hostileList)
	var out, errs bytes.Buffer
	if code := run([]string{"signpost", "status", "--json", "--admin", url}, &out, &errs); code != 0 {
		t.Fatalf("status %d: %s", code, errs.String())
	}
	var got map[string]json.RawMessage
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	var list []admin.Publisher
	if err := json.Unmarshal(got["Publishers"], &list); err != nil || len(list) != 2 || list[0].Pending != 1234 || !strings.Contains(list[1].LastError, "\x1b[2J") {
		t.Errorf("publishers %s, %v", got["Publishers"], err)
	}
	if _, asked := got["Providers"]; asked {
		t.Errorf("providers in %s", out.String())
	}
}

// TestStatusOfANodeThatListsNoPublishers: the reference's, or one that fails.
func TestStatusOfANodeThatListsNoPublishers(t *testing.T) {
	for _, tc := range []struct {
		status, code int
		want         string
	}{
		{http.StatusNotFound, 0, "indexer " + idA},
		{http.StatusInternalServerError, exitFailed, "500"},
	} {
		url := serveNode(t, func() (int, string) { return tc.status, "\x1b[2Jno" })
		var out bytes.Buffer
		if code := run([]string{"signpost", "status", "--admin", url}, &out, &out); code != tc.code || !strings.Contains(out.String(), tc.want) || strings.Contains(out.String(), "\x1b") {
			t.Errorf("%d: status %d, want %d and %q in:\n%q", tc.status, code, tc.code, tc.want, out.String())
		}
	}
}

// TestWatchedPublishersAreShownAtEachChange, and not when only time has passed.
func TestWatchedPublishersAreShownAtEachChange(t *testing.T) {
	const asked = 3 // of the first state, then of the second
	var n atomic.Int64
	contact := stamp(time.Hour)
	url := serveNode(t, func() (int, string) {
		at, state := n.Add(1), "active"
		if at > asked {
			state = "inactive"
		}
		return http.StatusOK, fmt.Sprintf(`[{"ID":%q,"State":%q,"Allowed":true,"LastContact":%q,"Pending":1,"Lag":"%ds"}]`, idB, state, contact, at)
	})
	pr, pw := io.Pipe()
	var shown bytes.Buffer
	stopped := make(chan error, 1)
	app := newApp(pw, io.Discard)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		err := app.RunContext(ctx, []string{"signpost", "status", "--watch", "--admin", url})
		_ = pw.Close()
		stopped <- err
	}()
	b := make([]byte, 4096)
	for !strings.Contains(shown.String(), "1 inactive") {
		k, err := pr.Read(b)
		shown.Write(b[:k])
		if err != nil {
			t.Fatalf("%v after\n%s", err, shown.String())
		}
	}
	cancel()
	_, _ = io.Copy(io.Discard, pr)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if k := strings.Count(shown.String(), "1 active"); k != 1 {
		t.Errorf("the first state is shown %d times, want once:\n%s", k, shown.String())
	}
}
