// Package postings keeps the pairs (hash of a multihash, record ID) of a node
// near the least number of bytes they can be kept in, and finds the record IDs
// of a hash.
//
// # Promises
//
//  1. A Put that returned is found by every Find that begins after it.
//  2. After a crash or a loss of power the index opens with exactly every Put
//     up to Flushed, and perhaps some of those above. Putting all above Flushed
//     again, from the caller's log, changes nothing that is there.
//  3. Nothing gets on disk before Config.BeforeIngest allowed it.
//  4. A record ID that Config.Alive calls dead is never found. Its entries go
//     when a compaction merges their bucket, and at the latest with Reclaim.
//     IDs do not come back to life.
//  5. Two multihashes have the same Hash with probability 2^-80, also if they
//     are chosen by somebody who does not know the secret.
//  6. What cannot be read from disk is never a miss: a lookup in a damaged
//     bucket is ErrCorrupt. Damage is taken away when it is met, or with
//     Salvage, and costs only what stood in the damaged blocks. Where that
//     was is in the meta row: a lookup there that finds nothing is ErrLost
//     until MarkWhole; one that finds something may find less than there was.
//
// # From Put to the bottom level
//
//	Put ─► memtable (active) ─► memtable (flushing) ─► tables ─► Ingest ─► level 0 … 6
//	         lock-free reads      sorted, encoded       with the meta row
//
// A memtable is up to 2^14 partitions by the first bits of the hash, each a
// chain of slabs in one arena without pointers. When it is full the other
// takes over, and it becomes sorted tables that are ingested at once with the
// row that says up to where everything is there. There is no log here and
// nothing is ever written through Pebble's memtable. Puts wait when both
// memtables are full, flushes wait when level 0 is deep, and while there are
// lookups all of them give way (pacer): lookups want a processor at once.
//
// # Buckets
//
// The first bits of a hash are the key of its bucket, the others (the suffix)
// are in the value: see bucketKey. How many go into the key, the width, is
// said by the meta row for each of the 256 regions of equal first byte. A
// region whose buckets get too full is rewritten with a width larger by two,
// in one ingest that removes the old keys; so an index grows from nothing to
// 10^10 entries without being made anew.
//
// A value that is not empty:
//
//	+-----------------+--------+---------+ - - - - - - - + - - - - - - +
//	| unique<<1 | has | base   | ID bits | shared        | bytes of    |
//	| shared          | ID     |         | hashes        | stream 2    |
//	| uvarint         | uvarint|  (1B)   | uvarint       | uvarint     |
//	+-----------------+--------+---------+ - - - - - - - + - - - - - - +
//	| stream 1: unique hashes  | stream 2: shared hashes               |
//	+--------------------------+---------------------------------------+
//
// The dashed ones are there only if there are shared hashes, those with more
// than one ID. Streams are bits, lowest of a byte first, padded with zeros:
//
//	stream 1, for each:  rice(suffix - one before - 1)  (ID - base) in ID bits
//	stream 2, for each:  rice(suffix - one before - 1)  gamma(IDs - 1)
//	                     [gamma(bits of the list), if 64 IDs or more]
//	                     for each ID: rice(ID - one before - 1)
//
// rice(v) is v>>k zeros, a one, and the k low bits of v, with the k that
// riceParam finds for the number of values and the width they are spread over.
// A hash thus costs 80 - log2(entries of the index) + 1.5 bits.
//
// Values are merged by union, less dead IDs. The merge knows no tombstones, so
// it may be done at any level, in any order, any number of times.
//
// No value begins with 0x00. That is the mark of a query, a merge operand that
// is never written: a lookup puts it over the bucket in a batch of its own, and
// the merger looks for one hash in each operand instead of uniting all.
//
// # Damage
//
//	check ─► holes ─► cuts: key ranges that begin and end where all can be read
//	                   │
//	                   └─► one ingest each: excise, what could be read, meta row
//
// Everything at the present width of a region is there to stay, so what
// tables say can be united again in any order, whichever of them are missing.
//
// # Formats
//
// formatNumber is the largest number of the meta row; a larger one is refused
// with nothing changed, as is another secret. The row has number 2 only while
// something is lost. mergerName stands for the codec in Pebble.
//
// # Errors
//
// ErrCorrupt, ErrLost, ErrClosed, ErrNewerFormat, ErrSecret, ErrPosition.
package postings
