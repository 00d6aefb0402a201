//go:build !cgo

package store

// cachesOffHeap: Pebble has to take blocks and memtables from Go's heap.
const cachesOffHeap = false
