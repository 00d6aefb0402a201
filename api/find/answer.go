package find

import (
	"errors"
	"net/http"
	"time"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api"
)

// maxLine bounds a line of NDJSON, newline included: the reference frontend
// and Lassie read with a scanner of 64 KiB and lose the rest of the stream
// after a longer one.
const maxLine = 64 << 10

// How long caches may keep a frontend's answers. Short, because content is
// found minutes after it was published; a miss shorter still.
const (
	cacheFound  = "public, max-age=60"
	cacheMissed = "public, max-age=5"
)

// answerFind gives one JSON answer when the finder has finished, or has more than
// fits in one; then the answer says so.
func (h *handler) answerFind(w http.ResponseWriter, r *http.Request, mh multihash.Multihash) {
	var results []ProviderResult
	var partial *PartialError
	var budget Budget
	full := false
	for result, err := range h.finder.Find(r.Context(), mh) {
		if err == nil {
			if full = !budget.Take(&result); full {
				break
			}
			results = append(results, result)
			continue
		}
		// Results found before any other error are worth nothing: the client
		// could not tell that they are not all.
		if !errors.As(err, &partial) || len(results) == 0 {
			h.fail(w, r, err)
			return
		}
		break
	}
	if len(results) == 0 {
		h.missed(w)
		return
	}
	if h.cfg.Frontend {
		results = Merge(results)
	}
	switch {
	case partial != nil:
		h.markPartial(w, partial)
	case full:
		w.Header().Set(HeaderLeftOut, LeftUncounted)
		w.Header().Set("Access-Control-Expose-Headers", HeaderLeftOut)
		w.Header().Set("Cache-Control", "no-store")
	case h.cfg.Frontend:
		w.Header().Set("Cache-Control", cacheFound)
	}
	if h.cfg.Frontend {
		w.Header().Set("Vary", "Accept")
	}
	h.metrics.results.Add(float64(len(results)))
	results = onWire(results, wantsPosition(r))
	body := append(make([]byte, 0, 512), `{"MultihashResults":[`...)
	body = append(appendMultihashResult(body, mh, results), "]}"...)
	api.JSONBytes(w, http.StatusOK, body)
}

// missed writes the 404 of those who know that there is nothing.
func (h *handler) missed(w http.ResponseWriter) {
	h.metrics.missed.Inc()
	if h.cfg.Frontend {
		w.Header().Set("Cache-Control", cacheMissed)
		w.Header().Set("Vary", "Accept")
	}
	api.Error(w, http.StatusNotFound, "no results for query")
}

// streamFind gives NDJSON, each result as it comes. The status waits for the
// first result or the end.
func (h *handler) streamFind(w http.ResponseWriter, r *http.Request, mh multihash.Multihash) {
	var s *stream
	var end error
	for result, err := range h.finder.Find(r.Context(), mh) {
		if end = err; err != nil {
			break
		}
		if s == nil {
			s = h.newStream(w)
			s.positions = wantsPosition(r)
		}
		if !s.send(&result) {
			return // the client has gone
		}
	}
	switch {
	case s == nil && end == nil:
		h.missed(w)
		return
	case s == nil:
		h.fail(w, r, end)
		return
	}
	h.metrics.results.Add(float64(s.sent))
	if end != nil {
		h.endStream(w, r, end)
	}
}

// endStream ends a stream that has results with the reason why it may lack
// others, or should not have had these: a trailer, or, if this node failed, a connection cut off before its
// end, which no client takes for a full answer.
func (h *handler) endStream(w http.ResponseWriter, r *http.Request, err error) {
	var denied *DeniedError
	if errors.As(err, &denied) {
		h.metrics.denied.Inc()
		w.Header().Set(http.TrailerPrefix+HeaderDenied, denied.Trailer())
		return
	}
	var partial *PartialError
	if !errors.As(err, &partial) {
		h.logFailure(r, err)
		panic(http.ErrAbortHandler)
	}
	h.metrics.partial.Inc()
	w.Header().Set(http.TrailerPrefix+HeaderPartial, partial.Header())
}

// stream writes the lines of one NDJSON answer.
type stream struct {
	h    *handler
	w    http.ResponseWriter
	ctl  *http.ResponseController
	line []byte
	sent int
	seen map[string]struct{} // identities sent by a frontend; nil at an indexer

	newest    Newest // of a frontend
	positions bool   // are wanted
}

// newStream writes the header of the answer.
func (h *handler) newStream(w http.ResponseWriter) *stream {
	header := w.Header()
	header.Set("Content-Type", api.MediaNDJSON)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	s := &stream{h: h, w: w, ctl: http.NewResponseController(w)}
	if h.cfg.Frontend {
		s.seen, s.newest = make(map[string]struct{}), make(Newest)
		// Proxies drop trailers not announced.
		header.Set("Trailer", HeaderPartial+", "+HeaderDenied)
	} else if header.Get("Connection") == "" { // the server is not draining
		header.Set("Connection", "Keep-Alive")
	}
	w.WriteHeader(http.StatusOK)
	return s
}

// send writes and flushes one result, unless a frontend has sent the same
// record before, or one known to be newer. It is false if the client has gone.
func (s *stream) send(r *ProviderResult) bool {
	if s.seen != nil {
		if s.newest.Outdated(r) {
			return true
		}
		id := identity(r)
		if _, dup := s.seen[id]; dup {
			return true
		}
		s.seen[id] = struct{}{}
	}
	sent := *r
	if !s.positions {
		sent.Position = Position{}
	}
	line, fits := appendLine(s.line[:0], &sent, maxLine)
	s.line = line[:0]
	if !fits {
		s.h.metrics.oversized.Inc()
		s.h.log.Warn("result too long for a line of NDJSON left out", "provider", r.Provider.ID,
			"bytes", len(r.ContextID)+len(r.Metadata))
		return true
	}
	// A stream may last longer than one answer may; each line gets the time
	// of one. Not every ResponseWriter has deadlines, and none need have them.
	_ = s.ctl.SetWriteDeadline(time.Now().Add(api.WriteTimeout))
	if _, err := s.w.Write(line); err != nil {
		return false
	}
	s.sent++
	return s.ctl.Flush() == nil
}
