package routing

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/find"
)

// stream answers with a line for each record, as it comes. The header is
// written with the first line, or when it is known that there is none.
func (h *handler) stream(w http.ResponseWriter, r *http.Request, mh multihash.Multihash, filter filter) {
	s := newLines(w)
	var partial *find.PartialError
	newest := make(find.Newest)
	for result, err := range h.finder.Find(r.Context(), mh) {
		if err == nil && newest.Outdated(&result) {
			continue
		}
		if err == nil {
			for _, rec := range filter.all(merge([]find.ProviderResult{result})) {
				if !s.send(&rec) {
					return // the client has gone
				}
			}
			continue
		}
		if !errors.As(err, &partial) {
			var denied *find.DeniedError
			switch {
			case !s.begun:
			case errors.As(err, &denied):
				h.answer.WithLabelValues("denied").Inc()
				w.Header().Set(http.TrailerPrefix+find.HeaderDenied, denied.Trailer())
				return
			default:
				h.failed(r, err)
				panic(http.ErrAbortHandler) // no client takes this for the end
			}
			h.fail(w, r, err)
			return
		}
	}
	switch {
	case partial != nil && !s.begun:
		h.fail(w, r, partial)
	case partial != nil:
		h.answer.WithLabelValues("partial").Inc()
		w.Header().Set(http.TrailerPrefix+find.HeaderPartial, partial.Header())
	case !s.begun:
		h.answer.WithLabelValues("empty").Inc()
		s.begin(cacheEmpty)
	default:
		h.answer.WithLabelValues("found").Inc()
	}
}

// lines writes the lines of one NDJSON answer.
type lines struct {
	w     http.ResponseWriter
	ctl   *http.ResponseController
	seen  map[string]struct{} // keys of the records sent
	begun bool
}

func newLines(w http.ResponseWriter) *lines {
	return &lines{w: w, ctl: http.NewResponseController(w), seen: make(map[string]struct{})}
}

// begin writes the header.
func (s *lines) begin(cache string) {
	s.begun = true
	s.w.Header().Set("Content-Type", api.MediaNDJSON)
	s.w.Header().Set("Cache-Control", cache)
	// Proxies drop trailers not announced.
	s.w.Header().Set("Trailer", find.HeaderPartial+", "+find.HeaderDenied)
	s.w.WriteHeader(http.StatusOK)
}

// send writes and flushes a record that was not sent before. It is false if
// the client has gone.
func (s *lines) send(rec *record) bool {
	key := rec.key()
	if _, dup := s.seen[key]; dup {
		return true
	}
	s.seen[key] = struct{}{}
	line, err := json.Marshal(rec)
	if err != nil {
		return true // names and base64: it does not happen
	}
	if !s.begun {
		// What is found later, or not, is not known yet: not to be cached.
		s.begin("no-store")
	}
	// Each line gets the time of an answer; see api.WriteTimeout.
	_ = s.ctl.SetWriteDeadline(time.Now().Add(api.WriteTimeout))
	if _, err := s.w.Write(append(line, '\n')); err != nil {
		return false
	}
	return s.ctl.Flush() == nil
}
