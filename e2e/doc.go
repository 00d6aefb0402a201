// Package e2e tells whole-cluster stories against real processes of our
// binary: publishers, an assigner, indexers and a frontend that talk over
// loopback as they would over a network, are killed, frozen, lied to and
// started again. Each test is named for the promise it holds.
//
// One test types what README.md and the pages of doc show, from top to bottom.
//
// The package ships nothing. TestMain builds cmd/signpost once, as it is
// shipped; each test has a directory of its own for data and logs, which is
// kept, and its path printed, when the test fails. Nothing but what a user
// has is used: flags, the ready line, HTTP, signals, a browser, and promtool, which evaluates the
// alert rules of doc/operations over what daemons with a fault show. The browser is
// Chromium; without one the test of the front page fails, as those of alerts without promtool. Its screenshots go where
// SIGNPOST_ARTEFACTS says, an absolute path, or to the test's artefacts
// (go test -artifacts), never into the repository.
//
// Two more environment variables ask for more work: SIGNPOST_SOAK=1 for the long forms,
// SIGNPOST_BENCH=1 for the figures of doc/benchmarks.md: the whole way, of the
// cases that SIGNPOST_BENCH_CASES names or of all, announces, and pools of the
// sizes in SIGNPOST_BENCH_POOL.
package e2e
