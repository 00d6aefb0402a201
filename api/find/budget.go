package find

import "sync/atomic"

// maxAnswerBytes bounds an answer that is put together before it is sent, about
// as long as it will be: all 16,384 records that a store follows, at 2 KiB each.
// Somebody who publishes one multihash with thousands of extended providers under
// thousands of context IDs could have every indexer make one of gigabytes.
// Streams are not bounded: they hold nothing.
const maxAnswerBytes = 32 << 20

// HeaderLeftOut is the header of an answer in one piece that says how many of
// the things it lists were left out, or LeftUncounted.
const HeaderLeftOut = "X-Signpost-Left-Out"

// LeftUncounted is the value of HeaderLeftOut if nobody went on counting.
const LeftUncounted = "uncounted"

// Budget is what an answer in one piece may hold. The zero value is all of it.
// It is safe for concurrent use.
type Budget struct{ used atomic.Int64 }

// Take is false if there is no room for r, nor for what comes after it.
func (b *Budget) Take(r *ProviderResult) bool {
	return b.used.Add(int64(sizeOf(r))) <= maxAnswerBytes
}

// sizeOf is about how long r is as JSON, and not below what it takes in memory.
func sizeOf(r *ProviderResult) int {
	size := 128 + 4*(len(r.ContextID)+len(r.Metadata))/3
	if r.Provider != nil {
		for _, addr := range r.Provider.Addrs {
			size += 16 + 3*len(addr.Bytes())
		}
	}
	return size
}
