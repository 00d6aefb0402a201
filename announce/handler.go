package announce

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

var (
	// ErrNotAllowed is returned by a handler's function for a publisher that
	// policy or assignment keeps out: HTTP 403.
	ErrNotAllowed = errors.New("announce not allowed")
	// ErrUnavailable is returned by a handler's function that cannot take the
	// announce now but may later: HTTP 503.
	ErrUnavailable = errors.New("announces cannot be taken now")
)

// UnavailableError is an [ErrUnavailable] that tells the sender why, and what to
// do.
type UnavailableError struct {
	Text       string        // for the sender; one line
	RetryAfter time.Duration // 0 means the usual
}

func (e *UnavailableError) Error() string        { return e.Text }
func (e *UnavailableError) Is(target error) bool { return target == ErrUnavailable }

// retryAfterSeconds is what a sender is told on 503. Announces are repeated by
// publishers anyway, so this only has to keep eager ones from hammering.
const retryAfterSeconds = "30"

// NewHandler serves PUT /announce and its deprecated alias PUT
// /ingest/announce; other paths are 404. fn is called with each well-formed
// announce, from many goroutines at once, and decides the answer: nil is 204,
// [ErrNotAllowed] 403, [ErrUnavailable] 503 with Retry-After and the text of an
// [UnavailableError] if it is one, anything else 500
// with an empty line for a body (fn is the place to log it). A message that is
// malformed, too large, or breaks the rules of [Message.Direct] is 400 and never
// reaches fn.
//
// The body is JSON if the Content-Type is exactly application/json, with no
// parameter, and CBOR otherwise.
// Source: announce.md, section 3.
func NewHandler(fn func(ctx context.Context, a Announce) error) http.Handler {
	return NewProbingHandler(fn, nil)
}

// NewProbingHandler is NewHandler that also, when an announce that was taken
// came with the query probe=true, waits for what probe says of its publisher
// and answers 200 with that as JSON. An error of probe is 503.
func NewProbingHandler(fn func(ctx context.Context, a Announce) error, probe func(ctx context.Context, a Announce) (any, error)) http.Handler {
	h := &handler{fn: fn, probe: probe}
	mux := http.NewServeMux()
	mux.Handle("/announce", h)
	mux.Handle("/ingest/announce", h)
	return mux
}

type handler struct {
	fn    func(ctx context.Context, a Announce) error
	probe func(ctx context.Context, a Announce) (any, error) // may be nil
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPut:
		h.put(w, r)
	case http.MethodOptions:
		w.Header().Set("Allow", http.MethodPut)
		http.Error(w, "", http.StatusOK)
	default:
		w.Header().Set("Allow", http.MethodPut)
		http.Error(w, "", http.StatusMethodNotAllowed)
	}
}

func (h *handler) put(w http.ResponseWriter, r *http.Request) {
	a, err := readAnnounce(w, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch err := h.fn(r.Context(), a); {
	case err == nil && h.probe != nil && r.URL.Query().Get("probe") == "true":
		h.probed(w, r, a)
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, ErrNotAllowed):
		http.Error(w, "announce requests not allowed from peer "+a.Publisher.ID.String(), http.StatusForbidden)
	case errors.Is(err, ErrUnavailable):
		unavailable(w, err)
	default:
		http.Error(w, "", http.StatusInternalServerError)
	}
}

// unavailable answers 503. What an error says that is not meant for senders is
// not told.
func unavailable(w http.ResponseWriter, err error) {
	text, after := ErrUnavailable.Error(), retryAfterSeconds
	var told *UnavailableError
	if errors.As(err, &told) {
		text = told.Text
		if seconds := int(told.RetryAfter / time.Second); seconds > 0 {
			after = strconv.Itoa(seconds)
		}
	}
	w.Header().Set("Retry-After", after)
	http.Error(w, text, http.StatusServiceUnavailable)
}

func (h *handler) probed(w http.ResponseWriter, r *http.Request, a Announce) {
	v, err := h.probe(r.Context(), a)
	if err != nil {
		w.Header().Set("Retry-After", retryAfterSeconds)
		http.Error(w, "the announce was taken; "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // nobody is left to tell
}

// readAnnounce reads the request's body to its end, which must come within
// MaxMessageBytes.
func readAnnounce(w http.ResponseWriter, r *http.Request) (Announce, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxMessageBytes))
	if err != nil {
		return Announce{}, malformedf("read announce message: %w", err)
	}
	decode := DecodeCBOR
	if r.Header.Get("Content-Type") == "application/json" {
		decode = DecodeJSON
	}
	m, err := decode(body)
	if err != nil {
		return Announce{}, err
	}
	return m.Direct()
}
