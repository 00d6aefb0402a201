package find

import (
	"errors"
	"iter"
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

// answerFind gives one JSON answer when the finder has finished.
func (h *handler) answerFind(w http.ResponseWriter, r *http.Request, mh multihash.Multihash) {
	var results []ProviderResult
	var partial *PartialError
	for result, err := range h.finder.Find(r.Context(), mh) {
		if err == nil {
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
	case h.cfg.Frontend:
		w.Header().Set("Cache-Control", cacheFound)
	}
	if h.cfg.Frontend {
		w.Header().Set("Vary", "Accept")
	}
	h.metrics.results.Add(float64(len(results)))
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
	next, stop := iter.Pull2(h.finder.Find(r.Context(), mh))
	defer stop()
	result, err, ok := next()
	if !ok {
		h.missed(w)
		return
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	s := h.newStream(w)
	for ok && err == nil {
		if !s.send(&result) {
			return // the client has gone
		}
		result, err, ok = next()
	}
	h.metrics.results.Add(float64(s.sent))
	if err != nil {
		h.endStream(w, r, err)
	}
}

// endStream ends a stream that has results with the reason why it may lack
// others: a trailer, or, if this node failed, a connection cut off before its
// end, which no client takes for a full answer.
func (h *handler) endStream(w http.ResponseWriter, r *http.Request, err error) {
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
}

// newStream writes the header of the answer.
func (h *handler) newStream(w http.ResponseWriter) *stream {
	header := w.Header()
	header.Set("Content-Type", api.MediaNDJSON)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	s := &stream{h: h, w: w, ctl: http.NewResponseController(w)}
	if h.cfg.Frontend {
		s.seen = make(map[string]struct{})
		header.Set("Trailer", HeaderPartial) // proxies drop trailers not announced
	} else {
		header.Set("Connection", "Keep-Alive")
	}
	w.WriteHeader(http.StatusOK)
	return s
}

// send writes and flushes one result, unless a frontend has sent the same
// record before. It is false if the client has gone.
func (s *stream) send(r *ProviderResult) bool {
	if s.seen != nil {
		id := identity(r)
		if _, dup := s.seen[id]; dup {
			return true
		}
		s.seen[id] = struct{}{}
	}
	line, fits := appendLine(s.line[:0], r, maxLine)
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
