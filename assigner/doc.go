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
// No facts are kept on disk. Roles live in the indexers and are read from there;
// an assigner started anew finds them and has nothing to do but to have the
// owners poll. What is kept is what the operator asked for ([Intents]), which
// nobody else knows, how far an upgrade is ([Task]), and announces that no owner
// has yet, if it is given a journal.
//
//	pool file ─┐
//	DNS ───────┼─▶ roster ─▶ members of the pool
//	operator ──┴─▶ Intents (a file of wishes)
//
// People see all that on the pool page ([github.com/signpost-index/signpost/assigner/page]).
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
//   - The sender of an announce is told yes when an owner has taken it, or when
//     it is on disk in the journal, and 503 otherwise. It is offered to every
//     indexer that has the publisher assigned, frozen ones too, until each has
//     taken it or a newer one replaces it.
//   - Kept announces are bounded in number and bytes, and those of publishers
//     that no indexer has, which anyone can make up, have room of their own.
//   - An upgrade takes no indexer out of service that others do not make up for,
//     restarts none twice, and goes on after a kill (task.go, gate.go).
//   - One that stands by for another takes no step and sends nothing as long as
//     the other one answers.
//
// What an announce says is not believed: it is unsigned, and the indexers check
// what they fetch.
package assigner
