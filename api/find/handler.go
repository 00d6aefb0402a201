package find

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/multiformats/go-multihash"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/openapi"
)

// maxRequestBody bounds what comes with a request that is no batch; nothing
// here reads it.
const maxRequestBody = 8 << 10

// HeaderPartial is the header, or in a stream the trailer, that names the
// backends whose results an answer lacks.
const HeaderPartial = "X-Signpost-Partial"

// Config is how a handler behaves. The zero value is an indexer that is always
// healthy.
type Config struct {
	// Frontend gives the manners of a query frontend (find.md section 7):
	// CORS preflights, 400 for an Accept it cannot serve, JSON health, cache
	// headers, and answers merged and in an order of their own. Without it the
	// handler has those of an indexer, and results in the Finder's order.
	Frontend bool
	// Health says whether the node can answer, and if not, why. Nil is always.
	Health func() (ready bool, text string)
	// CascadeLabels are announced to OPTIONS requests of a frontend.
	CascadeLabels []string
	// LineToken is shown by frontends that ask on a line: keyset.Token of the pool's
	// index secret. Empty: there are no lines.
	LineToken string
	// Version is shown by /health and on the front page.
	Version string
	// Logger may be nil.
	Logger *slog.Logger
	// Registerer may be nil.
	Registerer prometheus.Registerer
}

// handler serves one Finder. It holds no state of requests.
type handler struct {
	mux     http.Handler
	size    sizes
	finder  Finder
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	lines   chan struct{} // one element for each
}

// NewHandler serves the find API over f: /cid/, /multihash/, batches, /providers,
// /stats, /health and a front page. Everything else is 404.
func NewHandler(f Finder, cfg Config) http.Handler {
	h := &handler{finder: f, cfg: cfg, log: cfg.Logger, metrics: newMetrics(cfg.Registerer), lines: make(chan struct{}, maxLines)}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	route := func(pattern, endpoint string, serve http.HandlerFunc) {
		mux.Handle(pattern, http.MaxBytesHandler(h.metrics.measured(endpoint, serve), maxRequestBody))
	}
	batch := func(pattern, endpoint string, serve http.HandlerFunc) {
		mux.Handle(pattern, h.metrics.measured(endpoint, serve))
	}
	if cfg.LineToken != "" {
		mux.HandleFunc(linePath, h.serveLine)
	}
	batch("POST /multihash", "multihash-batch", h.serveMultihashBatch)
	batch("POST /cid", "cid-batch", h.serveCIDBatch)
	mux.HandleFunc("OPTIONS /multihash", preflightBatch)
	mux.HandleFunc("OPTIONS /cid", preflightBatch)
	route("/cid/", "cid", h.serveCID)
	route("/multihash/", "multihash", h.serveMultihash)
	route("/providers", "providers", h.serveProviders)
	route("/providers/", "provider", h.serveProvider)
	route("/stats", "stats", h.serveStats)
	route("/health", "health", h.serveHealth)
	route(openapi.Path, "openapi", openapi.Serve)
	route("/encrypted/", "encrypted", h.serveNoPrivacy)
	route("/metadata/", "metadata", h.serveNoPrivacy)
	route("/", "other", h.serveRest)
	h.mux = mux
	return h
}

// ServeHTTP serves what nearly all requests are by itself: the mux would give it to
// the same functions, and take as long as they do.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if dir, name := path.Split(r.URL.Path); r.Method == http.MethodGet && name != "" && name != "." && name != ".." {
		switch dir {
		case "/cid/":
			defer observe(h.metrics.cid, time.Now())
			h.serveCID(w, r)
			return
		case "/multihash/":
			defer observe(h.metrics.multihash, time.Now())
			h.serveMultihash(w, r)
			return
		}
	}
	h.mux.ServeHTTP(w, r)
}

// serveCID answers GET /cid/{cid}; only the multihash of the CID counts.
func (h *handler) serveCID(w http.ResponseWriter, r *http.Request) {
	if !h.findMethod(w, r) {
		return
	}
	c, err := parseCID(path.Base(r.URL.Path))
	if err != nil {
		text := err.Error()
		if h.cfg.Frontend {
			text = "invalid cid: " + text // the reference frontend says it once more
		}
		api.Error(w, http.StatusBadRequest, text)
		return
	}
	h.serveFind(w, r, c.Hash())
}

// serveMultihash answers GET /multihash/{base58 or hex}.
func (h *handler) serveMultihash(w http.ResponseWriter, r *http.Request) {
	if !h.findMethod(w, r) {
		return
	}
	mh, err := ParseMultihash(path.Base(r.URL.Path))
	if err != nil {
		prefix := "find: "
		if h.cfg.Frontend {
			prefix = "invalid multihash: "
		}
		api.Error(w, http.StatusBadRequest, prefix+err.Error())
		return
	}
	h.serveFind(w, r, mh)
}

// anyOrigin is shared by all answers: nobody adds to it.
var anyOrigin = []string{"*"}

// findMethod lets GET pass and answers everything else.
func (h *handler) findMethod(w http.ResponseWriter, r *http.Request) bool {
	header := w.Header()
	header["Access-Control-Allow-Origin"] = anyOrigin
	if !h.cfg.Frontend {
		return api.Method(w, r, http.MethodGet)
	}
	if r.Method != http.MethodOptions {
		return api.Method(w, r, http.MethodGet, http.MethodOptions)
	}
	header.Set("Access-Control-Allow-Methods", "GET, OPTIONS")
	header.Set("Access-Control-Allow-Headers", "Content-Type, Accept")
	if len(h.cfg.CascadeLabels) > 0 {
		header.Set("X-IPNI-Allow-Cascade", strings.Join(h.cfg.CascadeLabels, ","))
	}
	w.WriteHeader(http.StatusAccepted)
	return false
}

// serveFind chooses the form of the answer and gives it.
func (h *handler) serveFind(w http.ResponseWriter, r *http.Request, mh multihash.Multihash) {
	json, ndjson, err := api.ParseAccept(r)
	switch {
	case err != nil && h.cfg.Frontend:
		api.Error(w, http.StatusBadRequest, "invalid Accept header")
	case err != nil:
		api.Error(w, http.StatusNotAcceptable, "invalid accept header: "+err.Error())
	case !json && !ndjson && h.cfg.Frontend:
		api.Error(w, http.StatusBadRequest, "unsupported media type")
	case !json && !ndjson:
		api.Error(w, http.StatusNotAcceptable, "accept: application/x-ndjson, application/json, */*")
	case h.cfg.Frontend && zeroLength(mh):
		api.Error(w, http.StatusBadRequest, "bad multihash: zero-length digest")
	case ndjson:
		h.streamFind(w, r, mh)
	default:
		h.answerFind(w, r, mh)
	}
}

// serveProviders answers GET /providers.
func (h *handler) serveProviders(w http.ResponseWriter, r *http.Request) {
	if !h.plainGet(w, r) || !h.acceptsJSON(w, r) {
		return
	}
	infos, err := h.finder.Providers(r.Context())
	if infos == nil {
		infos = []ProviderInfo{}
	}
	h.answerKnown(w, r, infos, len(infos) > 0, err)
}

// serveProvider answers GET /providers/{peer ID}.
func (h *handler) serveProvider(w http.ResponseWriter, r *http.Request) {
	if !h.plainGet(w, r) || !h.acceptsJSON(w, r) {
		return
	}
	id, err := parsePeerID(path.Base(r.URL.Path))
	if err != nil {
		api.Error(w, http.StatusBadRequest, "cannot decode provider id: "+err.Error())
		return
	}
	info, err := h.finder.Provider(r.Context(), id)
	if errors.Is(err, ErrNotFound) || (err == nil && info == nil) {
		api.Error(w, http.StatusNotFound, "provider not found")
		return
	}
	h.answerKnown(w, r, info, info != nil, err)
}

// serveStats answers GET /stats.
func (h *handler) serveStats(w http.ResponseWriter, r *http.Request) {
	if !h.plainGet(w, r) || !h.acceptsJSON(w, r) {
		return
	}
	stats, err := h.finder.Stats(r.Context())
	h.answerKnown(w, r, stats, stats != Stats{}, err)
}

// answerKnown writes v, which is of use even if err says that it is partial
// provided that it is some.
func (h *handler) answerKnown(w http.ResponseWriter, r *http.Request, v any, some bool, err error) {
	var partial *PartialError
	switch {
	case err == nil:
	case errors.As(err, &partial) && some:
		h.markPartial(w, partial)
	default:
		h.fail(w, r, err)
		return
	}
	api.JSON(w, http.StatusOK, v)
}

// plainGet lets GET pass on the paths that are not finds.
func (h *handler) plainGet(w http.ResponseWriter, r *http.Request) bool {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	return api.Method(w, r, http.MethodGet)
}

// acceptsJSON refuses clients that want something else from an indexer. A
// frontend does not ask.
func (h *handler) acceptsJSON(w http.ResponseWriter, r *http.Request) bool {
	if h.cfg.Frontend {
		return true
	}
	json, _, err := api.ParseAccept(r)
	if err != nil {
		api.Error(w, http.StatusNotAcceptable, "invalid accept header: "+err.Error())
		return false
	}
	if !json {
		api.Error(w, http.StatusNotAcceptable, "accept: application/json, */*")
		return false
	}
	return true
}

// serveHealth answers GET /health: 200 if this node can answer and is to be asked,
// else 503.
func (h *handler) serveHealth(w http.ResponseWriter, r *http.Request) {
	if !h.plainGet(w, r) {
		return
	}
	ready, text := true, ""
	if api.Draining(r.Context()) {
		ready, text = false, "shutting down"
	} else if h.cfg.Health != nil {
		ready, text = h.cfg.Health()
	}
	w.Header().Set("Cache-Control", "no-cache")
	status, word := http.StatusOK, "ready"
	if !ready {
		status, word = http.StatusServiceUnavailable, "not ready"
	}
	if h.cfg.Frontend {
		body := map[string]string{"status": word}
		if !ready {
			body["reason"] = text
		}
		api.JSON(w, status, body)
		return
	}
	switch {
	case !ready && text != "":
		word += ": " + text
	case ready && h.cfg.Version != "":
		word += " " + h.cfg.Version
	}
	api.Error(w, status, word)
}

// serveNoPrivacy tells clients of double-hashed finds that this is not the
// place, rather than that the content is unknown.
func (h *handler) serveNoPrivacy(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	api.Error(w, http.StatusNotFound, "reader privacy (double-hashed finds) is not served here: use /cid/ or /multihash/")
}

// serveRest answers the front page, and 404 for everything else.
func (h *handler) serveRest(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" && r.URL.Path != "/index.html" {
		api.Error(w, http.StatusNotFound, "Not Found")
		return
	}
	if h.plainGet(w, r) {
		h.servePage(w, r)
	}
}

// fail writes the answer for an err that leaves nothing to answer with: 410 if a
// denylist forbids one, 503 if it is only that others did not answer, else 500.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	var denied *DeniedError
	if errors.As(err, &denied) {
		h.metrics.denied.Inc()
		if h.cfg.Frontend {
			w.Header().Set("Vary", "Accept")
		}
		denied.Answer(w)
		return
	}
	if errors.Is(err, ErrUnavailable) {
		h.undecided(w, r, err)
		return
	}
	h.logFailure(r, err)
	w.Header().Set("Cache-Control", "no-store")
	api.Error(w, http.StatusInternalServerError, "")
}

// undecided writes the 503 for a question that the backends left open.
func (h *handler) undecided(w http.ResponseWriter, r *http.Request, err error) {
	h.metrics.undecided.Inc()
	h.log.Debug("find undecided", "path", r.URL.Path, "err", err)
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Retry-After", "5")
	text := "undecided"
	var partial *PartialError
	if errors.As(err, &partial) {
		names := partial.Header()
		header.Set(HeaderPartial, names)
		text += ": no answer from " + names
	}
	api.Error(w, http.StatusServiceUnavailable, text)
}

// markPartial says in the header what the answer lacks, and that it is not to
// be kept.
func (h *handler) markPartial(w http.ResponseWriter, partial *PartialError) {
	h.metrics.partial.Inc()
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set(HeaderPartial, partial.Header())
	header.Set("Access-Control-Expose-Headers", HeaderPartial)
}

// logFailure is for errors of this node. A client that left is not one.
func (h *handler) logFailure(r *http.Request, err error) {
	if r.Context().Err() != nil || errors.Is(err, context.Canceled) {
		return
	}
	h.metrics.failed.Inc()
	h.log.Error("find failed", "path", r.URL.Path, "err", err)
}

// namesOf is the reverse of PartialError.Header.
func namesOf(header string) []string {
	var names []string
	for name := range strings.SplitSeq(header, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}
