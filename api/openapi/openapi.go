// Package openapi is what Signpost's HTTP APIs are, as a document of OpenAPI 3.1:
// lookups, delegated routing, announces, and what operators and the parts of a pool
// ask of each other. It is one document for all roles; a tag says which listeners
// serve an operation.
//
// Tests hold it against the code: every path that a handler registers is in it, every
// operation in it is answered by the listeners of its tags, and its schemas are those
// of the Go types, which SIGNPOST_GOLDEN=write writes anew.
package openapi

import (
	_ "embed"
	"net/http"

	"github.com/signpost-index/signpost/api"
)

// Path is where the document is served.
const Path = "/openapi.json"

//go:embed openapi.json
var document []byte

// Serve serves the document, to web pages of others too. It is safe for concurrent
// use.
func Serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	if !api.Method(w, r, http.MethodGet) {
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=300")
	api.JSONBytes(w, http.StatusOK, document)
}
