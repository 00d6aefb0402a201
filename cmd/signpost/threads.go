package main

import (
	"os"
	"runtime"
)

// moreThreads lets Go run twice as many threads at once as there are
// processors, unless GOMAXPROCS says how many, and returns the number of
// processors. Go looks at the network only when one of its threads has nothing
// to do: beside ingest, which keeps all processors busy, a lookup would wait up
// to 10 ms to be seen (doc/benchmarks.md).
func moreThreads() (processors int) {
	processors = runtime.GOMAXPROCS(0)
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2 * processors)
	}
	return processors
}
