package find

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api"
)

// maxBatchBody bounds the request of a batch: MaxBatch keys of the longest text.
const maxBatchBody = MaxBatch*(maxBatchKey+4) + 1<<10

// headerBatch is on every answer to a batch: a 404 without it is of a server
// that knows no batches.
const headerBatch = "X-Signpost-Batch"

// maxBatchKey is how long the text of one key may be: a multihash of 512 bits in
// any base, and more.
const maxBatchKey = 256

// serveMultihashBatch answers POST /multihash {"Multihashes":[base64,...]}.
func (h *handler) serveMultihashBatch(w http.ResponseWriter, r *http.Request) {
	var q struct{ Multihashes [][]byte }
	if !h.readBatch(w, r, &q) {
		return
	}
	h.answerBatch(w, r, len(q.Multihashes), func(n int) (multihash.Multihash, string, error) {
		mh, err := multihash.Cast(q.Multihashes[n])
		return mh, base64.StdEncoding.EncodeToString(q.Multihashes[n]), err
	})
}

// serveCIDBatch answers POST /cid {"Cids":[text,...]}.
func (h *handler) serveCIDBatch(w http.ResponseWriter, r *http.Request) {
	var q struct{ Cids []string }
	if !h.readBatch(w, r, &q) {
		return
	}
	h.answerBatch(w, r, len(q.Cids), func(n int) (multihash.Multihash, string, error) {
		if len(q.Cids[n]) > maxBatchKey {
			return nil, "", errors.New("too long")
		}
		c, err := parseCID(q.Cids[n])
		if err != nil {
			return nil, "", err
		}
		return c.Hash(), q.Cids[n], nil
	})
}

// preflightBatch lets web pages ask: a JSON body is nothing a browser sends unasked. Any
// other OPTIONS is answered as by the reference, whose batches are one level down.
func preflightBatch(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Access-Control-Request-Method") != http.MethodPost {
		u := *r.URL
		u.Path += "/"
		http.Redirect(w, r, u.String(), http.StatusTemporaryRedirect)
		return
	}
	header := w.Header()
	header["Access-Control-Allow-Origin"] = anyOrigin
	header.Set("Access-Control-Allow-Methods", "POST, OPTIONS")
	header.Set("Access-Control-Allow-Headers", "Content-Type, Accept")
	header.Set("Access-Control-Max-Age", "86400")
	w.WriteHeader(http.StatusNoContent)
}

// readBatch reads the body of a batch, or has refused it.
func (h *handler) readBatch(w http.ResponseWriter, r *http.Request, q any) bool {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set(headerBatch, "1")
	body, err := api.ReadBody(r.Body, maxBatchBody)
	switch {
	case errors.Is(err, api.ErrTooLarge):
		api.Error(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("more than %d bytes: ask about at most %d keys at once", maxBatchBody, MaxBatch))
	case err != nil:
		api.Error(w, http.StatusBadRequest, "body not read: "+err.Error())
	default:
		if err = json.Unmarshal(body, q); err != nil {
			api.Error(w, http.StatusBadRequest, `want {"Multihashes":["<base64>",...]} at /multihash, {"Cids":["<text>",...]} at /cid: `+err.Error())
		}
	}
	return err == nil
}

// answerBatch looks n keys up and answers: key gives each, and how it was asked
// for.
func (h *handler) answerBatch(w http.ResponseWriter, r *http.Request, n int, key func(int) (multihash.Multihash, string, error)) {
	if n == 0 || n > MaxBatch {
		api.Error(w, http.StatusBadRequest, fmt.Sprintf("%d keys: want 1 to %d", n, MaxBatch))
		return
	}
	if !api.Charge(w, r, n) {
		return
	}
	keys, texts := make([]multihash.Multihash, n), make(map[string][]string, n)
	for i := range n {
		mh, text, err := key(i)
		if err == nil && h.cfg.Frontend && zeroLength(mh) {
			err = errors.New("zero-length digest")
		}
		if err != nil {
			api.Error(w, http.StatusBadRequest, fmt.Sprintf("key %d: %v", i, err))
			return
		}
		keys[i], texts[string(mh)] = mh, append(texts[string(mh)], text)
	}
	b, err := FindBatch(r.Context(), h.finder, keys)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	unknown := []string{}
	for _, mh := range b.Unknown {
		unknown = append(unknown, texts[string(mh)]...)
	}
	h.metrics.denied.Add(float64(len(b.Denied)))
	switch {
	case len(b.Denied) > 0:
		h.sendBatch(w, r, b, unknown, deniedKeys(b.Denied, texts))
	case len(b.Results) == 0 && len(unknown) > 0:
		h.undecided(w, r, &PartialError{Missing: b.Missing})
	case len(b.Results) == 0:
		h.metrics.missed.Inc()
		api.Error(w, http.StatusNotFound, "no results for query")
	default:
		h.sendBatch(w, r, b, unknown, nil)
	}
}

// deniedKey is a denied key of a batch as it was asked for.
type deniedKey struct {
	Key    string
	Kind   DenyKind
	Reason string
}

func deniedKeys(denied []Denied, texts map[string][]string) (keys []deniedKey) {
	for _, d := range denied {
		for _, text := range texts[string(d.Multihash)] {
			keys = append(keys, deniedKey{text, d.Err.Kind, d.Err.Reason})
		}
	}
	return keys
}

func (h *handler) sendBatch(w http.ResponseWriter, req *http.Request, b Batch, unknown []string, denied []deniedKey) {
	if len(b.Missing) > 0 {
		h.markPartial(w, &PartialError{Missing: b.Missing})
	}
	body := append(make([]byte, 0, 4<<10), `{"MultihashResults":[`...)
	for n, r := range b.Results {
		if n > 0 {
			body = append(body, ',')
		}
		if h.cfg.Frontend {
			r.ProviderResults = Merge(r.ProviderResults)
		}
		h.metrics.results.Add(float64(len(r.ProviderResults)))
		body = appendMultihashResult(body, r.Multihash, onWire(r.ProviderResults, wantsPosition(req)))
	}
	body = append(body, ']')
	body = appendField(body, "Unknown", unknown)
	body = appendField(body, "Denied", denied)
	api.JSONBytes(w, http.StatusOK, append(body, '}'))
}

// appendField appends a list of a batch's answer, unless it is empty. Texts always
// marshal.
func appendField[T any](body []byte, name string, list []T) []byte {
	if len(list) == 0 {
		return body
	}
	value, _ := json.Marshal(list)
	return append(append(body, `,"`+name+`":`...), value...)
}
