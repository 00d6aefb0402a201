package schema

import (
	"errors"
	"fmt"
)

var (
	// ErrMalformed: the bytes, or the values in them, are not what they should
	// be. It will not get better by fetching them again.
	ErrMalformed = errors.New("malformed")
	// ErrBadSignature: a signature is missing, unreadable, wrong, made over
	// other values, or made by a key that may not have made it.
	ErrBadSignature = errors.New("bad signature")
	// ErrHashMismatch: the bytes are not those the CID names. Another server,
	// or the same one later, may have the right ones.
	ErrHashMismatch = errors.New("bytes do not match their CID")
	// ErrTooLarge: a block, or a count in it, is above its limit.
	ErrTooLarge = errors.New("too large")
	// ErrUnsupported: the codec or the hash function of a CID is not one that
	// chains are made of.
	ErrUnsupported = errors.New("unsupported link")
)

var (
	// ErrOverrideWithoutContext: an extended provider list asks to override the
	// chain-level list but belongs to no context ID. It is an ErrMalformed.
	ErrOverrideWithoutContext = fmt.Errorf("%w: override without a context ID", ErrMalformed)
	// ErrEntriesWithoutMetadata: an advertisement has entries but no metadata
	// to store with them. It is an ErrMalformed.
	ErrEntriesWithoutMetadata = fmt.Errorf("%w: entries without metadata", ErrMalformed)
)
