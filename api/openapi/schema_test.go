package openapi_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
	"github.com/signpost-index/signpost/api/find"
	"github.com/signpost-index/signpost/api/health"
	"github.com/signpost-index/signpost/assigner"
	"github.com/signpost-index/signpost/ingest"
	"github.com/signpost-index/signpost/ingest/ipnisync"
)

// typed are the Go types that cross the wire as encoding/json writes them. The
// schemas of these, and of what they are made of, are named package.Type.
var typed = []any{
	admin.Status{}, admin.Assignment{}, admin.Handoff{}, admin.NodeStatus{}, admin.StoreStatus{}, admin.Reindexed{}, admin.Policy{},
	admin.Publisher{}, admin.Polling{}, admin.Progress{}, admin.Checkpoint{}, admin.Roles{}, admin.Offer{}, admin.TakeOver{},
	admin.Outcome{}, admin.PoolMap{}, admin.Coverage{}, admin.Telemetry{},
	assigner.PoolPage{}, assigner.Placement{}, assigner.Done{}, assigner.PlanPage{}, assigner.Explanation{}, assigner.IntentsPage{}, assigner.EventPage{}, assigner.PoolCoverage{}, assigner.TasksPage{},
	find.Stats{}, health.Report{}, ingest.SyncStatus{}, ipnisync.Verdict{},
}

// schemas collects the schemas of types by name.
type schemas map[string]any

// of is the schema of t, or a reference to it.
func (s schemas) of(t reflect.Type) map[string]any {
	switch t {
	case reflect.TypeFor[peer.ID](), reflect.TypeFor[admin.Duration]():
		return map[string]any{"type": "string"}
	case reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case reflect.TypeFor[json.RawMessage]():
		return map[string]any{}
	case reflect.TypeFor[[]byte]():
		return map[string]any{"type": []any{"string", "null"}, "contentEncoding": "base64"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Slice:
		return map[string]any{"type": []any{"array", "null"}, "items": s.of(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": []any{"object", "null"}, "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		name := path.Base(t.PkgPath()) + "." + t.Name()
		if _, known := s[name]; !known {
			object := map[string]any{"type": "object"}
			s[name] = object
			s.fields(t, object)
		}
		return map[string]any{"$ref": "#/components/schemas/" + name}
	}
	return map[string]any{"type": "integer"}
}

// fields adds those of t to object, in which embedded ones are its own.
func (s schemas) fields(t reflect.Type, object map[string]any) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			s.fields(f.Type, object)
			continue
		case !f.IsExported() || name == "-":
			continue
		case name == "":
			name = f.Name
		}
		properties, _ := object["properties"].(map[string]any)
		if properties == nil {
			properties = make(map[string]any)
			object["properties"] = properties
		}
		properties[name] = s.of(f.Type)
		// The end of a job that runs is left out by its MarshalJSON.
		if !strings.Contains(options, "omit") && t != reflect.TypeFor[admin.StoreJob]() {
			required, _ := object["required"].([]any)
			object["required"] = append(required, name)
		}
	}
}

// TestSchemasAreTheGoTypes: what an answer has in the document is what its type has.
func TestSchemasAreTheGoTypes(t *testing.T) {
	want := make(schemas)
	for _, v := range typed {
		want.of(reflect.TypeOf(v))
	}
	var doc map[string]any
	if err := json.Unmarshal(document, &doc); err != nil {
		t.Fatal(err)
	}
	all := doc["components"].(map[string]any)["schemas"].(map[string]any)
	got := make(map[string]any)
	for name, schema := range all {
		if strings.Contains(name, ".") {
			got[name] = schema
			delete(all, name)
		}
	}
	if os.Getenv("SIGNPOST_GOLDEN") != "write" {
		if diff := cmp.Diff(map[string]any(want), got); diff != "" {
			t.Errorf("SIGNPOST_GOLDEN=write writes them anew:\n%s", diff)
		}
		return
	}
	for name, schema := range want {
		all[name] = schema
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(doc); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("openapi.json", b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
