package find

import (
	"cmp"
	"net/http"
	"strings"

	"github.com/signpost-index/signpost/api"
)

// HeaderDenied is the header of a 410 that says what kind of entry of a denylist
// is the reason. As the trailer of a stream that had begun when a denial came, it
// has the reason after the kind.
const HeaderDenied = "X-Signpost-Denied"

// cacheDenied is short: a denylist is changed while it is in force.
const cacheDenied = "public, max-age=60"

// DenyKind is what an entry of a denylist names.
type DenyKind string

// The kinds of entries.
const (
	DenyMultihash  DenyKind = "multihash"
	DenyDoubleHash DenyKind = "double-hash"
	DenyProvider   DenyKind = "provider"
	DenyContext    DenyKind = "context"
)

// DeniedError says that a question is not answered, as a denylist forbids it. It
// is an answer and not a failure.
type DeniedError struct {
	Kind DenyKind
	// Reason is for the reader: one line, empty if none is given.
	Reason string
}

// Error has the reason.
func (e *DeniedError) Error() string {
	if e.Reason == "" {
		return "denied"
	}
	return "denied: " + e.Reason
}

// Whole tells whether what was asked for is denied itself, and so whatever is known
// of it, here and elsewhere. If not, all that is known here is of denied providers
// or contexts, and others may know more.
func (e *DeniedError) Whole() bool { return e.Kind != DenyProvider && e.Kind != DenyContext }

// Answer writes the 410.
func (e *DeniedError) Answer(w http.ResponseWriter) {
	header := w.Header()
	if e.Kind != "" {
		header.Set(HeaderDenied, string(e.Kind))
	}
	header.Set("Access-Control-Expose-Headers", HeaderDenied)
	header.Set("Cache-Control", cacheDenied)
	api.Error(w, http.StatusGone, cmp.Or(e.Reason, "denied"))
}

// Trailer is the value of HeaderDenied after results: kind and reason, in
// printable ASCII.
func (e *DeniedError) Trailer() string {
	return strings.TrimSpace(printable(string(cmp.Or(e.Kind, DenyMultihash)) + " " + e.Reason))
}

// deniedBy is the denial that an answer is or, in its trailer, ends with: nil if
// none. A 410 without the header is of a server that is not ours, and is about what
// was asked for.
func deniedBy(resp *http.Response, body string) *DeniedError {
	if trailer := resp.Trailer.Get(HeaderDenied); trailer != "" {
		kind, reason, _ := strings.Cut(trailer, " ")
		return &DeniedError{Kind: DenyKind(kind), Reason: api.PlainText(reason, 0)}
	}
	if resp.StatusCode != http.StatusGone {
		return nil
	}
	kind := cmp.Or(DenyKind(resp.Header.Get(HeaderDenied)), DenyMultihash)
	if body == "denied" {
		body = ""
	}
	return &DeniedError{Kind: kind, Reason: body}
}

// printable is s as a header may have it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
