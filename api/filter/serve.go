package filter

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"sync"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/store/keyset"
)

// HandlerConfig is what a handler is made of.
type HandlerConfig struct {
	Token  string // of those who have the secret: keyset.Token
	Logger *slog.Logger
}

// NewHandler serves the keys of a node.
func NewHandler(src Source, cfg HandlerConfig) http.Handler {
	h := &handler{src: src, token: []byte("Bearer " + cfg.Token), log: cfg.Logger}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	mux.HandleFunc(openPath, h.guard(http.MethodPost, h.open))
	mux.HandleFunc(regionPath, h.guard(http.MethodGet, h.region))
	mux.HandleFunc(tailPath, h.guard(http.MethodGet, h.tail))
	return mux
}

type handler struct {
	src      Source
	token    []byte
	log      *slog.Logger
	scanning sync.Mutex // one region at a time: lookups go first
}

func (h *handler) guard(method string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if !api.Method(w, r, method) {
			return
		}
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), h.token) != 1 {
			api.Error(w, http.StatusUnauthorized, "keys are for frontends with this pool's index secret: start them with --index-secret FILE")
			return
		}
		next(w, r)
	}
}

func (h *handler) open(w http.ResponseWriter, r *http.Request) {
	o, err := h.src.OpenKeys(r.Context(), r.URL.Query().Get("follower"))
	if err != nil {
		h.fail(w, "open keys", err)
		return
	}
	api.JSON(w, http.StatusOK, o)
}

func (h *handler) fail(w http.ResponseWriter, what string, err error) {
	if errors.Is(err, ErrGone) {
		api.Error(w, http.StatusGone, err.Error())
		return
	}
	h.log.Debug(what, "err", err)
	w.Header().Set("Retry-After", "1")
	api.Error(w, http.StatusServiceUnavailable, what+": "+err.Error())
}

func (h *handler) region(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	region, err := strconv.Atoi(q.Get("region"))
	values, err2 := strconv.ParseUint(q.Get("values"), 10, 64)
	space := keyset.Space(values)
	if err != nil || err2 != nil || region < 0 || region >= keyset.Regions || !space.Valid() {
		api.Error(w, http.StatusBadRequest, "want region=0…255 and values=N, a multiple of 256 up to 2^56")
		return
	}
	h.scanning.Lock()
	p, err := part(h.src, space, region)
	h.scanning.Unlock()
	if err != nil {
		h.fail(w, "scan keys", err)
		return
	}
	body := p.Append(nil)
	w.Header().Set("Content-Type", mediaKeys)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the reader is gone
}

func (h *handler) tail(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	from, err := strconv.ParseUint(q.Get("from"), 10, 64)
	if err != nil {
		api.Error(w, http.StatusBadRequest, "want from=N")
		return
	}
	keys, lease, err := h.src.FollowKeys(r.Context(), q.Get("epoch"), q.Get("follower"), from)
	if err != nil {
		h.fail(w, "follow keys", err)
		return
	}
	body := make([]byte, 0, 8*len(keys))
	for _, k := range keys {
		body = binary.LittleEndian.AppendUint64(body, k)
	}
	w.Header().Set("Content-Type", mediaKeys)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Header().Set(headerLease, strconv.FormatInt(lease.Milliseconds(), 10))
	w.Header().Set(headerNext, strconv.FormatUint(from+uint64(len(keys)), 10))
	_, _ = w.Write(body) // the reader is gone
}
