// Package interop proves that Signpost is understood by, and understands, the
// reference implementation of the network and the clients in use. Its tests
// start real processes of our binary on loopback and let others talk to them:
//
//	index-provider engine ──announce──► assigner ──► 2 indexers ◄── frontend
//	        ▲                                             │            ▲
//	        └────────────── head, ads, entries ───────────┘            │
//	go-libipni find client, pcache; boxo delegated-routing client ─────┘
//
//	signpost publish ──head, ads, entries──► go-libipni dagsync subscriber
//
// Nothing of ours is imported: what is tested is what a foreign peer sees. The
// package has a module of its own, so that what it needs of the reference
// implementation never becomes a dependency of the product. See README.md.
package interop
