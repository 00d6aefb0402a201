package e2e

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// received is a span as the receiver got it.
type received struct {
	service, name, trace, id, parent string
}

// receiver takes spans by OTLP over HTTP.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	spans []received // guarded by mu
}

func startReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		var batch collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &batch)
		}
		if err != nil || req.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", req.URL.Path, err)
			http.Error(w, "no spans", http.StatusBadRequest)
			return
		}
		r.take(&batch)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) take(batch *collector.ExportTraceServiceRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range batch.ResourceSpans {
		service := ""
		for _, a := range of.Resource.Attributes {
			if a.Key == "service.name" {
				service = a.Value.GetStringValue()
			}
		}
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				r.spans = append(r.spans, received{service, s.Name, hex.EncodeToString(s.TraceId), hex.EncodeToString(s.SpanId), hex.EncodeToString(s.ParentSpanId)})
			}
		}
	}
}

// chainOf returns the trace in which spans follow one another, each the parent of
// the next; a name ends with what is given.
func (r *receiver) chainOf(path ...received) (trace string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, last := range r.spans {
		at, n := last, len(path)-1
		for n >= 0 && at.service == path[n].service && (path[n].name == "" || at.name == path[n].name) {
			if n--; n < 0 {
				return last.trace, nil
			}
			found := false
			for _, s := range r.spans {
				if s.id == at.parent && s.trace == at.trace {
					at, found = s, true
					break
				}
			}
			if !found {
				break
			}
		}
	}
	return "", fmt.Errorf("none among %d spans: %v", len(r.spans), r.spans)
}

// TestALookupAndASyncAreTraced: a lookup is one trace from the frontend to the
// indexer, in spite of the line between them and of what the client says of a trace;
// a sync is one from the session to the ad.
func TestALookupAndASyncAreTraced(t *testing.T) {
	t.Parallel()
	dir, to := workDir(t), startReceiver(t)
	secret := filepath.Join(dir, "secret")
	ix := startIndexer(t, dir, "indexer", "--index-secret", secret, "--trace-endpoint", to.URL)
	fe := spawn(t, dir, "frontend", "frontend", "--listen", anyPort, "--pool", writePool(t, dir, ix), "--index-secret", secret, "--trace-endpoint", to.URL)
	base := fe.ready().HTTP
	c := newChain(t, "is traced")
	mhs := multihashes("is traced", 10)
	c.add("all", mhs)
	c.announce(ix.Ingest)
	untilIndexed(t, ix.Ingest, c.head)

	const theirs = "0af7651916cd43dd8448eb211c80319c"
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/cid/"+raw(mhs[0]).String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("traceparent", "00-"+theirs+"-b7ad6b7169203331-01")
	if a, err := do(req); err != nil || a.status != http.StatusOK {
		t.Fatalf("lookup: %d, %v", a.status, err)
	}
	var lookup, sync string
	eventually(t, "a lookup from the frontend to the indexer", func() (err error) {
		lookup, err = to.chainOf(received{service: "signpost frontend"}, received{service: "signpost frontend"}, received{service: "signpost indexer"})
		return err
	})
	eventually(t, "a sync and its ad", func() (err error) {
		sync, err = to.chainOf(received{service: "signpost indexer", name: "sync"}, received{service: "signpost indexer", name: "apply ad"})
		return err
	})
	if lookup == theirs || lookup == sync {
		t.Errorf("the lookup is in trace %s, the sync in %s, the client said %s: want three", lookup, sync, theirs)
	}
	// What has not been sent is sent at the end.
	before := len(to.all())
	_ = mustGet(t, base+"/cid/"+raw(mhs[1]).String(), "")
	fe.stop()
	if len(to.all()) == before {
		t.Error("the spans of the last lookup are lost")
	}
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.spans
}
