package routing

import (
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/multiformats/go-multiaddr"
)

// maxFilterNames bounds the names in one filter. There are about forty
// multiaddr protocols.
const maxFilterNames = 64

// unknownName stands for "says nothing about it" in a filter.
const unknownName = "unknown"

var (
	errBadFilter  = errors.New("invalid filter query parameter")
	errLongFilter = errors.New("invalid filter query parameter: too many names")
)

// filter is what a client wants of the records (IPIP-484). The zero value
// wants all.
type filter struct {
	// addrs: wanted protocols of addresses, unwanted ones, and whether peers
	// without any address are wanted.
	filterAddrs    bool
	wanted         []string
	unwanted       []string
	withoutAddress bool
	// protocols: wanted transfer protocols, and whether records without any
	// are wanted.
	filterProtocols bool
	protocols       []string
	withoutProtocol bool
}

// parseFilter reads filter-addrs and filter-protocols. Each may be given once;
// an empty one filters nothing.
func parseFilter(query url.Values) (f filter, err error) {
	names, err := filterNames(query["filter-addrs"])
	if err != nil {
		return f, err
	}
	for _, name := range names {
		f.filterAddrs = true
		if negated, ok := strings.CutPrefix(name, "!"); ok {
			f.unwanted = append(f.unwanted, strings.TrimSpace(negated))
		} else if name == unknownName {
			f.withoutAddress = true
		} else {
			f.wanted = append(f.wanted, name)
		}
	}
	names, err = filterNames(query["filter-protocols"])
	if err != nil {
		return f, err
	}
	for _, name := range names {
		f.filterProtocols = true
		if name == unknownName {
			f.withoutProtocol = true
		} else {
			f.protocols = append(f.protocols, name)
		}
	}
	return f, nil
}

// filterNames splits the value of a parameter into lower-case names.
func filterNames(values []string) ([]string, error) {
	if len(values) == 0 {
		return nil, nil
	}
	if len(values) > 1 {
		return nil, errBadFilter
	}
	if strings.Count(values[0], ",") >= maxFilterNames {
		return nil, errLongFilter
	}
	var names []string
	for name := range strings.SplitSeq(values[0], ",") {
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

// all returns the records that are wanted, with the addresses that are.
// records is reused.
func (f *filter) all(records []record) []record {
	kept := records[:0]
	for _, r := range records {
		if f.address(&r) && f.protocol(&r) {
			kept = append(kept, r)
		}
	}
	return kept
}

// address leaves the wanted addresses in r and reports whether r is wanted. A
// peer without an address is wanted only by "unknown"; one that loses all its
// addresses to the filter never is.
func (f *filter) address(r *record) bool {
	if !f.filterAddrs {
		return true
	}
	if len(r.addrs) == 0 {
		return f.withoutAddress
	}
	var kept []multiaddr.Multiaddr
	for _, addr := range r.addrs {
		if f.wants(addr) {
			kept = append(kept, addr)
		}
	}
	r.addrs = kept
	return len(kept) > 0
}

// wants reports whether an address speaks none of the unwanted protocols and,
// if there are wanted ones, one of those. With "unknown" alone no address is
// wanted.
func (f *filter) wants(addr multiaddr.Multiaddr) bool {
	speaks := func(names []string) bool {
		return slices.ContainsFunc(addr.Protocols(), func(p multiaddr.Protocol) bool {
			return slices.Contains(names, p.Name)
		})
	}
	if len(f.unwanted) > 0 && speaks(f.unwanted) {
		return false
	}
	return len(f.wanted) == 0 && len(f.unwanted) > 0 || speaks(f.wanted)
}

// protocol reports whether r speaks one of the wanted transfer protocols, or
// none at all where that is wanted.
func (f *filter) protocol(r *record) bool {
	if !f.filterProtocols {
		return true
	}
	if len(r.protocols) == 0 {
		return f.withoutProtocol
	}
	for _, p := range r.protocols {
		if slices.Contains(f.protocols, strings.ToLower(p.Code.String())) {
			return true
		}
	}
	return false
}
