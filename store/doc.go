// Package store is the data directory of an indexer: which multihashes belong
// to which records, what is known of providers and publishers, how far each
// publisher's chain is applied, what is assigned, and the frozen latch. It
// knows nothing of networks or of how advertisements are encoded.
//
// # Promises
//
//  1. The outcome within a publisher is that of applying its ads from the
//     oldest to the newest, whatever the order of work (record.go).
//
//  2. Commit makes an ad visible at once, as a whole. A find may see postings
//     of an ad that is not committed, if its record has metadata already.
//
//  3. Commits become durable in their order. What Durable, DurableProgress and
//     AdState.Durable report survives power loss; a progress mark is never
//     there without the postings it stands for (durable.go).
//
//  4. Everything before Commit can be done again with the same result; so can
//     Commit.
//
//  5. After Freeze no Put succeeds, and the latch is on disk before Freeze
//     returns; finds, removals, metadata and addresses go on (latch.go).
//     Likewise without the latch while the disk has less than a reserve free
//     (space.go).
//
//  6. A find never writes, and its answer is that of one moment (find.go).
//
//  7. After a failed write nothing is written any more, and finds go on:
//     ErrFailed (failstop.go). When writing works again, and there is room if it
//     was room that lacked, the store goes on by itself from exactly what was
//     durable (heal.go).
//
//  8. What is read from disk is checked: a row that no code of ours wrote is
//     ErrCorrupt, never a panic.
//
//  9. A record of any size is removed, or gets other metadata, with one change
//     of a few rows; so is a provider. Space comes back by itself
//     (reclaim.go).
//
//  10. A large ad whose writer used PutTo is resumed where it was (cursor.go).
//
// What it leaves to others: one AdWriter at a time for an ad, and for a record
// among those of a publisher; positions that grow along a chain; verifying ads;
// when to freeze. Not promised: an ad rejected or skipped after some Puts may
// leave these behind when it had joined older ads in order.
//
// # Words
//
// A record is (provider, context ID) with its metadata. A posting leads from a
// multihash to records, by record IDs. A generation is what one publisher put
// for a record between two removals; each has a record ID of its own, never
// used again, so that a removal deletes a row or two however many multihashes
// it removes. A mark is the newest ad of a publisher with nothing undone at or
// below it; a tombstone remembers a removal until the mark has passed it.
//
// # Parts
//
//	         ┌──────── log ─────────┐   one order for both (log.go)
//	changes ─┤                      ├─► rows      a Pebble database without a log
//	Puts ────┘                      └─► postings  keyed hash → record IDs
//
// The directory holds FORMAT, one line "signpost-store 6\n": the number of the
// layout, written before anything else is made; and rows/, postings/ and log/.
// A directory with a higher number is refused untouched, as is one made with
// another Config.Secret, which keys the hashes.
//
// # Rows
//
// Numbers in keys are big-endian; peer and ctx in keys are a length byte and
// the bytes. hash12 is 12 bytes of SHA-256 under the index secret. In values int
// is a uvarint, pos a uvarint of the position's upper half doubled if its lower
// half is 0, else of the position doubled and 1; time a varint of Unix
// nanoseconds (0: none); bytes, text, peer, ctx and cid a uvarint length and the
// bytes (an undefined CID is empty), list a uvarint count and the items. A value
// ends with its last field. num is the number of a peer (peers.go), id a record
// ID.
//
//	records
//	         key                                    value
//	        ┌───┬──────┬────────┐                  ┌────────┐
//	context │ k │ num4 │ hash12 │                  │ id int │ of (provider, context ID)
//	        └───┴──────┴────────┘                  └────────┘
//	        ┌───┬─────┐                            ┌───────┬─────────┬─────┬──────┬───────┬─────┬────────────┐
//	record  │ i │ id8 │                            │ flags │ num int │ ctx │ held │ seens │ own │ others int │
//	        └───┴─────┘                            └───────┴─────────┴─────┴──────┴───────┴─────┴────────────┘
//	                                                         provider
//	                                               ┌───┬────────┐
//	forward                                        │ 0 │ id int │ the ID of a generation that is not the record's own
//	                                               └───┴────────┘
//	        ┌───┬─────┬──────┬──────┐              ┌────────┬─────────┬──────────────┐
//	gener-  │ d │ id8 │ num4 │ pos8 │              │ id int │ max pos │ postings int │
//	ation   └───┴─────┴──────┴──────┘              └────────┴─────────┴──────────────┘
//	          record  publisher, first position
//	        ┌───┬─────┐                            ┌──────────────┐
//	dead    │ y │ id8 │                            │ postings int │ ID removed, its postings not reclaimed
//	        └───┴─────┘                            └──────────────┘
//	        ┌───┬──────┬─────┐                     ┌──────────┬──────────────┬──────────────────────────────┐
//	extend- │ x │ peer │ ctx │                     │ register │ override 0/1 │ list of peer, list of text,  │
//	ed set  └───┴──────┴─────┘                     └──────────┴──────────────┤ metadata bytes               │
//	              ctx empty: whole chain                                     └──────────────────────────────┘
//	        ┌───┬──────┐                           ┌──────────┬─────┬──────┬──────────┬──────────────┐
//	provi-  │ g │ peer │                           │ register │ cid │ time │ register │ list of text │
//	der     └───┴──────┘                           └──────────┴─────┴──────┴──────────┴──────────────┘
//	                                                 last ad                 addresses
//
//	              ┌──────┬─────┬───────┐
//	a register is │ peer │ pos │ seens │  who wrote it, and positions above the marks:
//	              └──────┴─────┴───────┘
//	              ┌─────────────────────────────────────┐
//	seens are     │ list of peer, last pos, removed pos │  removed ≤ last
//	              └─────────────────────────────────────┘
//	              ┌────────────────┬─────┬────────────────┐
//	held is       │ num int, writer│ pos │ metadata bytes │
//	              └────────────────┴─────┴────────────────┘
//	              ┌────────────────────┬─────────┬───────────┬──────────────┐
//	own is        │ num int, publisher │ max pos │ first pos │ postings int │  the generation with the record's own ID
//	              └────────────────────┴─────────┴───────────┴──────────────┘
//
// What of a record is there, its flags say (rows.go): held, seens, own, others;
// and that own's publisher is the writer, its first is its max, its max is pos:
// then these are left out. A record with one publisher and one ad so takes 12
// bytes beside its context ID and metadata, and 18 in its context row.
//
//	publishers
//	        ┌───┬──────┐                           ┌─────┬──────┬─────┬──────┬───────┬─────────┬───────┬───────┬───────┐
//	progress│ m │ peer │                           │ cid │ prev │ pos │ time │ above │ pending │ tombs │ again │ scans │
//	        └───┴──────┘                           └─────┴──────┴─────┴──────┴───────┴─────────┴───────┴───────┴───────┘
//	                                                 the mark                  counts, int; the last two and againFrom pos only if
//	                                                                           one is not 0, or height int, multihashes int and
//	                                                                           epoch pos follow, which do if one is not 0
//	        ┌───┬──────┬──────┐                    ┌─────┬──────┐
//	above   │ a │ peer │ pos8 │ done above mark    │ cid │ prev │
//	        └───┴──────┴──────┘                    └─────┴──────┘
//	        ┌───┬──────┬──────┐                    ┌─────┬──────┬─────────┐
//	pending │ w │ peer │ pos8 │ known, not done    │ cid │ prev │ trouble │
//	again   │ o │ peer │ pos8 │ to be done again   └─────┴──────┴─────────┘
//	        └───┴──────┴──────┘
//	        ┌───┬──────┬──────┐                    ┌─────┬─────────┐
//	scan    │ s │ peer │ pos8 │ a walk goes on     │ cid │ trouble │  before the cid, if there is a
//	        └───┴──────┴──────┘ here               └─────┴─────────┘  depth: undefined cid, depth int
//	        ┌───┬──────┐                           ┌─────────┬───────────┬────────────┬─────────────┐
//	revisit │ r │ peer │                           │ flags 1 │ depth int │ number int │ list of cid │
//	        └───┴──────┘                           └─────────┴───────────┴────────────┴─────────────┘
//	                                                 and floor stand, top cid and pos, as the flags say; a stand is
//	                                                 cid, pos, height int
//	        ┌───┬──────┬──────┐
//	leans   │ L │ peer │ peer │                      empty: ads of the second stand as the first's
//	        └───┴──────┴──────┘
//	        ┌───┬──────┐                           ┌─────┬──────┬──────────────┐
//	announ- │ j │ peer │                           │ cid │ time │ list of text │
//	ced     └───┴──────┘                           └─────┴──────┴──────────────┘
//	                                                 head         addresses
//
//	                         ┌──────────────┬────────────┬───────────┬─────────────┐
//	trouble is nothing, or   │ attempts int │ since time │ next time │ reason text │
//	                         └──────────────┴────────────┴───────────┴─────────────┘
//
//	        ┌───┬──────┬──────┐                    ┌─────┬────────┬───────────┬──────────┬──────────────┐
//	cursor  │ h │ peer │ pos8 │                    │ cid │ id int │ first pos │ puts int │ cursor bytes │
//	        └───┴──────┴──────┘                    └─────┴────────┴───────────┴──────────┴──────────────┘
//	        ┌───┬──────┬──────┬──────┬─────┐
//	tomb-   │ t │ peer │ pos8 │ peer │ ctx │       empty
//	stone   └───┴──────┴──────┴──────┴─────┘
//	              publisher     provider
//	        ┌───┬──────┐                           ┌──────────────┬────────────┬──────┬──────────────┐
//	pub-    │ e │ peer │                           │ list of text │ error text │ time │ frozenAt cid │
//	lisher  └───┴──────┘                           └──────────────┴────────────┴──────┴──────────────┘
//	                                                 addresses      last error
//	        ┌───┬────────┐                         ┌─────────┬─────┬──────────┬──────────────────────┬─────────┐
//	ledger  │ l │ hash12 │ of the ad's CID         │ num int │ pos │ verdict1 │ ms since 2025 varint │ reason… │
//	        └───┴────────┘                         └─────────┴─────┴──────────┴──────────────────────┴─────────┘
//	                                                 publisher
//
//	the store
//	        ┌───┬──────┐                           ┌─────────┐
//	number  │ p │ peer │                           │ num int │
//	        │ v │ peer │ as a provider, since it   └─────────┘
//	        └───┴──────┘ was removed once
//	        ┌───┬──────┐                           ┌────────────┐
//	peer    │ q │ num4 │                           │ peer bytes │
//	        └───┴──────┘                           └────────────┘
//	        ┌───┬──────┐
//	removed │ z │ num4 │ provider's number, its    empty
//	        └───┴──────┘ records not yet swept
//	        ┌───┬──────┐                           ┌──────┬──────┐
//	role    │ c │ peer │                           │ peer │ time │ continued, "" if none; of format 5 that is all
//	        └───┴──────┘                           └──────┴──────┘
//	                                                 then role byte, last range's pos, stand where it was closed, list of
//	                                                 cid applied above, list of ranges: from cid, to cid
//	        ┌───┬──────┬────────┐
//	else-   │ E │ peer │ hash12 │                   empty: the ad of this CID has its content at another indexer
//	where   └───┴──────┴────────┘
//	latch   │ f │                                  │ time │ there while frozen
//	why     │ W │                                  │ text │ why it is frozen, if that was said
//	next ID │ n │                                  │ id8  │ first not reserved
//	log seq │ b │                                  │ seq8 │ of the last log frame of rows in the database
//	totals  │ u │                                  │ postings, records, dead postings, last num: int │
//
// Verdicts are numbered as in types.go. A publisher's keys sort by position,
// so a mark moves by a short scan from where it was.
//
// # Errors
//
// ErrFrozen, ErrNoSpace, ErrFull, ErrClosed, ErrNewerFormat, ErrOldFormat,
// ErrInUse, ErrFailed, ErrCorrupt, ErrInvalid, ErrConflict; what each leaves
// behind is said where it is declared.
package store
