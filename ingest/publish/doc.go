// Package publish is a provider's side of IPNI: it turns content into CARs and
// signed advertisements, keeps both on disk, and serves them.
//
// # What it promises
//
//   - A path that is added is advertised once. A content's context ID is the
//     sha2-256 multihash of its sorted multihashes, so the same blocks from a
//     directory, a CARv1 and a CARv2 are one context, and adding them again makes
//     no new advertisement. A path whose content has changed gets a removal of
//     the old context, unless another path still holds it, and then the new one.
//   - What is advertised can be fetched: the multihashes of an advertisement are
//     those of all blocks of the CAR, each once, and [Publisher.Handler] is a
//     trustless gateway over the same CARs. Identity multihashes are left out,
//     since whoever has such a CID has the block.
//   - No wrong block leaves the house: every block is compared with its CID when a
//     CAR is read in and again whenever it is served.
//   - One process to a state directory ([ErrLocked]), and a process killed at any
//     moment leaves the head, the chain and the contents of the last completed
//     change: everything a change needs is on disk, synced, before the one line
//     that makes it so.
//   - Bounded memory: multihashes are sorted outside memory, blocks go to disk as
//     they are made. What grows with content is about ten bits a multihash (to
//     know which CAR has it), and names and links of one directory while it is
//     imported.
//
// It does not announce; the caller does, after a change returned its head.
//
// # The state directory
//
//	lock       held by the process that has the directory open
//	manifest   one line a change: head, contents, addresses, metadata (manifest.go)
//	chain/xy/  advertisements and entry chunks, one file a block, named by CID
//	cars/      *.car CARv2 with index, built from files and directories
//	           *.idx index of a CAR that stays where its owner put it (index.go)
//	tmp/       work in progress, emptied at every start
//
// A CAR file given by the user is not copied. It is read where it is, and its
// blocks are checked as they are served, so a CAR that was changed, moved or
// deleted turns its blocks into errors, never into wrong bytes;
// [Publisher.Contents] says what is wrong with it.
//
// Blocks of the chain are never deleted, also not those of removed contexts:
// an indexer that starts at the genesis still finds every link. Files in cars/
// that no content refers to are deleted when the change is durable, or at the
// next start.
//
// # Errors a caller may test for
//
// [ErrLocked], [ErrOtherIdentity], [ErrClosed], [ErrBadCAR], [ErrEmpty], [ErrNotPublished],
// [ErrAmbiguous], [ErrNoAddress], and from [Fetch] a [FetchError].
package publish
