package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/pprof"
	"path"
	"slices"
	"strconv"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/openapi"
)

const (
	maxRequestBody = 1 << 20
	maxPeerText    = 512 // base58 takes time in the square of its length
)

// HandlerConfig is who may ask, and what else is served.
type HandlerConfig struct {
	// Who gets in: see Access.
	Token    string
	Callers  *Callers
	Insecure bool
	Audit    *Audit
	// Check is what /healthcheck tries; nil asks the indexer for its status.
	Check func(context.Context) error
	// Operator, if not nil, is what StorePath and the like serve.
	Operator Operator
	// Registry, if not nil, is what PolicyPath, PublishersPath, /ingest/allow/
	// and the like serve.
	Registry Registry
	// LogLevel is what /config/log/level sets; nil is 501.
	LogLevel *slog.LevelVar
	// Ingest, if not nil, is what progressPath and the like serve.
	Ingest IngestOperator
	// Node, if not nil, is what NodePath and unfreezePath serve.
	Node Node
	// Roles, if not nil, is what RolesPath and the like serve.
	Roles RoleKeeper
	// Snapshots, if not nil, is what SnapshotPath serves.
	Snapshots Snapshotter
	// Health, if not nil, is served at /signpost/v1/health.
	Health http.Handler
	// Metrics is served at /metrics and /metrics/; nil is 404.
	Metrics http.Handler
	// Pprof serves Go's profiles at /debug/pprof/.
	Pprof bool
	// Logger may be nil.
	Logger *slog.Logger
}

// handler serves one Indexer. It holds no state of requests.
type handler struct {
	ix  Indexer
	cfg HandlerConfig
	log *slog.Logger
}

func newHandler(ix Indexer, cfg HandlerConfig) *handler {
	h := &handler{ix: ix, cfg: cfg, log: cfg.Logger}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	return h
}

// NewHandler serves the admin API of ix.
func NewHandler(ix Indexer, cfg HandlerConfig) http.Handler {
	h := newHandler(ix, cfg)
	mux := http.NewServeMux()
	mux.HandleFunc("/status", h.get(h.status))
	mux.HandleFunc("/freeze", h.do(http.MethodPut, h.freeze))
	mux.HandleFunc("/healthcheck", h.healthcheck)
	mux.HandleFunc("/ingest/assigned", h.get(h.assigned))
	mux.HandleFunc("/ingest/preferred", h.get(h.preferred))
	mux.HandleFunc("/ingest/assign/", h.do(http.MethodPost, h.assign))
	mux.HandleFunc("/ingest/unassign/", h.do(http.MethodPut, h.unassign))
	mux.HandleFunc("/ingest/handoff/", h.do(http.MethodPost, h.handoff))
	mux.HandleFunc("/ingest/sync/", h.syncs)
	mux.HandleFunc("/reloadconfig", h.do(http.MethodPost, h.reloadConfig))
	mux.HandleFunc(openapi.Path, openapi.Serve)
	h.routeLog(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		api.Error(w, http.StatusNotFound, "404 page not found")
	})
	if cfg.Operator != nil {
		h.routeStore(mux, cfg.Operator)
	}
	if cfg.Registry != nil {
		h.routeRegistry(mux, cfg.Registry)
		h.routeReference(mux, cfg.Registry)
	}
	if cfg.Ingest != nil {
		h.routeIngest(mux, cfg.Ingest)
	}
	if cfg.Node != nil {
		h.routeNode(mux, cfg.Node)
	}
	if cfg.Roles != nil {
		h.routeRoles(mux, cfg.Roles)
	}
	if cfg.Snapshots != nil {
		h.routeSnapshot(mux, cfg.Snapshots)
	}
	if cfg.Health != nil {
		mux.Handle("/signpost/v1/health", cfg.Health)
	}
	if cfg.Metrics != nil {
		mux.Handle("/metrics", cfg.Metrics)
		mux.Handle("/metrics/", cfg.Metrics)
	}
	if cfg.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	access := Access{Token: cfg.Token, Callers: cfg.Callers, Insecure: cfg.Insecure, Audit: cfg.Audit}
	return access.guard(limitBodies(mux))
}

// get serves what f returns as JSON, and 204 for an empty list.
func (h *handler) get(f func(context.Context) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !api.Method(w, r, http.MethodGet) {
			return
		}
		v, err := f(r.Context())
		switch {
		case err != nil:
			h.fail(w, r, err)
		case v == nil:
			api.JSON(w, http.StatusNoContent, nil)
		default:
			api.JSON(w, http.StatusOK, v)
		}
	}
}

// do serves an action: 200 without a body, or its error.
func (h *handler) do(method string, f func(*http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !api.Method(w, r, method) {
			return
		}
		if err := f(r); err != nil {
			h.fail(w, r, err)
		}
	}
}

// fail answers with err and logs it if it is this node's trouble.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	if !writeError(w, err) && r.Context().Err() == nil {
		h.log.Error("admin request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
}

func (h *handler) status(ctx context.Context) (any, error) {
	status, err := h.ix.Status(ctx)
	if math.IsNaN(status.Usage) || math.IsInf(status.Usage, 0) {
		status.Usage = -1 // JSON has no word for these
	}
	return status, err
}

func (h *handler) assigned(ctx context.Context) (any, error) {
	assignments, err := h.ix.Assigned(ctx)
	if err != nil || len(assignments) == 0 {
		return nil, err
	}
	return assignments, nil
}

func (h *handler) preferred(ctx context.Context) (any, error) {
	ids, err := h.ix.Preferred(ctx)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	return ids, nil
}

func (h *handler) freeze(r *http.Request) error { return h.ix.Freeze(r.Context()) }

func (h *handler) assign(r *http.Request) error {
	publisher, err := pathPeer(r)
	if err != nil {
		return err
	}
	return h.ix.Assign(r.Context(), publisher)
}

func (h *handler) unassign(r *http.Request) error {
	publisher, err := pathPeer(r)
	if err != nil {
		return err
	}
	return h.ix.Unassign(r.Context(), publisher)
}

func (h *handler) handoff(r *http.Request) error {
	publisher, err := pathPeer(r)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return badRequest(err)
	}
	if len(body) == 0 {
		return badRequest(errors.New("missing handoff data"))
	}
	var wire struct{ FrozenID, FrozenURL string }
	if err := json.Unmarshal(body, &wire); err != nil {
		return badRequest(err)
	}
	id, err := decodePeer(wire.FrozenID)
	if err != nil {
		return badRequest(err)
	}
	if _, err := api.ParseBaseURL(wire.FrozenURL); err != nil {
		return badRequest(fmt.Errorf("FrozenURL: %w", err))
	}
	return h.ix.Handoff(r.Context(), publisher, Handoff{FrozenID: id, FrozenURL: wire.FrozenURL})
}

// syncs lists running syncs at /ingest/sync/ and starts one at
// /ingest/sync/{publisher}.
func (h *handler) syncs(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/ingest/sync/" && r.Method == http.MethodGet {
		ids, err := h.ix.Syncs(r.Context())
		if err != nil {
			h.fail(w, r, err)
			return
		}
		texts := make([]string, len(ids))
		for i, id := range ids {
			texts[i] = id.String()
		}
		slices.Sort(texts)
		api.JSON(w, http.StatusOK, texts)
		return
	}
	if !api.Method(w, r, http.MethodPost) {
		return
	}
	publisher, options, err := syncRequest(r)
	if err == nil {
		err = h.ix.Sync(r.Context(), publisher, options)
	}
	switch {
	case err == nil:
		w.WriteHeader(http.StatusAccepted)
	case errors.Is(err, ErrSyncRunning):
		h.fail(w, r, kindError{ErrSyncRunning, fmt.Sprintf("Peer %s has already a sync in progress", publisher)})
	default:
		h.fail(w, r, err)
	}
}

// syncRequest reads publisher, query and body of a sync.
func syncRequest(r *http.Request) (publisher peer.ID, o SyncOptions, err error) {
	if publisher, err = pathPeer(r); err != nil {
		return publisher, o, err
	}
	query := r.URL.Query()
	if text := query.Get("depth"); text != "" {
		depth, err := strconv.ParseInt(text, 10, 32)
		if err == nil && depth < -1 {
			err = fmt.Errorf("depth %d: want -1 for no limit, 0 for the configured one, or more", depth)
		}
		if err != nil {
			return publisher, o, badRequest(err)
		}
		o.Depth = int(depth)
	}
	if text := query.Get("resync"); text != "" {
		if o.Resync, err = strconv.ParseBool(text); err != nil {
			return publisher, o, badRequest(err)
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return publisher, o, badRequest(err)
	}
	if len(body) == 0 {
		return publisher, o, nil
	}
	var text string
	if err := json.Unmarshal(body, &text); err != nil {
		return publisher, o, badRequest(err)
	}
	if o.Addr, err = multiaddr.NewMultiaddr(text); err != nil {
		return publisher, o, badRequest(err)
	}
	return publisher, o, nil
}

// healthcheck answers "OK", with the quotes, as the reference does.
func (h *handler) healthcheck(w http.ResponseWriter, r *http.Request) {
	if !api.Method(w, r, http.MethodGet) {
		return
	}
	check := h.cfg.Check
	if check == nil {
		check = func(ctx context.Context) error {
			_, err := h.ix.Status(ctx)
			return err
		}
	}
	if err := check(r.Context()); err != nil {
		h.log.Error("health check failed", "err", err)
		api.Error(w, http.StatusInternalServerError, oneLine(err.Error()))
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, `"OK"`)
}

// pathPeer is the peer ID that ends the path.
func pathPeer(r *http.Request) (peer.ID, error) {
	id, err := decodePeer(path.Base(r.URL.Path))
	if err != nil {
		return "", kindError{ErrBadRequest, "Cannot decode peer id"}
	}
	return id, nil
}

func decodePeer(s string) (peer.ID, error) {
	if len(s) > maxPeerText {
		return "", errors.New("failed to parse peer ID: too long")
	}
	return peer.Decode(s)
}

// badRequest is err as the client's fault.
func badRequest(err error) error { return kindError{ErrBadRequest, err.Error()} }

// kindError is an error of a kind with a text of its own.
type kindError struct {
	kind error
	text string
}

func (e kindError) Error() string { return e.text }
func (e kindError) Unwrap() error { return e.kind }
