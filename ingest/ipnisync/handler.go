package ipnisync

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/signpost-index/signpost/ingest/schema"
)

// Source is a chain to be served. Both methods may be called concurrently.
type Source interface {
	// Head returns the signed head, or [ErrNoHead] for an empty chain.
	Head(ctx context.Context) (*schema.SignedHead, error)
	// Block returns the bytes of block c, which the caller may not change, or
	// [ErrNotFound].
	Block(ctx context.Context, c cid.Cid) ([]byte, error)
}

// What caches are told (IPNI_HTTP_PROVIDER.md): a head changes, a block never.
const (
	headCacheControl  = "no-cache, no-store, must-revalidate"
	blockCacheControl = "public, max-age=29030400, immutable"
)

// protocols is the answer to the discovery request of libp2p's HTTP clients.
const protocols = `{"` + Path + `":{"path":"` + Path + `"}}`

// NewHandler serves src:
//
//	GET, HEAD /ipni/v1/ad/head                 200; 204 with an empty chain
//	GET, HEAD /ipni/v1/ad/{cid}                200; 404 for an unknown block
//	GET, HEAD /.well-known/libp2p/protocols    which protocol is where
//	GET, HEAD /.well-known/libp2p              the same, older path
//
// Any other path, and a last element that is no CID, is 400; any other method
// 405; any other failure of src 500 (src is the place to log it). Blocks are
// sent as stored, whatever their codec. The schema hint is ignored. A publisher
// below a path of its own wraps the handler in http.StripPrefix.
// Source: sync.md, sections 1 and 3.
func NewHandler(src Source) http.Handler { return &handler{src} }

type handler struct{ src Source }

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	switch r.URL.Path {
	case "/.well-known/libp2p/protocols", "/.well-known/libp2p":
		serve(w, r, "application/json", []byte(protocols))
		return
	}
	resource, ok := strings.CutPrefix(r.URL.Path, Path+"/")
	if !ok {
		http.Error(w, "not a path of "+Path, http.StatusBadRequest)
		return
	}
	if resource == "head" {
		h.serveHead(w, r)
		return
	}
	c, err := cid.Decode(resource) // any multibase
	if err != nil {
		http.Error(w, "not a CID", http.StatusBadRequest)
		return
	}
	h.serveBlock(w, r, c)
}

func (h *handler) serveHead(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", headCacheControl)
	head, err := h.src.Head(r.Context())
	if errors.Is(err, ErrNoHead) {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if err != nil {
		http.Error(w, "cannot load the head", http.StatusInternalServerError)
		return
	}
	body, err := head.Encode()
	if err != nil {
		http.Error(w, "cannot encode the head", http.StatusInternalServerError)
		return
	}
	// Not the head's CID: some kinds of keys sign the same head differently each time.
	sum := sha256.Sum256(body)
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:16])+`"`)
	serve(w, r, contentType(cid.DagJSON), body)
}

func (h *handler) serveBlock(w http.ResponseWriter, r *http.Request, c cid.Cid) {
	block, err := h.src.Block(r.Context(), c)
	if errors.Is(err, ErrNotFound) {
		http.Error(w, "no block "+c.String(), http.StatusNotFound)
		return
	}
	if err != nil {
		http.Error(w, "cannot load block "+c.String(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Cache-Control", blockCacheControl)
	w.Header().Set("ETag", `"`+c.String()+`"`)
	serve(w, r, contentType(c.Type()), block)
}

func contentType(codec uint64) string {
	switch codec {
	case cid.DagJSON:
		return "application/vnd.ipld.dag-json"
	case cid.DagCBOR:
		return "application/vnd.ipld.dag-cbor"
	}
	return "application/octet-stream"
}

// serve sends body; conditional and range requests are the library's work.
func serve(w http.ResponseWriter, r *http.Request, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}
