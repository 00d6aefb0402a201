// Package sim runs pools that are too large, or too unlucky, to be had, in
// virtual time around the real [assigner.Plan].
//
//	Plan ◄── view ── memory of an Assigner ◄── looks ── Network ── nodes
//	  └── steps ──── batches, as the loop makes them ──────┘
//
// Nodes keep roles, ranges, disks and meters as indexers do, and that is the
// truth a World is measured by; an Assigner knows what its looks brought, late
// or not at all. The code beside Plan (what is remembered of calls, how they are
// batched and repeated) follows the loop of package assigner and is not the same
// code: that one lives on goroutines and wall clocks.
//
// A World is not safe for concurrent use. The same Config, seed included, gives
// the same run; only the time plans take is measured on the machine.
package sim
