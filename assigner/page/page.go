// Package page is the pool page: a pool's nodes, publishers, what is under way
// and what happened, for people with a browser.
//
//	Config.Pool ──▶ Pool ─┐
//	Config.Publisher ─────┼─▶ template ─▶ GET /            the page
//	                      └─────────────▶ GET /?part=live  what of it changes
//
// The page is whole without scripts, and then loads itself anew. With them it asks
// every two seconds for the part that changes and puts in what is other than before.
// It needs nothing but its own two addresses, has style and script in it, and lets a
// browser run nothing else. What it shows is text, whoever wrote it.
//
// Who may act is not decided here: a button asks an address of the operator's API,
// which lets the request in or not.
package page

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
)

// Bounds of the page: how many nodes one shows, how many pages are made at once, and
// how long a request waits for its turn.
const (
	NodesShown = 200
	maxMaking  = 4
	turnWithin = 2 * time.Second
	maxName    = 200 // bytes of a publisher's ID in the address
)

// Access is what a reader may do.
type Access int

const (
	// ReadOnly: nothing can be done from here.
	ReadOnly Access = iota
	// AskToken: something can, with the token of the admin API.
	AskToken
	// Operate: the request had what it takes.
	Operate
)

// Config of a page.
type Config struct {
	Access Access
	// Pool is the pool as it is now. It is called for each page and part, and may
	// return the same value often; it is not changed.
	Pool func() *Pool
	// Publisher is what is known of one publisher, or nil if nothing is.
	Publisher func(peer.ID) *Detail
}

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

var pageTemplate = template.Must(template.New("page").Funcs(words).Parse(pageHTML))

// policy lets a browser take what is in the page, and ask where it came from.
var policy = strings.Join([]string{
	"default-src 'none'", "style-src " + source(pageCSS), "script-src " + source(pageJS), "connect-src 'self'", "img-src data:",
	"form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'",
}, "; ")

// source names a text in a policy.
func source(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// shown is what the template gets.
type shown struct {
	Access    Access
	Pool      *Pool
	Nodes     []Node // of this page
	Page      int    // from 1
	Pages     int
	Publisher string // that is asked for
	Problem   string // with that
	Detail    *Detail
	CSS       template.CSS
	JS        template.JS
}

// Handler serves the page at whatever path it is mounted.
func Handler(cfg Config) http.Handler {
	turns := make(chan struct{}, maxMaking)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !api.Method(w, r, http.MethodGet) {
			return
		}
		if !turn(r.Context(), turns) {
			w.Header().Set("Retry-After", "5")
			api.Error(w, http.StatusServiceUnavailable, "too many look at this page now")
			return
		}
		defer func() { <-turns }()
		q := r.URL.Query()
		s, status := look(cfg, q)
		name := "page"
		if q.Get("part") == "live" {
			name, status = "live", http.StatusOK // else a browser would report it each time
		}
		var body bytes.Buffer
		// A template that parsed, over values of ours, into memory: no error.
		_ = pageTemplate.ExecuteTemplate(&body, name, s)
		setHeader(w.Header())
		w.WriteHeader(status)
		_, _ = w.Write(body.Bytes())
	})
}

func setHeader(h http.Header) {
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Authorization")
}

// turn waits for a place among those whose page is being made.
func turn(ctx context.Context, turns chan struct{}) bool {
	select {
	case turns <- struct{}{}:
		return true
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, turnWithin)
	defer cancel()
	select {
	case turns <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// look is what a reader sees who asked with q.
func look(cfg Config, q url.Values) (*shown, int) {
	s := &shown{Access: cfg.Access, Pool: cfg.Pool(), CSS: template.CSS(pageCSS), JS: template.JS(pageJS)}
	s.Pages = max(1, (len(s.Pool.Nodes)+NodesShown-1)/NodesShown)
	s.Page, _ = strconv.Atoi(q.Get("page"))
	s.Page = min(max(s.Page, 1), s.Pages)
	first := (s.Page - 1) * NodesShown
	s.Nodes = s.Pool.Nodes[first:min(first+NodesShown, len(s.Pool.Nodes))]
	s.Publisher = strings.TrimSpace(q.Get("publisher"))
	if s.Publisher == "" {
		return s, http.StatusOK
	}
	id, err := decode(s.Publisher)
	if err != nil {
		s.Publisher = api.PlainText(s.Publisher, maxName)
		s.Problem = "That is not a peer ID, such as 12D3KooW…"
		return s, http.StatusBadRequest
	}
	if s.Detail = cfg.Publisher(id); s.Detail == nil {
		s.Problem = "No indexer has this publisher, and no announce of it has come."
		return s, http.StatusNotFound
	}
	return s, http.StatusOK
}

// decode is peer.Decode for text of anybody's.
func decode(text string) (peer.ID, error) {
	if len(text) > maxName {
		return "", peer.ErrEmptyPeerID
	}
	return peer.Decode(text)
}
