package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
)

// TestAServerThatDrainsAnswersAndSaysSo: it takes new connections and requests on
// old ones, which know that it is draining and are the last of theirs.
func TestAServerThatDrainsAnswersAndSaysSo(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	draining, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- ServeDraining(ctx, draining, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if Draining(r.Context()) {
				_, _ = io.WriteString(w, "leave")
			}
		}), nil)
	}()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	get := func() (text string, last bool) {
		t.Helper()
		resp, err := client.Get("http://" + ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body), resp.Close
	}
	if text, last := get(); text != "" || last {
		t.Errorf("before it drains: %q, closed %v", text, last)
	}
	close(draining)
	for range 2 { // on the old connection, and on a new one
		if text, last := get(); text != "leave" || !last {
			t.Errorf("while it drains: %q, closed %v", text, last)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := client.Get("http://" + ln.Addr().String()); err == nil {
		t.Error("the listener is open after the end")
	}
}

func TestARequestOfNoServerIsNotDraining(t *testing.T) {
	if Draining(t.Context()) {
		t.Error("it is")
	}
}
