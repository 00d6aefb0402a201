package schema

import "fmt"

const (
	// MaxContextIDBytes bounds Advertisement.ContextID. Source: IPNI.md.
	MaxContextIDBytes = 64
	// MaxMetadataBytes bounds Advertisement.Metadata and the metadata of each
	// extended provider. Source: IPNI.md.
	MaxMetadataBytes = 1024
)

// Validate checks everything that the ad alone decides, except signatures:
// lengths, that Provider and the extended providers' IDs are peer IDs, that a
// removal carries no extended providers, and that a list of extended providers
// contains the ad's own. Every error is an ErrMalformed.
//
// What it accepts may still be refused when it is applied, see CheckIngest.
func (a *Advertisement) Validate() error {
	if n := len(a.ContextID); n > MaxContextIDBytes {
		return fmt.Errorf("%w: context ID of %d bytes, limit %d", ErrMalformed, n, MaxContextIDBytes)
	}
	if n := len(a.Metadata); n > MaxMetadataBytes {
		return fmt.Errorf("%w: metadata of %d bytes, limit %d", ErrMalformed, n, MaxMetadataBytes)
	}
	if !a.Entries.Defined() {
		return fmt.Errorf("%w: no entries link", ErrMalformed)
	}
	if _, err := a.ProviderID(); err != nil {
		return err
	}
	return a.validateExtended()
}

func (a *Advertisement) validateExtended() error {
	xp := a.ExtendedProvider
	if xp == nil {
		return nil
	}
	if a.IsRm {
		// The specification would have the extension ignored; the reference
		// refuses the ad, so nobody can rely on one being accepted.
		return fmt.Errorf("%w: extended providers on a removal", ErrMalformed)
	}
	if len(xp.Providers) == 0 {
		return nil
	}
	main, err := a.ProviderID()
	if err != nil {
		return err
	}
	var found bool
	for i := range xp.Providers {
		p := &xp.Providers[i]
		id, err := parsePeerID(p.ID)
		if err != nil {
			return fmt.Errorf("extended provider %w", err)
		}
		if n := len(p.Metadata); n > MaxMetadataBytes {
			return fmt.Errorf("%w: extended provider %s: metadata of %d bytes, limit %d", ErrMalformed, p.ID, n, MaxMetadataBytes)
		}
		found = found || id == main
	}
	if !found {
		return fmt.Errorf("%w: extended providers without the ad's own %s", ErrMalformed, a.Provider)
	}
	return nil
}

// CheckIngest reports whether an ad that passed Verify can be applied. It
// returns ErrOverrideWithoutContext or ErrEntriesWithoutMetadata; both hold for
// this ad only and for good, later ads of its chain are not affected.
// Source: advertisement rules of go-libipni and storetheindex, which find them
// only when they apply an ad.
func (a *Advertisement) CheckIngest() error {
	if xp := a.ExtendedProvider; xp != nil && xp.Override && len(a.ContextID) == 0 {
		return ErrOverrideWithoutContext
	}
	if !a.IsRm && len(a.Metadata) == 0 && a.Entries != NoEntries {
		return ErrEntriesWithoutMetadata
	}
	return nil
}
