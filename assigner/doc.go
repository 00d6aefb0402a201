// Package assigner is the assigner role: it takes announces for a pool of
// indexers, decides which indexer ingests which publisher, has publishers of
// frozen indexers continued elsewhere, and passes each announce on to the
// indexers concerned.
//
//	announce (HTTP, gossip) ─▶ kept: newest per publisher ─▶ forwards, one queue per indexer ─▶ indexer /announce
//	                                   │ wanted publishers
//	indexers ─looks─▶ facts ─▶ View ─▶ Plan ─▶ steps, one queue per indexer ─▶ indexer /ingest/assign, /ingest/handoff
//	                    ▲                        │
//	                    └──────── look again ◀───┘
//
// No facts are kept on disk. Assignments live in the indexers and are read from
// there; an assigner started anew finds them and has nothing to do. What is kept
// is what the operator asked for ([Intents]), which nobody else knows.
//
//	pool file ─┐
//	DNS ───────┼─▶ roster ─▶ members of the pool
//	operator ──┴─▶ Intents (a file of wishes)
//
// What it promises:
//
//   - [Plan] is pure; see there for what a plan may and may not do.
//   - A publisher is not assigned twice by mistake. A member of the pool that
//     has never been read holds up new assignments, for [Config.Grace] at most;
//     one that was read and is down keeps what it had; a call whose outcome is
//     unknown counts as done until the indexer tells otherwise, or for three
//     call time-outs.
//   - Each indexer has goroutines, queues and back-off of its own, all bounded,
//     and no lock is held during a call. One that hangs delays nothing but its
//     own part.
//   - An accepted announce is offered to every indexer that has the publisher
//     assigned, frozen ones too, until each has taken it or a newer one
//     replaces it. Announces are kept in memory, of a bounded number of
//     publishers; when there is no room for another the sender gets 503.
//
// What an announce says is not believed: it is unsigned, and the indexers check
// what they fetch.
package assigner
