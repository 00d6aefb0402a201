package deny

import (
	"context"
	"iter"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
	"go.uber.org/goleak"

	"github.com/signpost-index/signpost/api/find"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mhOf is the multihash of a text.
func mhOf(text string) multihash.Multihash {
	mh, err := multihash.Sum([]byte(text), multihash.SHA2_256, -1)
	if err != nil {
		panic(err)
	}
	return mh
}

// peerOf is a peer ID made of a text.
func peerOf(text string) peer.ID {
	id, err := peer.IDFromBytes(mhOf(text))
	if err != nil {
		panic(err)
	}
	return id
}

// index is a Finder of results by multihash, and what its answers end with.
type index struct {
	find.Finder
	results map[string][]find.ProviderResult
	err     error
	asked   atomic.Int64
}

func (x *index) Find(_ context.Context, mh multihash.Multihash) iter.Seq2[find.ProviderResult, error] {
	x.asked.Add(1)
	return func(yield func(find.ProviderResult, error) bool) {
		for _, r := range x.results[string(mh)] {
			if !yield(r, nil) {
				return
			}
		}
		if x.err != nil {
			yield(find.ProviderResult{}, x.err)
		}
	}
}

func (x *index) Provider(_ context.Context, id peer.ID) (*find.ProviderInfo, error) {
	x.asked.Add(1)
	return &find.ProviderInfo{AddrInfo: peer.AddrInfo{ID: id}}, nil
}

func result(provider, contextID string) find.ProviderResult {
	return find.ProviderResult{ContextID: []byte(contextID), Metadata: []byte{0x80, 0x12}, Provider: &peer.AddrInfo{ID: peerOf(provider)}}
}
