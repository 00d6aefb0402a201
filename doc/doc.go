// Package doc holds the documents of Signpost and the tests that keep them
// true. It ships no code.
package doc
