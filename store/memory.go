package store

// memory is how Config.MemoryBytes is divided.
//
//	├── work ──┤── rows ──┤──────────────── postings ────────────────┤
//	            memtables, memtable  memtable   cache      flushes,
//	            cache      filling   flushing              compactions
//
// Work is a quarter, at most 32 MiB: the log's two buffers of 4 MiB, tables
// being written, blocks being merged, readers of open tables, scratch of
// writers, and all this once more until it is collected. A quarter of the rest
// is for rows, and of what is for postings a quarter each is for the two
// memtables and the cache.
type memory struct{ work, rows, postings int64 }

const maxWorkBytes = 32 << 20

func memoryOf(bytes int64) (m memory) {
	m.work = min(bytes/4, maxWorkBytes)
	m.rows = (bytes - m.work) / 4
	m.postings = bytes - m.work - m.rows
	return m
}

// OffHeapBytes is how much of Config.MemoryBytes is used outside of Go's heap,
// for a process that sets a limit to that (runtime/debug.SetMemoryLimit).
func OffHeapBytes(memoryBytes int64) int64 {
	m := memoryOf(Config{MemoryBytes: memoryBytes}.withDefaults().MemoryBytes)
	n := m.postings / 4 * 2
	if cachesOffHeap {
		n += m.rows + m.postings/4
	}
	return n
}

// openFiles bounds the tables of rows kept open: a reader takes some 16 KiB.
func openFiles(memoryBytes int64) int { return int(min(4096, max(128, memoryBytes>>16))) }
