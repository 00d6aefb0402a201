package indexer

import (
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// policy decides who may publish for whom. It is never changed; a change makes
// a new one.
type policy struct {
	rules         admin.Policy
	allowExcept   map[peer.ID]bool
	publishExcept map[peer.ID]bool
	publishers    map[peer.ID]map[peer.ID]bool // by provider
}

// strictPolicy is that of a node that was told nothing: everybody may publish,
// for itself (decision 0006).
func strictPolicy() admin.Policy { return admin.Policy{Allow: true} }

// newPolicy makes rules ready to be asked. Its error is about the rules.
func newPolicy(rules admin.Policy) (*policy, error) {
	n := len(rules.AllowExcept) + len(rules.PublishExcept)
	p := &policy{
		rules:       rules,
		allowExcept: peerSet(rules.AllowExcept), publishExcept: peerSet(rules.PublishExcept),
		publishers: make(map[peer.ID]map[peer.ID]bool),
	}
	all := [][]peer.ID{rules.AllowExcept, rules.PublishExcept}
	for _, l := range rules.Publishers {
		if p.publishers[l.Provider] != nil {
			return nil, fmt.Errorf("%w: two lists of publishers for provider %s", admin.ErrBadRequest, l.Provider)
		}
		p.publishers[l.Provider] = peerSet(l.Publishers)
		n += 1 + len(l.Publishers)
		all = append(all, []peer.ID{l.Provider}, l.Publishers)
	}
	if n > admin.MaxPolicyEntries {
		return nil, fmt.Errorf("%w: policy of %d peers, at most %d", admin.ErrBadRequest, n, admin.MaxPolicyEntries)
	}
	for _, ids := range all {
		if slices.ContainsFunc(ids, func(id peer.ID) bool { return id.Validate() != nil }) {
			return nil, fmt.Errorf("%w: policy with an empty peer ID", admin.ErrBadRequest)
		}
	}
	return p, nil
}

func peerSet(ids []peer.ID) map[peer.ID]bool {
	set := make(map[peer.ID]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	return set
}

// allowed says whether a peer is taken at all.
func (p *policy) allowed(id peer.ID) bool { return p.rules.Allow != p.allowExcept[id] }

// mayPublish says whether id, the publisher of a chain or the signer of an ad,
// may publish for provider.
func (p *policy) mayPublish(id, provider peer.ID) bool {
	if !p.allowed(id) || !p.allowed(provider) {
		return false
	}
	if id == provider {
		return true
	}
	if list, ok := p.publishers[provider]; ok {
		return list[id]
	}
	return p.rules.Publish != p.publishExcept[id]
}

// withAllowed is the rules with one peer allowed or blocked.
func withAllowed(rules admin.Policy, id peer.ID, allow bool) admin.Policy {
	except := slices.DeleteFunc(slices.Clone(rules.AllowExcept), func(e peer.ID) bool { return e == id })
	if allow != rules.Allow {
		except = append(except, id)
	}
	rules.AllowExcept = except
	return rules
}
