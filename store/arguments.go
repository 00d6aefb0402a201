package store

import "fmt"

// What a registry row may hold. An ad block has at most 1 MiB, so nothing
// real comes near.
const (
	maxAddrs     = 4096
	maxAddrBytes = 16 << 10
)

func checkAddrs(addrs []string) error {
	if len(addrs) > maxAddrs {
		return fmt.Errorf("%d addresses: %w", len(addrs), ErrInvalid)
	}
	for _, a := range addrs {
		if len(a) > maxAddrBytes {
			return fmt.Errorf("address of %d bytes: %w", len(a), ErrInvalid)
		}
	}
	return nil
}

func checkUpdate(u ProviderUpdate) error {
	if err := checkAddrs(u.Addrs); err != nil {
		return err
	}
	if err := checkAddrs(u.PublisherAddrs); err != nil {
		return err
	}
	if u.Extended == nil {
		return nil
	}
	return checkExtended(*u.Extended)
}

func checkExtended(set ExtendedSet) error {
	if len(set.Providers) > maxRowItems {
		return fmt.Errorf("%d extended providers: %w", len(set.Providers), ErrInvalid)
	}
	for _, p := range set.Providers {
		if err := checkPeer("extended provider", p.ID); err != nil {
			return err
		}
		if err := checkAddrs(p.Addrs); err != nil {
			return err
		}
		if len(p.Metadata) > MaxMetadataBytes {
			return fmt.Errorf("extended provider metadata of %d bytes: %w", len(p.Metadata), ErrInvalid)
		}
	}
	return nil
}

func checkProvider(p Provider) error {
	if err := checkPeer("provider", p.ID); err != nil {
		return err
	}
	if p.Publisher != "" {
		if err := checkPeer("publisher", p.Publisher); err != nil {
			return err
		}
	}
	if p.LastAd.Defined() {
		if err := checkCID("last ad", p.LastAd); err != nil {
			return err
		}
	}
	if err := checkUpdate(ProviderUpdate{Addrs: p.Addrs, PublisherAddrs: p.PublisherAddrs, Extended: p.Extended}); err != nil {
		return err
	}
	for _, set := range p.Contextual {
		if len(set.ContextID) == 0 || len(set.ContextID) > MaxContextIDBytes {
			return fmt.Errorf("context ID of %d bytes: %w", len(set.ContextID), ErrInvalid)
		}
		if err := checkExtended(set.ExtendedSet); err != nil {
			return err
		}
	}
	return nil
}
