package indexer

import (
	"context"
	"errors"
	"net/http"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/ingest"
	"github.com/signpost-index/signpost/store"
)

// hear takes an announce, by HTTP or gossip. An announce seen before is a
// success without work; it is forgotten when its sync fails, so that it can be
// tried again.
func (ix *Indexer) hear(_ context.Context, a announce.Announce) error {
	if err := ix.allow(a.Publisher.ID); err != nil {
		return err
	}
	if !ix.book.isGone(a.Publisher.ID) && (ix.settled(a.Publisher.ID, a.Head) || !ix.seen.Add(a.Key())) {
		return nil
	}
	err := ix.ingester.Notify(a.Publisher, a.Head)
	if err != nil {
		ix.seen.Forget(a.Key())
	}
	if errors.Is(err, ingest.ErrBusy) || errors.Is(err, ingest.ErrClosed) {
		return errors.Join(announce.ErrUnavailable, err)
	}
	if err == nil {
		ix.log.Debug("announce taken", "publisher", a.Publisher.ID, "head", a.Head, "direct", a.Direct)
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
	announces := announce.NewHandler(ix.hear)
	mux.Handle("/announce", announces)
	mux.Handle("/ingest/announce", announces)
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

// adStatusJSON is GET /sync/status/ad/{cid}; Verdict and Reason are ours.
type adStatusJSON struct {
	Ad      string
	Indexed bool
	Verdict string `json:",omitempty"`
	Reason  string `json:",omitempty"`
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
	}
	api.JSON(w, http.StatusOK, out)
}
