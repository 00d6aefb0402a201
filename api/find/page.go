package find

import (
	"bytes"
	"html/template"
	"net/http"
)

// pageTemplate is the front page: what this is, and what may be asked.
var pageTemplate = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Signpost {{.Role}}</title>
<style>
body { font-family: system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem; line-height: 1.5; }
code { background: #f2f2f2; padding: 0 .2rem; overflow-wrap: anywhere; }
td { padding: .2rem 1rem .2rem 0; vertical-align: top; }
</style>
</head>
<body>
<h1>Signpost {{.Role}}</h1>
<p>{{if .Frontend}}This is a query frontend of the InterPlanetary Network Indexer (IPNI). It asks
several indexers at once and answers with what they know together.{{else}}This is an indexer of the
InterPlanetary Network Indexer (IPNI). It knows which providers say that they serve the content behind a
CID, and how to ask them for it.{{end}} It stores no content. Providers' claims are not checked: a
provider listed here may not have, or no longer have, the content.</p>
<table>
<tr><td><a href="/cid/{{.CID}}"><code>/cid/{cid}</code></a></td><td>providers of a CID</td></tr>
<tr><td><a href="/multihash/{{.Multihash}}"><code>/multihash/{multihash}</code></a></td><td>providers of a multihash, in base58 or hex</td></tr>
<tr><td><a href="/providers"><code>/providers</code></a></td><td>all providers known</td></tr>
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

// servePage writes the front page.
func (h *handler) servePage(w http.ResponseWriter, r *http.Request) {
	role := "indexer"
	if h.cfg.Frontend {
		role = "frontend"
	}
	var page bytes.Buffer
	// A template that parsed, over a map of strings, into memory: no error.
	_ = pageTemplate.Execute(&page, map[string]any{
		"Role": role, "Frontend": h.cfg.Frontend, "Version": h.cfg.Version,
		"CID": exampleCID, "Multihash": exampleMultihash, "Host": r.Host,
	})
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(page.Bytes())
}
