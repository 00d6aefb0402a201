// Package e2e tells whole-cluster stories against real processes of our
// binary: publishers, an assigner, indexers and a frontend that talk over
// loopback as they would over a network, are killed, frozen, lied to and
// started again. Each test is named for the promise it holds.
//
// The package ships nothing. TestMain builds cmd/signpost once, as it is
// shipped; each test has a directory of its own for data and logs, which is
// kept, and its path printed, when the test fails. Nothing but what a user
// has is used: flags, the ready line, HTTP, signals.
//
// Two environment variables ask for more: SIGNPOST_SOAK=1 for the long forms,
// SIGNPOST_BENCH=1 for the whole-way figures of doc/benchmarks.md, of the cases
// that SIGNPOST_BENCH_CASES names or of all.
package e2e
