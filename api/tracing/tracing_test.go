package tracing

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestWithoutAnEndpointNothingIsWrapped(t *testing.T) {
	for _, name := range endpoints {
		t.Setenv(name, "")
	}
	p, err := Open(context.Background(), Config{Service: "test"})
	if err != nil || p != nil || p.Tracers() != nil {
		t.Fatalf("%v, %v: want none", p, err)
	}
	h, hc := http.NewServeMux(), &http.Client{}
	if got := Handler(h, p.Tracers(), true, Lookups); got != http.Handler(h) {
		t.Errorf("the handler is %T", got)
	}
	if Client(hc, p.Tracers()); hc.Transport != nil {
		t.Errorf("the client's transport is %T", hc.Transport)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestAnEndpointIsAURL(t *testing.T) {
	for _, bad := range []string{"collector:4318", "ftp://collector", "http://", "::"} {
		if p, err := Open(context.Background(), Config{Endpoint: bad}); err == nil {
			t.Errorf("%q is taken", bad)
			_ = p.Close()
		}
	}
}

func TestWhatNeverEndsIsNotTraced(t *testing.T) {
	for path, want := range map[string]bool{
		"/cid/bafy": true, "/multihash/Qm": true, "/routing/v1/providers/bafy": true, "/encrypted/cid/bafy": true,
		"/signpost/v1/line": false, "/signpost/v1/keys/tail": false, "/health": false,
	} {
		if got := Lookups(httptest.NewRequest(http.MethodGet, path, nil)); got != want {
			t.Errorf("%s is traced: %v", path, got)
		}
	}
}
