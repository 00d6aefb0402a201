// Package find is the find API: who provides a multihash, and what is known of
// the providers.
//
// [Finder] is the seam. An indexer's store, the HTTP [Client] and the fan-out
// of package fanout all are Finders, and [NewHandler] serves any of them, so a
// frontend is a handler over a fan-out over clients, and an indexer is a
// handler over its store. The bytes on the wire are those of the reference
// (storetheindex for an indexer, indexstar for a frontend), with [ParseMultihash],
// [ProviderResult] and [ProviderInfo] as their Go forms.
//
// The one promise the reference does not make: an answer is never silently
// short. A Finder that could not ask everyone who might know says so with a
// [*PartialError] after the results it has, the handler passes that on as the
// header or trailer X-Signpost-Partial (or as a 503 if there are no results),
// and the client turns it back into a *PartialError. "Not found" is said only
// by those who know.
//
// What a denylist forbids (package deny) is a [*DeniedError], 410 on the wire.
//
// Sentinels a caller may test for: [ErrNotFound], [ErrUnavailable],
// [ErrMalformed].
package find

import (
	"context"
	"errors"
	"iter"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

var (
	// ErrNotFound is returned for a provider that no one who could know knows.
	ErrNotFound = errors.New("not found")
	// ErrUnavailable matches every error that leaves the question open: the
	// node asked could not be reached, timed out, or is in trouble itself.
	ErrUnavailable = errors.New("unavailable")
	// ErrMalformed matches the error for an answer that breaks the protocol.
	ErrMalformed = errors.New("malformed answer")
)

// PartialError says that some of those who might have known more did not
// answer. What was returned or yielded with it is true, but may not be all.
// It matches ErrUnavailable.
type PartialError struct {
	// Missing names the backends that did not answer, sorted.
	Missing []string
}

// Error names the backends.
func (e *PartialError) Error() string {
	return "no answer from " + strings.Join(e.Missing, ", ")
}

// Header is the value of HeaderPartial: the backends' names, separated by
// commas, in printable ASCII.
func (e *PartialError) Header() string {
	names := printable(strings.Join(e.Missing, ", "))
	if names == "" {
		return "unknown"
	}
	return names
}

// Is makes a PartialError an ErrUnavailable.
func (e *PartialError) Is(target error) bool { return target == ErrUnavailable }

// Finder answers finds. It is safe for concurrent use, and each method returns
// soon after its context ends.
type Finder interface {
	// Find yields what is known of mh, a whole multihash (code, length,
	// digest), as it becomes known.
	//
	//  1. A yielded error is the last thing yielded, and its result is to be
	//     ignored: a *PartialError if some backends are unknown, a *DeniedError
	//     if a denylist forbids the answer, whatever was yielded before, another
	//     error if the finder itself failed.
	//  2. No result and no error means that every node that could know said
	//     that it does not.
	//  3. A result has a provider, with an ID. Who keeps a result may keep its
	//     slices and must not change them.
	//  4. The order is the finder's own. The same provider, context ID and
	//     metadata may come more than once, with the same addresses or with
	//     others; Merge makes one answer of them that does not depend on the
	//     order.
	//  5. The sequence may be left early and may be used once.
	Find(ctx context.Context, mh multihash.Multihash) iter.Seq2[ProviderResult, error]
	// Providers lists all providers known. Together with a *PartialError the
	// list is that of the backends that answered.
	Providers(ctx context.Context) ([]ProviderInfo, error)
	// Provider returns what is known of one provider: ErrNotFound if nothing
	// is, a *DeniedError if that is not to be told. Together with a *PartialError the record, if not nil, is the newest
	// of the backends that answered.
	Provider(ctx context.Context, id peer.ID) (*ProviderInfo, error)
	// Stats returns the size of the index. Together with a *PartialError it
	// is that of the backends that answered.
	Stats(ctx context.Context) (Stats, error)
}
