// Package mirror keeps advertisements with their entries as CAR files in a
// directory or a bucket, and reads them back, so that a new indexer need not
// burden the publishers. Whoever applied an ad writes it; whoever wants it asks
// here first and the publisher after that.
//
//	<mirror>/<ad CID>.car.gz     one advertisement        <mirror>/<provider ID>.head
//	┌──────────────────────┐                              ┌──────────────────────────┐
//	│ pragma, CARv2 header │ gzip member 1                │ CID of the newest ad, as │
//	├──────────────────────┤                              │ text, no newline         │
//	│ CARv1 header: roots  │ gzip member 2                └──────────────────────────┘
//	│   [ad] or            │
//	│   [ad, entries]      │     Create ─▶ Block … Block ─▶ Commit ─▶ visible
//	│ ad                   │       │         (spool file)     │
//	│ entries: 1st block   │       └────────── Abort ◀────────┘ error: nothing
//	│ entries: 2nd block … │
//	└──────────────────────┘     Ad(ad CID)      the first block alone
//	  without an index           Entries(ad CID) the blocks behind it, in order
//
// The layout is that of the reference (storetheindex's carstore and filestore),
// which reads our files as we read its own. See doc/wire.md, CAR mirror.
//
// # What it promises
//
//   - A file becomes visible whole or not at all, whatever happens to the
//     process. Writing an ad again, also at the same time, ends with one of the
//     equal files; a file without entries never replaces one.
//   - An ad of any size takes the memory of one block: blocks go compressed to a
//     spool file as they come. Spool files are bounded together in bytes, and
//     what a crash left of them is removed by the next [Open].
//   - Every block handed out is what its CID names. Whoever can write to the
//     mirror can therefore withhold blocks and waste time, within bounds: of a
//     file's decompressed bytes, its blocks, each block, its headers, and the
//     time a bucket takes for its bytes.
//
// It leaves to others to check signatures and the shape of blocks, and to fall
// back to the publisher after any error. A mirror is a cache: a file that a power
// loss took is simply missing.
//
// # Errors a caller may test for
//
// [ErrNotFound], [ErrCorrupt], [ErrTooLarge], [ErrSpoolFull], [ErrReadOnly], [ErrLocked].
package mirror
