// Package api holds the HTTP manners that every endpoint of Signpost shares:
// how errors and JSON are written, which methods a path takes, how an Accept
// header is read, how an open loopback listener is kept from web pages, how a
// server is run and stopped, and what a client returns for an answer it did
// not want.
//
// It knows nothing of finds, indexers or assignments. What it promises to the
// packages above it:
//
//   - an error body is one line of plain text that no browser will take for
//     something else;
//   - a server started with [Serve] bounds the time, size and number of what
//     strangers send, and is gone when Serve returns;
//   - a client error keeps the URL, the status and the start of the body, as
//     a [*StatusError].
package api

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// Media types of the ecosystem's answers. MediaJSON is what Accept headers
// name; answers add the charset, as the reference does.
const (
	MediaJSON   = "application/json"
	MediaNDJSON = "application/x-ndjson"

	contentTypeJSON = "application/json; charset=utf-8"
)

// typeJSON is shared by all answers: nobody adds to it.
var typeJSON = []string{contentTypeJSON}

// Error writes status with text and a newline as text/plain, with the header
// that keeps browsers from guessing another type. An empty text gives a body
// of one newline, as the reference does where it has nothing to say.
func Error(w http.ResponseWriter, status int, text string) {
	// As http.Error does, for less: nearly all lookups of what nobody has end here.
	h := w.Header()
	delete(h, "Content-Length")
	h["Content-Type"], h["X-Content-Type-Options"] = typeText, noSniff
	w.WriteHeader(status)
	_, _ = w.Write(append(append(make([]byte, 0, 64), text...), '\n'))
}

var (
	typeText = []string{"text/plain; charset=utf-8"}
	noSniff  = []string{"nosniff"}
)

// JSON writes v as the whole answer, without a trailing newline, as the
// reference does. A v that cannot be marshalled is a 500; nothing of it has
// been sent then.
func JSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		Error(w, http.StatusInternalServerError, "")
		return
	}
	JSONBytes(w, status, body)
}

// JSONBytes writes body, which is JSON already, as the whole answer. A status
// that allows no body (204) is sent without one.
func JSONBytes(w http.ResponseWriter, status int, body []byte) {
	w.Header()["Content-Type"] = typeJSON
	w.WriteHeader(status)
	if status == http.StatusNoContent {
		return
	}
	// An error here means that the client has gone; there is no one to tell.
	_, _ = w.Write(body)
}

// Below gives what is at path, or below it if it ends in a slash, to under, and
// everything else to rest. It costs less than a ServeMux in front of another, which
// each lookup would pass; under and rest have their own.
func Below(path string, under, rest http.Handler) http.Handler {
	tree := strings.HasSuffix(path, "/")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.URL.Path; p == path || tree && strings.HasPrefix(p, path) {
			under.ServeHTTP(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}

// Method reports whether the request's method is one of allowed. If it is not,
// the answer has been written: OPTIONS is 200 and anything else 405, both with
// an Allow header and a body of one newline. A HEAD request is served only if
// HEAD is among allowed.
func Method(w http.ResponseWriter, r *http.Request, allowed ...string) bool {
	if slices.Contains(allowed, r.Method) {
		return true
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	status := http.StatusMethodNotAllowed
	if r.Method == http.MethodOptions {
		status = http.StatusOK
	}
	Error(w, status, "")
	return false
}
