package openapi_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"go.uber.org/goleak"

	"github.com/signpost-index/signpost/api/openapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// document is what is served.
var document = func() []byte {
	w := httptest.NewRecorder()
	openapi.Serve(w, httptest.NewRequest("GET", openapi.Path, nil))
	return w.Body.Bytes()
}()

// load reads the document as its readers do.
func load(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(document)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// operation is one of the document.
type operation struct {
	method, path string
	*openapi3.Operation
}

// operations are those of doc, by path and method.
func operations(doc *openapi3.T) (all []operation) {
	for _, path := range slices.Sorted(maps.Keys(doc.Paths.Map())) {
		byMethod := doc.Paths.Value(path).Operations()
		for _, method := range slices.Sorted(maps.Keys(byMethod)) {
			all = append(all, operation{method, path, byMethod[method]})
		}
	}
	return all
}

// TestDocumentIsSound: it is valid OpenAPI 3.1, an operation has tags that are
// explained, and whatever is defined for use is used.
func TestDocumentIsSound(t *testing.T) {
	doc := load(t)
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	for _, op := range operations(doc) {
		if len(op.Tags) == 0 || op.Summary == "" {
			t.Errorf("%s %s: no tags, or no summary", op.method, op.path)
		}
		for _, tag := range op.Tags {
			if doc.Tags.Get(tag) == nil {
				t.Errorf("%s %s: tag %q is not explained", op.method, op.path, tag)
			}
		}
	}
	var parts struct{ Components map[string]map[string]any }
	if err := json.Unmarshal(document, &parts); err != nil {
		t.Fatal(err)
	}
	for kind, named := range parts.Components {
		for name := range named {
			if kind != "securitySchemes" && !bytes.Contains(document, []byte(`"#/components/`+kind+"/"+name+`"`)) {
				t.Errorf("nothing refers to %s %s", kind, name)
			}
		}
	}
}

// TestServedToAnyPage: readable across origins; nothing else is done there.
func TestServedToAnyPage(t *testing.T) {
	for method, status := range map[string]int{"GET": 200, "OPTIONS": 200, "PUT": 405} {
		w := httptest.NewRecorder()
		openapi.Serve(w, httptest.NewRequest(method, openapi.Path, nil))
		if w.Code != status || w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %d, %v", method, w.Code, w.Header())
		}
	}
}
