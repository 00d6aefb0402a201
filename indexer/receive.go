package indexer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/openapi"
	"github.com/signpost-index/signpost/ingest"
	"github.com/signpost-index/signpost/store"
)

// hear takes an announce, by HTTP or gossip. An announce seen before is a
// success without work; it is forgotten when its sync fails, so that it can be
// tried again.
//
// One that came by HTTP is on disk when nil is returned.
func (ix *Indexer) hear(ctx context.Context, a announce.Announce) error {
	result, err := ix.take(ctx, a)
	way := "gossip"
	if a.Direct {
		way = "direct"
	}
	switch {
	case errors.Is(err, announce.ErrUnavailable):
		result = "unavailable"
	case err != nil:
		result = "refused"
	}
	ix.heard.WithLabelValues(way, result).Inc()
	return err
}

// take is hear, and says what became of an announce without an error.
func (ix *Indexer) take(ctx context.Context, a announce.Announce) (result string, err error) {
	if err := ix.allow(a.Publisher.ID); err != nil {
		return "", err
	}
	result = "taken"
	switch gone := ix.book.isGone(a.Publisher.ID); {
	case !gone && ix.settled(a.Publisher.ID, a.Head):
		return "repeated", nil
	case !gone && !ix.seen.Add(a.Key()):
		result = "repeated"
		if !a.Direct {
			return result, nil
		}
		err = ix.store.Sync() // the one before may not be on disk yet
	case a.Direct:
		err = ix.announced(a, ix.ingester.Announce(ctx, a.Publisher, a.Head))
	default:
		err = ix.announced(a, ix.ingester.Notify(a.Publisher, a.Head))
	}
	if errors.Is(err, ingest.ErrBusy) || errors.Is(err, ingest.ErrClosed) || errors.Is(err, store.ErrFailed) {
		return result, errors.Join(announce.ErrUnavailable, err)
	}
	if err == nil {
		ix.log.Debug("announce taken", "publisher", a.Publisher.ID, "head", a.Head, "direct", a.Direct)
	}
	return result, err
}

// announced forgets an announce that was not taken, so that it can be repeated.
func (ix *Indexer) announced(a announce.Announce, err error) error {
	if err != nil {
		ix.seen.Forget(a.Key())
	}
	return err
}

// settled says whether the announced ad has its verdict already, as part of
// this publisher's chain: then there is nothing to do.
func (ix *Indexer) settled(publisher peer.ID, head cid.Cid) bool {
	st, ok, err := ix.store.AdState(head)
	return err == nil && ok && st.Publisher == publisher && st.Verdict != store.Pending
}

// ingestHandler serves the ingest port: announces, sync status, health
// (admin.md section 5).
func (ix *Indexer) ingestHandler() http.Handler {
	mux := http.NewServeMux()
	announces := announce.NewProbingHandler(ix.hear, ix.probe)
	mux.Handle("/announce", announces)
	mux.Handle("/ingest/announce", announces)
	mux.HandleFunc(openapi.Path, openapi.Serve)
	mux.HandleFunc("/register", ix.register)
	mux.HandleFunc("/health", ix.health)
	mux.HandleFunc("/sync/status", ix.syncStatuses)
	mux.HandleFunc("/sync/status/{publisher}", ix.syncStatus)
	mux.HandleFunc("/sync/status/ad/{cid}", ix.adStatus)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		api.Error(w, http.StatusNotFound, "Not Found")
	})
	return mux
}

// maxProbes bounds the probes at once: each may dial sixteen addresses for 30 s.
const maxProbes = 8

// probe looks at an announced publisher as a sync would, and says in words
// what is wrong.
func (ix *Indexer) probe(ctx context.Context, a announce.Announce) (any, error) {
	select {
	case ix.probes <- struct{}{}:
		defer func() { <-ix.probes }()
	default:
		return nil, fmt.Errorf("%d probes are running: try again later", maxProbes)
	}
	return ix.client.Probe(ctx, a.Publisher), nil
}

func (ix *Indexer) health(w http.ResponseWriter, r *http.Request) {
	if !api.Method(w, r, http.MethodGet) {
		return
	}
	text := "ready"
	if ix.cfg.Version != "" {
		text += " " + ix.cfg.Version
	}
	w.Header().Set("Cache-Control", "no-cache")
	api.Error(w, http.StatusOK, text)
}

// statusRequest checks what the three status endpoints share.
func statusRequest(w http.ResponseWriter, r *http.Request) bool {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	if !api.Method(w, r, http.MethodGet) {
		return false
	}
	if json, _, err := api.ParseAccept(r); err != nil || !json {
		api.Error(w, http.StatusNotAcceptable, "accept: application/json, */*")
		return false
	}
	return true
}

func (ix *Indexer) syncStatuses(w http.ResponseWriter, r *http.Request) {
	if !statusRequest(w, r) {
		return
	}
	out := make(map[string]ingest.SyncStatus)
	for id, st := range ix.ingester.Statuses() {
		out[id.String()] = st
	}
	if len(out) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	api.JSON(w, http.StatusOK, out)
}

func (ix *Indexer) syncStatus(w http.ResponseWriter, r *http.Request) {
	if !statusRequest(w, r) {
		return
	}
	id, err := peer.Decode(r.PathValue("publisher"))
	if err != nil {
		api.Error(w, http.StatusBadRequest, "Cannot decode peer id")
		return
	}
	st, ok := ix.ingester.Status(id)
	if !ok {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	api.JSON(w, http.StatusOK, st)
}

// adStatusJSON is GET /sync/status/ad/{cid}; all but Ad and Indexed is ours.
type adStatusJSON struct {
	Ad      string
	Indexed bool
	Verdict string `json:",omitempty"`
	// Reason says why it was rejected, or what stands in the way while it is pending.
	Reason   string    `json:",omitempty"`
	Time     time.Time `json:",omitzero"` // of the verdict, or since when it is pending
	Attempts uint32    `json:",omitempty"`
	Since    time.Time `json:",omitzero"` // of the first failed attempt
	NextTry  time.Time `json:",omitzero"`
	// Stages are those of this run of the node.
	Stages *ingest.Stages `json:",omitempty"`
}

func (ix *Indexer) adStatus(w http.ResponseWriter, r *http.Request) {
	if !statusRequest(w, r) {
		return
	}
	c, err := cid.Parse(r.PathValue("cid"))
	if err != nil {
		api.Error(w, http.StatusBadRequest, "Cannot decode advertisement cid")
		return
	}
	st, ok, err := ix.store.AdState(c)
	if err != nil {
		ix.log.Error("ad status", "ad", c, "err", err)
		api.Error(w, http.StatusInternalServerError, "")
		return
	}
	out := adStatusJSON{Ad: c.String()}
	if ok {
		out.Verdict, out.Reason = st.Verdict.String(), st.Reason
		out.Indexed = st.Durable && (st.Verdict == store.Applied || st.Verdict == store.Superseded)
		out.Time = st.Time
		if t := st.Trouble; t.Attempts > 0 {
			out.Attempts, out.Since, out.NextTry = t.Attempts, t.Since, t.Next
			if out.Reason == "" {
				out.Reason = t.Reason
			}
		}
	}
	if stages, ok := ix.ingester.Stages(c); ok {
		out.Stages = &stages
	}
	api.JSON(w, http.StatusOK, out)
}
