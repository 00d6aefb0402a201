package find

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"html/template"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/ingest/metadata"
)

// Bounds of the front page: what it shows of an answer, and for how long it
// shows the same size of the pool, as anybody may load it.
const (
	maxPageResults = 100
	maxPageAddrs   = 8
	sizeFor        = 10 * time.Second
	sizeWithin     = 2 * time.Second
)

// pageTemplate is the front page: a search, what is in the index, and what else
// may be asked. It needs neither scripts nor anything from elsewhere: its icon is
// in it, as browsers would ask for one otherwise. On a phone each cell is a line of
// its own, and says what the head of its column would.
var pageTemplate = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Signpost {{.Role}}</title>
<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath fill='%23d90' d='M7 1h2v1h4l2 2-2 2H9v9H7V6H2V2h5z'/%3E%3C/svg%3E">
<style>
:root { color-scheme: light dark; }
body { font-family: system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; line-height: 1.5; overflow-wrap: anywhere; }
code, .id { font-family: ui-monospace, monospace; font-size: .9em; }
form { display: flex; gap: .5rem; flex-wrap: wrap; }
input { flex: 1 1 16rem; min-width: 0; font: inherit; padding: .5rem; }
button { font: inherit; padding: .5rem 1rem; }
table { border-collapse: collapse; width: 100%; }
td, th { padding: .3rem 1rem .3rem 0; vertical-align: baseline; text-align: left; border-bottom: 1px solid #8884; }
td a { display: inline-block; padding: .2rem 0; }
.found b { display: none; font: bold .9rem system-ui, sans-serif; }
.note { border-left: .3rem solid #d90; padding-left: .7rem; }
@media (min-width: 40.01rem) { .found td:last-child { white-space: nowrap; } }
@media (max-width: 40rem) {
button { flex: 1 1 auto; }
table, tbody, tr, td { display: block; }
th { display: none; }
td { border: 0; padding: 0; }
tr { padding: .5rem 0; border-bottom: 1px solid #8884; }
.found td + td { padding-top: .4rem; }
.found b { display: block; }
}
</style>
</head>
<body>
<h1>Signpost {{.Role}}</h1>
<form action="/" method="get" role="search">
<input name="q" value="{{.Query}}" aria-label="CID or multihash" placeholder="CID or multihash" autocomplete="off" autocapitalize="off" spellcheck="false" maxlength="2048" required>
<button>Who provides it?</button>
</form>
{{with .Answer}}
{{if .Problem}}<p class="note" id="problem">{{.Problem}}</p>{{else}}
<p id="outcome">{{if .Results}}{{if .Full}}More than {{end}}{{.Results}} result{{if ne .Results 1}}s{{end}} from {{.Providers}} provider{{if ne .Providers 1}}s{{end}}{{else}}Nobody provides it{{end}}, in {{.Took}}.</p>
{{if .Partial}}<p class="note" id="partial">This may not be all: {{.Partial}}.</p>{{end}}
{{if .LeftOut}}<p class="note" id="cut">Only the first {{len .Rows}} providers are shown; {{.LeftOut}} are left out.</p>{{end}}
{{if .Rows}}<table class="found">
<tr><th>provider</th><th>addresses</th><th>protocols</th></tr>
{{range .Rows}}<tr><td class="id"><b>provider</b>{{.ID}}</td><td class="id"><b>addresses</b>{{range .Addrs}}{{.}}<br>{{end}}{{if .More}}and {{.More}} more{{end}}</td><td><b>protocols</b>{{range .Protocols}}{{.}}<br>{{end}}</td></tr>
{{end}}</table>{{end}}
{{end}}{{end}}
{{with .Size}}<p id="size">The index has about {{.Entries}} entries of {{.Providers}} provider{{if ne .Providers 1}}s{{end}}{{if .Newest}}; the newest advertisement came {{.Newest}}{{end}}.{{if .Partial}} Not counted: {{.Partial}}.{{end}}</p>{{end}}
<p>{{if .Frontend}}This is a query frontend of the InterPlanetary Network Indexer (IPNI). It asks
several indexers at once and answers with what they know together.{{else}}This is an indexer of the
InterPlanetary Network Indexer (IPNI). It knows which providers say that they serve the content behind a
CID, and how to ask them for it.{{end}} It stores no content. Providers' claims are not checked: a
provider listed here may not have, or no longer have, the content.</p>
<table>
<tr><td><a href="/cid/{{.CID}}"><code>/cid/{cid}</code></a></td><td>providers of a CID</td></tr>
<tr><td><a href="/multihash/{{.Multihash}}"><code>/multihash/{multihash}</code></a></td><td>providers of a multihash, in base58 or hex</td></tr>
{{if .Frontend}}<tr><td><a href="/routing/v1/providers/{{.CID}}"><code>/routing/v1/providers/{cid}</code></a></td><td>the same for delegated routing</td></tr>
{{end}}<tr><td><a href="/providers"><code>/providers</code></a></td><td>all providers known</td></tr>
<tr><td><code>/providers/{peer ID}</code></td><td>one provider</td></tr>
<tr><td><a href="/stats"><code>/stats</code></a></td><td>size of the index, estimated</td></tr>
<tr><td><a href="/health"><code>/health</code></a></td><td>whether this node can answer</td></tr>
</table>
<p>Finds answer JSON, or one result a line to <code>Accept: application/x-ndjson</code>:</p>
<p><code>curl -H 'Accept: application/x-ndjson' http://{{.Host}}/cid/{{.CID}}</code></p>
{{with .Version}}<p>Version {{.}}</p>{{end}}
</body>
</html>
`))

// The example is the well-known empty UnixFS directory.
const (
	exampleCID       = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
	exampleMultihash = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"
)

// pageAnswer is what a search found.
type pageAnswer struct {
	Problem string // there is no answer, and why
	Results int
	Full    bool // there are more results than were counted
	Rows    []pageRow
	LeftOut int // providers for which there is no row
	Partial string
	Took    time.Duration
}

// Providers is how many there are.
func (a *pageAnswer) Providers() int { return len(a.Rows) + a.LeftOut }

// pageRow is one provider.
type pageRow struct {
	ID               string
	Addrs, Protocols []string
	More             int // addresses not shown
}

// servePage writes the front page, with an answer if something is searched.
func (h *handler) servePage(w http.ResponseWriter, r *http.Request) {
	role := "indexer"
	if h.cfg.Frontend {
		role = "frontend"
	}
	status := http.StatusOK
	var answer *pageAnswer
	query := strings.TrimSpace(r.URL.Query().Get("q"))
	if query != "" {
		answer, status = h.search(r.Context(), query)
	}
	var page bytes.Buffer
	// A template that parsed, over a map, into memory: no error.
	_ = pageTemplate.Execute(&page, map[string]any{
		"Role": role, "Frontend": h.cfg.Frontend, "Version": h.cfg.Version, "Query": query, "Answer": answer,
		"Size": h.size.get(r.Context(), h.finder),
		"CID":  exampleCID, "Multihash": exampleMultihash, "Host": r.Host,
	})
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(page.Bytes())
}

// search looks a CID or multihash up, for people.
func (h *handler) search(ctx context.Context, query string) (*pageAnswer, int) {
	mh, err := ParseKey(query)
	if err != nil || zeroLength(mh) {
		return &pageAnswer{Problem: "That is neither a CID nor a multihash in base58 or hex."}, http.StatusBadRequest
	}
	start := time.Now()
	var results []ProviderResult
	var partial *PartialError
	var budget Budget
	full := false
	for r, err := range h.finder.Find(ctx, mh) {
		var denied *DeniedError
		if full = err == nil && !budget.Take(&r); full {
			break
		}
		switch {
		case err == nil:
			results = append(results, r)
		case errors.As(err, &denied):
			h.metrics.denied.Inc()
			return &pageAnswer{Problem: "That was taken down, and is not answered here: " + cmp.Or(denied.Reason, "no reason is given")}, http.StatusGone
		case errors.As(err, &partial):
		case errors.Is(err, ErrUnavailable):
			return &pageAnswer{Problem: "That is not decided: not all who might know answered. Try again in a few seconds."}, http.StatusServiceUnavailable
		default:
			return &pageAnswer{Problem: "This node failed. Try again later."}, http.StatusInternalServerError
		}
	}
	a := &pageAnswer{Results: len(results), Full: full, Took: time.Since(start).Round(10 * time.Microsecond)}
	switch {
	case partial != nil && len(results) == 0:
		return &pageAnswer{Problem: "That is not decided: " + partial.Error() + ". Try again in a few seconds."}, http.StatusServiceUnavailable
	case partial != nil:
		a.Partial = partial.Error()
	case len(results) == 0:
		return a, http.StatusNotFound
	}
	a.Rows, a.LeftOut = pageRows(Merge(results))
	return a, http.StatusOK
}

// pageRows are the providers of merged results, and how many of them are left out.
func pageRows(results []ProviderResult) (rows []pageRow, leftOut int) {
	seen := make(map[string]bool)
	for n, r := range results {
		if n == 0 || results[n-1].Provider.ID != r.Provider.ID {
			if len(rows) == maxPageResults {
				leftOut++
				continue
			}
			rows = append(rows, newPageRow(r.Provider))
			clear(seen)
		}
		if leftOut > 0 {
			continue
		}
		last := &rows[len(rows)-1]
		for _, p := range metadata.Protocols(r.Metadata) {
			if !seen[p] {
				seen[p] = true
				last.Protocols = append(last.Protocols, p)
			}
		}
	}
	return rows, leftOut
}

func newPageRow(info *peer.AddrInfo) pageRow {
	row := pageRow{ID: info.ID.String()}
	for n, addr := range info.Addrs {
		if n == maxPageAddrs {
			row.More = len(info.Addrs) - n
			break
		}
		row.Addrs = append(row.Addrs, addr.String())
	}
	return row
}

// pageSize is how much is in the index.
type pageSize struct {
	Entries   string
	Providers int
	Newest    string // how long ago, "" if not known
	Partial   string
}

// sizes remembers the size shown last.
type sizes struct {
	asking atomic.Bool // somebody is
	last   atomic.Pointer[sizeAt]
}

type sizeAt struct {
	at   time.Time
	size *pageSize // nil: nobody says
}

// get is the size of what f knows, at most some seconds old. One page at a time
// asks; what others show meanwhile may be older, or nothing.
func (s *sizes) get(ctx context.Context, f Finder) *pageSize {
	last := s.last.Load()
	if last != nil && time.Since(last.at) < sizeFor || !s.asking.CompareAndSwap(false, true) {
		if last == nil {
			return nil
		}
		return last.size
	}
	defer s.asking.Store(false)
	size := askSize(ctx, f)
	if size != nil || ctx.Err() == nil { // the reader has not left
		s.last.Store(&sizeAt{time.Now(), size})
	}
	return size
}

// askSize is nil if nobody says.
func askSize(ctx context.Context, f Finder) *pageSize {
	ctx, cancel := context.WithTimeout(ctx, sizeWithin)
	defer cancel()
	stats, err := f.Stats(ctx)
	infos, infosErr := f.Providers(ctx)
	var partial *PartialError
	if err := errors.Join(err, infosErr); err != nil && !errors.As(err, &partial) {
		return nil
	}
	size := &pageSize{Entries: humanize.Comma(stats.EntriesEstimate), Providers: len(infos)}
	if partial != nil {
		size.Partial = partial.Error()
	}
	var newest time.Time
	for _, info := range infos {
		if info.LastAdvertisementTime.After(newest) {
			newest = info.LastAdvertisementTime
		}
	}
	if !newest.IsZero() {
		size.Newest = humanize.Time(newest)
	}
	return size
}
