// Package routing is the Delegated Routing V1 HTTP API, as far as an indexer
// network can answer it: who provides a CID, and where a provider is.
//
//	GET /routing/v1/providers/{cid}
//	GET /routing/v1/peers/{peer ID}
//
// It is a thin layer over a [find.Finder]. A find's results, which are by
// provider and context ID, become "peer" records, which are by peer:
//
//	results of a find            records
//	P ctx-1 bitswap         ┐
//	P ctx-2 bitswap+gateway ├──► P bitswap, gateway
//	P ctx-3 (unreadable)    ┘
//	Q ctx-1 graphsync(x)    ──► Q graphsync(x)
//	Q ctx-2 graphsync(y)    ──► Q graphsync(y)    other parameters, other record
//
// That is the JSON answer, of at most 100 records. The NDJSON answer has a
// record for each result as it comes, without repetitions.
//
// The behaviour is that of the specification (ipfs/specs http-routing-v1 with
// IPIP-484 and IPIP-513) where the reference frontend, indexstar, has another:
// nothing found is 200 with an empty list. Nothing found while a backend did
// not answer is 503, because it would be a lie.
package routing

import (
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/find"
)

const (
	providersPath  = "/routing/v1/providers"
	peersPath      = "/routing/v1/peers"
	maxRequestBody = 8 << 10
	maxCIDText     = 2048 // base58 takes time in the square of its length
)

const served = "not served here: this is a content index and answers " + providersPath + "/{cid} and " + peersPath + "/{peer ID}"

// maxRecords bounds a JSON answer. Source: the specification, and indexstar's
// DELEGATED_ROUTING_MAX_JSON_ENTRIES.
const maxRecords = 100

// How long caches may keep an answer: content is found minutes after it was
// published. The specification wants it short for empty answers.
const (
	cacheFound = "public, max-age=60"
	cacheEmpty = "public, max-age=5"
)

// Config is how a handler behaves.
type Config struct {
	// Logger may be nil.
	Logger *slog.Logger
	// Registerer may be nil.
	Registerer prometheus.Registerer
}

// handler serves one Finder. It holds no state of requests.
type handler struct {
	finder find.Finder
	log    *slog.Logger
	answer *prometheus.CounterVec // by outcome
}

// NewHandler serves the delegated routing API over f. Its paths begin with
// /routing/v1/; all others are 404.
func NewHandler(f find.Finder, cfg Config) http.Handler {
	h := &handler{
		finder: f,
		log:    cfg.Logger,
		answer: promauto.With(cfg.Registerer).NewCounterVec(prometheus.CounterOpts{
			Name: "signpost_routing_answers_total",
			Help: "Answers to delegated routing requests for providers, by outcome.",
		}, []string{"outcome"}),
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	mux.HandleFunc(providersPath, h.serveNoCID)
	mux.HandleFunc(providersPath+"/{$}", h.serveNoCID)
	mux.HandleFunc(providersPath+"/{cid}", h.serveProviders)
	mux.HandleFunc(peersPath+"/{peer}", h.servePeer)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		cors(w)
		api.Error(w, http.StatusNotFound, served)
	})
	return http.MaxBytesHandler(mux, maxRequestBody)
}

// cors lets web pages read what is answered.
func cors(w http.ResponseWriter) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Access-Control-Allow-Methods", "GET, OPTIONS")
}

// method lets GET pass. A PUT is a client that wants to provide, which the
// specification no longer has.
func method(w http.ResponseWriter, r *http.Request) bool {
	cors(w)
	w.Header().Set("Vary", "Accept")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch r.Method {
	case http.MethodOptions:
		w.WriteHeader(http.StatusOK)
		return false
	case http.MethodPut:
		api.Error(w, http.StatusNotImplemented, "providing over HTTP is not supported: publish advertisements and announce them to the indexer")
		return false
	}
	return api.Method(w, r, http.MethodGet, http.MethodOptions)
}

// serveNoCID answers requests that name no CID.
func (h *handler) serveNoCID(w http.ResponseWriter, r *http.Request) {
	if method(w, r) {
		api.Error(w, http.StatusBadRequest, "missing CID: want "+providersPath+"/{cid}")
	}
}

// serveProviders answers GET /routing/v1/providers/{cid}.
func (h *handler) serveProviders(w http.ResponseWriter, r *http.Request) {
	if !method(w, r) {
		return
	}
	mh, err := parseCID(r.PathValue("cid"))
	if err != nil {
		api.Error(w, http.StatusBadRequest, "invalid CID: "+err.Error())
		return
	}
	filter, ndjson, ok := wanted(w, r)
	if !ok {
		return
	}
	if ndjson {
		h.stream(w, r, mh, filter)
	} else {
		h.list(w, r, mh, filter)
	}
}

// wanted reads what a client wants, or has refused it.
func wanted(w http.ResponseWriter, r *http.Request) (f filter, ndjson, ok bool) {
	_, ndjson, err := api.ParseAccept(r)
	if err != nil {
		api.Error(w, http.StatusBadRequest, "invalid Accept header")
		return f, false, false
	}
	if f, err = parseFilter(r.URL.Query()); err != nil {
		api.Error(w, http.StatusBadRequest, err.Error())
		return f, false, false
	}
	return f, ndjson, true
}

// parseCID reads the text of a CID; only its multihash counts.
func parseCID(s string) (multihash.Multihash, error) {
	if len(s) > maxCIDText {
		return nil, errors.New("too long")
	}
	c, err := cid.Decode(s)
	if err != nil {
		return nil, err
	}
	return c.Hash(), nil
}

// list answers with one JSON object.
func (h *handler) list(w http.ResponseWriter, r *http.Request, mh multihash.Multihash, filter filter) {
	var results []find.ProviderResult
	var partial *find.PartialError
	var budget find.Budget
	for result, err := range h.finder.Find(r.Context(), mh) {
		if err == nil {
			if !budget.Take(&result) {
				w.Header().Set(find.HeaderLeftOut, find.LeftUncounted)
				break
			}
			results = append(results, result)
		} else if !errors.As(err, &partial) {
			h.fail(w, r, err)
			return
		}
	}
	h.send(w, r, "Providers", filter.all(merge(results)), partial)
}

// send answers with records, under a name.
func (h *handler) send(w http.ResponseWriter, r *http.Request, name string, records []record, partial *find.PartialError) {
	if left := len(records) - maxRecords; left > 0 {
		records = records[:maxRecords]
		if w.Header().Get(find.HeaderLeftOut) == "" {
			w.Header().Set(find.HeaderLeftOut, strconv.Itoa(left))
		}
	}
	if partial != nil && len(records) == 0 {
		h.fail(w, r, partial)
		return
	}
	header := w.Header()
	switch {
	case partial != nil:
		h.answer.WithLabelValues("partial").Inc()
		header.Set(find.HeaderPartial, partial.Header())
		header.Add("Access-Control-Expose-Headers", find.HeaderPartial)
		header.Set("Cache-Control", "no-store")
	case len(records) == 0:
		h.answer.WithLabelValues("empty").Inc()
		header.Set("Cache-Control", cacheEmpty)
	default:
		h.answer.WithLabelValues("found").Inc()
		header.Set("Cache-Control", cacheFound)
		header.Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
	}
	if header.Get(find.HeaderLeftOut) != "" {
		header.Add("Access-Control-Expose-Headers", find.HeaderLeftOut)
	}
	api.JSON(w, http.StatusOK, map[string][]record{name: records})
}

// fail answers for an err that leaves nothing to answer with.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	var denied *find.DeniedError
	if errors.As(err, &denied) {
		h.answer.WithLabelValues("denied").Inc()
		denied.Answer(w)
		return
	}
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	if errors.Is(err, find.ErrUnavailable) {
		h.answer.WithLabelValues("undecided").Inc()
		header.Set("Retry-After", "5")
		text := "undecided"
		if partial := (*find.PartialError)(nil); errors.As(err, &partial) {
			text += ": " + partial.Error()
			header.Set(find.HeaderPartial, partial.Header())
		}
		api.Error(w, http.StatusServiceUnavailable, text)
		return
	}
	h.failed(r, err)
	api.Error(w, http.StatusInternalServerError, "")
}

// failed notes that this node failed, unless it was the client that left.
func (h *handler) failed(r *http.Request, err error) {
	h.answer.WithLabelValues("failed").Inc()
	if r.Context().Err() == nil {
		h.log.Error("find for delegated routing failed", "path", r.URL.Path, "err", err)
	}
}
