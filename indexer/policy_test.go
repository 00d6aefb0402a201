package indexer

import (
	"errors"
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// TestPolicyDecidesWhoMayPublishForWhom is the table of defaults, exceptions
// and lists.
func TestPolicyDecidesWhoMayPublishForWhom(t *testing.T) {
	const a, b, c = peer.ID("a"), peer.ID("b"), peer.ID("c")
	lists := []admin.PublisherList{{Provider: b, Publishers: []peer.ID{a}}}
	tests := []struct {
		name          string
		rules         admin.Policy
		id, provider  peer.ID
		allowed, publ bool
	}{
		{"strict: for itself", strictPolicy(), a, a, true, true},
		{"strict: not for another", strictPolicy(), a, b, true, false},
		{"strict but for one", admin.Policy{Allow: true, PublishExcept: []peer.ID{a}}, a, b, true, true},
		{"open", admin.Policy{Allow: true, Publish: true}, a, b, true, true},
		{"open but for one", admin.Policy{Allow: true, Publish: true, PublishExcept: []peer.ID{a}}, a, b, true, false},
		{"that one for itself", admin.Policy{Allow: true, Publish: true, PublishExcept: []peer.ID{a}}, a, a, true, true},
		{"in the provider's list", admin.Policy{Allow: true, Publishers: lists}, a, b, true, true},
		{"not in the provider's list", admin.Policy{Allow: true, Publish: true, Publishers: lists}, c, b, true, false},
		{"the list is not about others", admin.Policy{Allow: true, Publishers: lists}, a, c, true, false},
		{"the provider needs no list", admin.Policy{Allow: true, Publishers: lists}, b, b, true, true},
		{"blocked", admin.Policy{Allow: true, AllowExcept: []peer.ID{a}}, a, a, false, false},
		{"for a blocked provider", admin.Policy{Allow: true, Publish: true, AllowExcept: []peer.ID{b}}, a, b, true, false},
		{"nobody but one", admin.Policy{AllowExcept: []peer.ID{a}}, a, a, true, true},
		{"not that one", admin.Policy{AllowExcept: []peer.ID{b}}, a, a, false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, err := newPolicy(test.rules)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.allowed(test.id); got != test.allowed {
				t.Errorf("allowed: %v", got)
			}
			if got := p.mayPublish(test.id, test.provider); got != test.publ {
				t.Errorf("may publish: %v", got)
			}
		})
	}
}

func TestPolicyIsBoundedAndChecked(t *testing.T) {
	var many []peer.ID
	for n := range admin.MaxPolicyEntries + 1 {
		many = append(many, peer.ID(fmt.Sprint("peer-", n)))
	}
	if _, err := newPolicy(admin.Policy{AllowExcept: many[1:]}); err != nil {
		t.Errorf("a full policy: %v", err)
	}
	for name, rules := range map[string]admin.Policy{
		"too many":   {AllowExcept: many},
		"too many 2": {Publishers: []admin.PublisherList{{Provider: "p", Publishers: many[1:]}}},
		"empty ID":   {PublishExcept: []peer.ID{""}},
		"twice":      {Publishers: []admin.PublisherList{{Provider: "p"}, {Provider: "p"}}},
	} {
		if _, err := newPolicy(rules); !errors.Is(err, admin.ErrBadRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAllowAndBlockUndoEachOther(t *testing.T) {
	for _, byDefault := range []bool{true, false} {
		rules := admin.Policy{Allow: byDefault}
		for _, allow := range []bool{false, true, true, false, false, true} {
			rules = withAllowed(rules, "a", allow)
			p, err := newPolicy(rules)
			if err != nil || p.allowed("a") != allow || p.allowed("b") != byDefault || len(rules.AllowExcept) > 1 {
				t.Fatalf("default %v, set to %v: %+v, %v", byDefault, allow, rules, err)
			}
		}
	}
}
