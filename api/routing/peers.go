package routing

import (
	"errors"
	"net/http"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/find"
)

// maxPeerText bounds the text of a peer ID: base58 takes time in the square of
// its length.
const maxPeerText = 256

// servePeer answers GET /routing/v1/peers/{peer ID}: where a provider that the
// index knows is, one record, or none. The ID may be base58 or a CID.
func (h *handler) servePeer(w http.ResponseWriter, r *http.Request) {
	if !method(w, r) {
		return
	}
	id, err := parsePeer(r.PathValue("peer"))
	if err != nil {
		api.Error(w, http.StatusUnprocessableEntity, "invalid peer ID: want base58 (12D3Koo..., Qm...) or a CID of a libp2p key")
		return
	}
	filter, ndjson, ok := wanted(w, r)
	if !ok {
		return
	}
	info, err := h.finder.Provider(r.Context(), id)
	var partial *find.PartialError
	switch {
	case err == nil, errors.Is(err, find.ErrNotFound), errors.As(err, &partial):
	default:
		h.fail(w, r, err)
		return
	}
	records := []record{}
	if info != nil {
		records = filter.all(append(records, record{id: info.AddrInfo.ID, addrs: info.AddrInfo.Addrs}))
	}
	if !ndjson {
		h.send(w, r, "Peers", records, partial)
		return
	}
	if partial != nil && len(records) == 0 {
		h.fail(w, r, partial)
		return
	}
	h.sendLines(w, records, partial)
}

func parsePeer(text string) (peer.ID, error) {
	if len(text) > maxPeerText {
		return "", errors.New("too long")
	}
	return peer.Decode(text)
}

// sendLines answers with records that are all known already.
func (h *handler) sendLines(w http.ResponseWriter, records []record, partial *find.PartialError) {
	s := newLines(w)
	switch {
	case partial != nil:
		h.answer.WithLabelValues("partial").Inc()
		w.Header().Set(find.HeaderPartial, partial.Header())
		w.Header().Set("Access-Control-Expose-Headers", find.HeaderPartial)
		s.begin("no-store")
	case len(records) == 0:
		h.answer.WithLabelValues("empty").Inc()
		s.begin(cacheEmpty)
	default:
		h.answer.WithLabelValues("found").Inc()
		s.begin("no-store")
	}
	for _, rec := range records {
		s.send(&rec)
	}
}
