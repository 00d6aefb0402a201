// Package snapshot keeps copies of a node's data directory in a directory or a
// bucket, and brings a data directory up from one.
//
//	store.Checkpoint ──► directory of links ──Take──► place ──Restore──► data directory
//	 (in the node)        (one moment)                                    (of a new node)
//
// A place holds files under the names of their content, and a manifest for each
// snapshot:
//
//	snapshots/20260102T150405.000Z.json   what files a data directory is made of
//	files/<sha256, hex>                   each once, however many snapshots have it
//	incoming/                             of a directory: what is being copied
//
// # Promises
//
//  1. A snapshot is there when its manifest is, which is written last and at
//     once. Whatever was interrupted before leaves files nobody names; the next
//     Take with Keep removes them.
//
//  2. A file that is at the place already is not copied again. One that is as the
//     snapshot before has it (path, size and time of change) is not even read.
//     Tables never change, so a snapshot costs what was written since the last.
//
//  3. Restore compares each byte with the manifest. The store appears under its
//     name when all of it is there and on disk; a Restore that was killed leaves a
//     directory that no node opens and the next Restore begins anew.
//
//  4. A place belongs to one node, so that pruning removes nobody else's files.
//
// What it leaves to others: that the files do not change while they are copied,
// and that one Take at a time is at work with a place (the node lends its
// checkpoint to one caller, TakeConfig.Held).
//
// A manifest is as good as its place: whoever can write there decides what a
// node restores. What it names is bounded and cannot lead out of the directory.
//
// Errors: ErrNotFound, ErrDamaged, ErrOtherNode, ErrNotEmpty, ErrNoSecret,
// and of package store ErrNewerFormat, ErrOldFormat, ErrOtherSecret.
package snapshot
