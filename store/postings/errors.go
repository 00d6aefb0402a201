package postings

import (
	"errors"
	"fmt"
)

// Sentinels a caller may test for with errors.Is.
var (
	// ErrCorrupt: something read from disk is not what was written.
	ErrCorrupt = errors.New("postings are corrupt")
	// ErrLost, an ErrCorrupt: nothing was found, but what there was may have
	// been lost to damage that Salvage took away. It is said until MarkWhole.
	ErrLost = fmt.Errorf("%w: lost to damage", ErrCorrupt)
	// ErrClosed: the index was closed.
	ErrClosed = errors.New("index is closed")
	// ErrNewerFormat: the directory was written by a newer program; nothing
	// was changed.
	ErrNewerFormat = errors.New("postings have a newer format")
	// ErrSecret: the directory was written with another secret; nothing was
	// changed.
	ErrSecret = errors.New("postings were written with another secret")
	// ErrPosition: a Put came with a position that was already passed.
	ErrPosition = errors.New("position goes backwards")
)
