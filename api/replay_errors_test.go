package api_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/find"
)

// checkRefusal compares a find client's error with the recorded status.
func checkRefusal(t *testing.T, e exchange, err error) {
	t.Helper()
	var status *api.StatusError
	switch {
	case e.Status == http.StatusOK:
		if err != nil {
			t.Errorf("error for 200: %v", err)
		}
	case e.Status == http.StatusNotFound && strings.HasPrefix(e.Path, "/multihash/"):
		if err != nil {
			t.Errorf("error for a find that found nothing: %v", err)
		}
	case e.Status == http.StatusNotFound:
		if !errors.Is(err, find.ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
	case !errors.As(err, &status) || status.Status != e.Status:
		t.Errorf("got %v, want a StatusError of %d", err, e.Status)
	case status.Body != strings.TrimSpace(e.ResponseBody):
		t.Errorf("body: got %q, want %q", status.Body, e.ResponseBody)
	}
}
