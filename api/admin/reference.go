package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
)

// importRequest is the body of POST /importproviders; the URL's text is base64
// in JSON.
type importRequest struct {
	Indexer []byte `json:"indexer"`
}

// routeReference adds the reference's endpoints about providers and policy.
func (h *handler) routeReference(mux *http.ServeMux, reg Registry) {
	forPeer := func(f func(context.Context, peer.ID) error) http.HandlerFunc {
		return h.do(http.MethodPut, func(r *http.Request) error {
			id, err := pathPeer(r)
			if err != nil {
				return err
			}
			return f(r.Context(), id)
		})
	}
	mux.HandleFunc("/ingest/allow/", forPeer(reg.Allow))
	mux.HandleFunc("/ingest/block/", forPeer(reg.Block))
	mux.HandleFunc("/markadprocessed/", h.do(http.MethodPut, func(r *http.Request) error { return markAd(r, reg) }))
	mux.HandleFunc("/importproviders", h.do(http.MethodPost, func(r *http.Request) error { return importProviders(r, reg) }))
	mux.HandleFunc("/telemetry/providers", func(w http.ResponseWriter, r *http.Request) { h.telemetry(w, r, reg, false) })
	mux.HandleFunc("/telemetry/providers/", func(w http.ResponseWriter, r *http.Request) { h.telemetry(w, r, reg, true) })
}

func markAd(r *http.Request, reg Registry) error {
	provider, err := pathPeer(r)
	if err != nil {
		return err
	}
	ad, err := cid.Decode(r.URL.Query().Get("cid"))
	if err != nil {
		return badRequest(err)
	}
	err = reg.MarkAdProcessed(r.Context(), provider, ad)
	if errors.Is(err, ErrNotFound) {
		return kindError{ErrNotFound, ""} // as the reference
	}
	return err
}

func importProviders(r *http.Request, reg Registry) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return badRequest(err)
	}
	var wire importRequest
	if err := json.Unmarshal(body, &wire); err != nil {
		return badRequest(err)
	}
	if len(wire.Indexer) == 0 {
		return kindError{ErrBadRequest, "missing indexer url in request"}
	}
	if _, err := api.ParseBaseURL(string(wire.Indexer)); err != nil {
		return badRequest(fmt.Errorf("indexer: %w", err))
	}
	err = reg.ImportProviders(r.Context(), string(wire.Indexer))
	if errors.Is(err, ErrUnavailable) {
		return kindError{ErrUnavailable, "Cannot get providers from other indexer"}
	}
	return err
}

// telemetry serves all providers, or the one that ends the path.
func (h *handler) telemetry(w http.ResponseWriter, r *http.Request, reg Registry, one bool) {
	if !api.Method(w, r, http.MethodGet) {
		return
	}
	var id peer.ID
	if one {
		var err error
		if id, err = pathPeer(r); err != nil {
			h.fail(w, r, kindError{ErrBadRequest, "cannot decode provider id"})
			return
		}
	}
	all, err := reg.Telemetry(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	t, known := all[id]
	switch {
	case one && known:
		api.JSON(w, http.StatusOK, t)
	case one || len(all) == 0:
		w.WriteHeader(http.StatusNoContent)
	default:
		wire := make(map[string]Telemetry, len(all)) // a peer.ID as a key would be its bytes
		for id, t := range all {
			wire[id.String()] = t
		}
		api.JSON(w, http.StatusOK, wire)
	}
}

// reloadConfig: there is no configuration file.
func (h *handler) reloadConfig(*http.Request) error {
	return kindError{ErrNotSupported, "this indexer has no configuration file: its flags hold until it is started anew; " +
		"the policy, log levels and polling are changed at run time"}
}

// Subsystem is the name of the one subsystem whose log level is set.
const Subsystem = "signpost"

// routeLog adds the endpoints about logging.
func (h *handler) routeLog(mux *http.ServeMux) {
	mux.HandleFunc("/config/log/level", h.do(http.MethodPost, h.setLogLevel))
	mux.HandleFunc("/config/log/subsystems", func(w http.ResponseWriter, r *http.Request) {
		if !api.Method(w, r, http.MethodGet) {
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, Subsystem+"\n")
	})
}

// setLogLevel sets the level for each pair of a regular expression and a level
// in the query. All are read before one is set.
func (h *handler) setLogLevel(r *http.Request) error {
	query := r.URL.Query()
	if len(query) == 0 {
		return kindError{ErrBadRequest, "at least one <subsystem>=<level> query parameter must be specified"}
	}
	if h.cfg.LogLevel == nil {
		return kindError{ErrNotSupported, "the log level of this indexer is fixed"}
	}
	var level slog.Level
	for expr, values := range query {
		text := values[len(values)-1]
		if text == "" || slices.Contains(values, "") {
			return kindError{ErrBadRequest, "level is not specified for subsystem: " + expr}
		}
		re, err := regexp.Compile(expr)
		if err != nil {
			return badRequest(err)
		}
		if !re.MatchString(Subsystem) {
			return kindError{ErrBadRequest, fmt.Sprintf("no subsystem is called %s: the only one is %s", expr, Subsystem)}
		}
		if err := level.UnmarshalText([]byte(text)); err != nil {
			return badRequest(fmt.Errorf("%w: use debug, info, warn or error", err))
		}
	}
	h.cfg.LogLevel.Set(level)
	h.log.Warn("log level set on request", "level", level)
	return nil
}
