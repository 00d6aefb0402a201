package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
)

// Paths of a RoleKeeper, all ours. CoveragePath is served on the find listener
// of an indexer too.
const (
	RolesPath    = "/signpost/v1/roles"
	CoveragePath = "/signpost/v1/coverage"
	PoolMapPath  = "/signpost/v1/poolmap"

	closePath    = RolesPath + "/close"
	takeOverPath = RolesPath + "/takeover"
	openPath     = RolesPath + "/open"
	backfillPath = RolesPath + "/backfill"
	releasePath  = RolesPath + "/release"
)

const (
	// maxTakeOver bounds the body of a takeover: a batch that lists all ads it may
	// takes 17 MB.
	maxTakeOver = 32 << 20
	// MaxPoolMapBytes bounds a PoolMap as JSON.
	MaxPoolMapBytes = 64 << 20
	// maxVersionText bounds the version a caller names.
	maxVersionText = 256
)

// bodyLimit is how large the body of a request may be.
func bodyLimit(path string) int64 {
	switch path {
	case takeOverPath:
		return maxTakeOver
	case PoolMapPath:
		return MaxPoolMapBytes
	}
	return maxRequestBody
}

// limitBodies bounds the bodies of requests by their path.
func limitBodies(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, bodyLimit(r.URL.Path))
		h.ServeHTTP(w, r)
	})
}

// NewCoverageHandler serves CoveragePath, for listeners that anybody may ask.
// log of failures is that of cfg.
func NewCoverageHandler(k RoleKeeper, cfg HandlerConfig) http.Handler {
	return newHandler(nil, cfg).coverage(k)
}

func (h *handler) coverage(k RoleKeeper) http.HandlerFunc {
	return h.get(func(ctx context.Context) (any, error) {
		c, err := k.Coverage(ctx)
		if c.Publishers == nil {
			c.Publishers = []CoveredPublisher{}
		}
		return c, err
	})
}

// routeRoles adds the endpoints of a RoleKeeper.
func (h *handler) routeRoles(mux *http.ServeMux, k RoleKeeper) {
	mux.HandleFunc(RolesPath, func(w http.ResponseWriter, r *http.Request) { h.roles(w, r, k) })
	mux.HandleFunc(CoveragePath, h.coverage(k))
	mux.HandleFunc(PoolMapPath, func(w http.ResponseWriter, r *http.Request) { h.poolMap(w, r, k) })
	mux.HandleFunc(closePath, batch(h, readPublishers, k.Close))
	mux.HandleFunc(takeOverPath, batch(h, readTakeOver, k.TakeOver))
	mux.HandleFunc(openPath, batch(h, readPublishers, k.Open))
	mux.HandleFunc(backfillPath, batch(h, readPublishers, k.Backfill))
	mux.HandleFunc(releasePath, batch(h, readPublishers, k.Release))
}

// roles answers 204 if the version is the one the caller has.
func (h *handler) roles(w http.ResponseWriter, r *http.Request, k RoleKeeper) {
	if !api.Method(w, r, http.MethodGet) {
		return
	}
	version := r.URL.Query().Get("version")
	if len(version) > maxVersionText {
		version = "" // none of ours
	}
	roles, err := k.Roles(r.Context(), version)
	switch {
	case err != nil:
		h.fail(w, r, err)
	case roles == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		if roles.Publishers == nil {
			roles.Publishers = []PublisherRole{}
		}
		api.JSON(w, http.StatusOK, roles)
	}
}

func (h *handler) poolMap(w http.ResponseWriter, r *http.Request, k RoleKeeper) {
	if r.Method == http.MethodGet {
		h.get(func(ctx context.Context) (any, error) { return k.PoolMap(ctx) })(w, r)
		return
	}
	if !api.Method(w, r, http.MethodGet, http.MethodPut) {
		return
	}
	var m PoolMap
	err := readBody(r, &m)
	if err == nil {
		err = k.SetPoolMap(r.Context(), m)
	}
	if err != nil {
		h.fail(w, r, err)
	}
}

// batch serves a call about several publishers.
func batch[In, Out any](h *handler, read func(*http.Request) (In, error), call func(context.Context, In) ([]Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !api.Method(w, r, http.MethodPost) {
			return
		}
		in, err := read(r)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		out, err := call(r.Context(), in)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		if out == nil {
			out = []Out{}
		}
		api.JSON(w, http.StatusOK, out)
	}
}

func readPublishers(r *http.Request) (ids []peer.ID, err error) {
	err = readBody(r, &ids)
	if err == nil {
		err = checkBatch(len(ids))
	}
	return ids, err
}

func readTakeOver(r *http.Request) (t TakeOver, err error) {
	if err = readBody(r, &t); err == nil {
		err = checkBatch(len(t.Offers))
	}
	for _, o := range t.Offers {
		if err == nil && len(o.Applied) > MaxOfferedAds {
			err = badRequest(fmt.Errorf("%d applied advertisements of %s, at most %d", len(o.Applied), o.Publisher, MaxOfferedAds))
		}
	}
	return t, err
}

func checkBatch(n int) error {
	if n > MaxBatch {
		return badRequest(fmt.Errorf("batch of %d publishers, at most %d", n, MaxBatch))
	}
	return nil
}

// readBody reads JSON with peer IDs in it. Fields that are not known are passed
// over, so that a newer assigner may add some.
func readBody(r *http.Request, v any) error {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return badRequest(err)
	}
	if longText(b) {
		return badRequest(errors.New("peer ID or CID too long"))
	}
	if err := json.Unmarshal(b, v); err != nil {
		return badRequest(err)
	}
	return nil
}

// longText tells whether JSON has a string that would be taken for base58 and
// is longer than any peer ID: decoding takes time in the square of its length.
func longText(b []byte) bool {
	for {
		at := bytes.IndexByte(b, '"')
		if at < 0 {
			return false
		}
		b = b[at+1:]
		if len(b) > maxPeerText && (b[0] == '1' || b[0] == 'Q') && bytes.IndexByte(b[:maxPeerText], '"') < 0 {
			return true
		}
	}
}

// Roles asks what the indexer is to which publishers.
func (c *Client) Roles(ctx context.Context, version string) (*Roles, error) {
	u := c.base.JoinPath(RolesPath)
	if version != "" {
		u.RawQuery = url.Values{"version": {version}}.Encode()
	}
	var roles *Roles
	err := c.callOurs(ctx, http.MethodGet, u, nil, &roles)
	return roles, err
}

// Close makes the indexer a holder.
func (c *Client) Close(ctx context.Context, publishers []peer.ID) (offers []Offer, err error) {
	err = c.callOurs(ctx, http.MethodPost, c.base.JoinPath(closePath), publishers, &offers)
	return offers, sameLength(err, len(offers), len(publishers))
}

// TakeOver makes the indexer go on where another stopped.
func (c *Client) TakeOver(ctx context.Context, t TakeOver) (out []Outcome, err error) {
	err = c.callOurs(ctx, http.MethodPost, c.base.JoinPath(takeOverPath), t, &out)
	return out, sameLength(err, len(out), len(t.Offers))
}

// Open makes the indexer an owner.
func (c *Client) Open(ctx context.Context, publishers []peer.ID) ([]Outcome, error) {
	return c.roleBatch(ctx, openPath, publishers)
}

// Backfill has the indexer fetch older ads.
func (c *Client) Backfill(ctx context.Context, publishers []peer.ID) ([]Outcome, error) {
	return c.roleBatch(ctx, backfillPath, publishers)
}

// Release makes the indexer give publishers up.
func (c *Client) Release(ctx context.Context, publishers []peer.ID) ([]Outcome, error) {
	return c.roleBatch(ctx, releasePath, publishers)
}

func (c *Client) roleBatch(ctx context.Context, path string, publishers []peer.ID) (out []Outcome, err error) {
	err = c.callOurs(ctx, http.MethodPost, c.base.JoinPath(path), publishers, &out)
	return out, sameLength(err, len(out), len(publishers))
}

// sameLength refuses an answer that is not in the order of what was asked.
func sameLength(err error, got, want int) error {
	if err == nil && got != want {
		return fmt.Errorf("%w: answer about %d publishers, asked about %d", ErrUnavailable, got, want)
	}
	return err
}

// Coverage asks what the indexer holds.
func (c *Client) Coverage(ctx context.Context) (cov Coverage, err error) {
	err = c.callOurs(ctx, http.MethodGet, c.base.JoinPath(CoveragePath), nil, &cov)
	return cov, err
}

// PoolMap asks for the map that was left at the indexer.
func (c *Client) PoolMap(ctx context.Context) (m PoolMap, err error) {
	err = c.callOurs(ctx, http.MethodGet, c.base.JoinPath(PoolMapPath), nil, &m)
	return m, err
}

// SetPoolMap leaves a map at the indexer.
func (c *Client) SetPoolMap(ctx context.Context, m PoolMap) error {
	return c.callOurs(ctx, http.MethodPut, c.base.JoinPath(PoolMapPath), m, nil)
}

// callOurs is call for what only our indexers do: of another, which does not
// know the path, it says ErrNotSupported.
func (c *Client) callOurs(ctx context.Context, method string, u *url.URL, body, answer any) error {
	err := c.call(ctx, method, u, body, answer)
	var remote *remoteError
	if errors.As(err, &remote) && remote.status.Status == http.StatusNotFound && !remote.named {
		return &remoteError{kind: ErrNotSupported, status: remote.status}
	}
	return err
}

var _ RoleKeeper = (*Client)(nil)
