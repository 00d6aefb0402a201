package main

import (
	"encoding/json"
	"io"

	"github.com/multiformats/go-multiaddr"
)

// readyLine is what a daemon prints, once and alone, on stdout when it serves.
// Measuring tools and tests rely on it.
type readyLine struct {
	Ready   bool     `json:"ready"`
	ID      string   `json:"id"`
	Find    string   `json:"find,omitempty"`
	Ingest  string   `json:"ingest,omitempty"`
	Admin   string   `json:"admin,omitempty"`
	HTTP    string   `json:"http,omitempty"`
	Page    string   `json:"page,omitempty"` // of the pool, for a browser
	Metrics string   `json:"metrics,omitempty"`
	P2P     []string `json:"p2p,omitempty"`

	Indexers []readyLine `json:"indexers,omitempty"`
	Assigner *readyLine  `json:"assigner,omitempty"`
	Frontend *readyLine  `json:"frontend,omitempty"`
}

func (r readyLine) print(w io.Writer) error {
	r.Ready = true
	return json.NewEncoder(w).Encode(r)
}

func addrTexts(addrs []multiaddr.Multiaddr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}
