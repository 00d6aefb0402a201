package admin

import (
	"encoding/json"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/signpost-index/signpost/api/openapi"
)

// TestDocumentNamesEachKindOfError: who reads the OpenAPI document knows what
// X-Signpost-Error may be.
func TestDocumentNamesEachKindOfError(t *testing.T) {
	w := httptest.NewRecorder()
	openapi.Serve(w, httptest.NewRequest("GET", openapi.Path, nil))
	var doc struct {
		Components struct {
			Headers map[string]struct {
				Schema struct{ Enum []string }
			}
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, k := range kinds {
		want = append(want, k.name)
	}
	if got := doc.Components.Headers[HeaderError].Schema.Enum; !slices.Equal(got, want) {
		t.Errorf("documented are %v, want %v", got, want)
	}
}
