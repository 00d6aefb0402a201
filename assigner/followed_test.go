package assigner

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signpost-index/signpost/api/admin"
)

// TestNamesAreFollowedWithoutAnAssigner: an address that is new counts at once, one
// that vanished for as long as it is kept, and a look-up that fails changes nothing.
func TestNamesAreFollowedWithoutAnAssigner(t *testing.T) {
	const keep = time.Minute
	synctest.Test(t, func(t *testing.T) {
		dns := new(fakeDNS)
		n := &Names{ask: dns}
		lines := poolLines(t, nameLine+"find=h:1 ingest=h:2 admin=h:9")
		want := func(when string, failed bool, keep time.Duration, want string) {
			t.Helper()
			members, errs := n.Members(t.Context(), lines, keep)
			if got := findURLs(members); got != want || (len(errs) > 0) != failed {
				t.Errorf("%s: %s, %v; want %s", when, got, errs, want)
			}
		}
		want("no answer yet", true, keep, "http://h:1")
		dns.set("p", "10.0.0.2")
		want("the first", false, keep, "http://10.0.0.2:1 http://h:1")
		dns.set("p", "10.0.0.1", "10.0.0.2")
		want("one joins", false, keep, "http://10.0.0.1:1 http://10.0.0.2:1 http://h:1")
		time.Sleep(time.Second)
		dns.set("p", "10.0.0.3", "10.0.0.1")
		want("one vanishes and one is new", false, keep, "http://10.0.0.1:1 http://10.0.0.2:1 http://10.0.0.3:1 http://h:1")
		dns.set("p")
		time.Sleep(2 * keep)
		want("no answer for long", true, keep, "http://10.0.0.1:1 http://10.0.0.2:1 http://10.0.0.3:1 http://h:1")
		dns.set("p", "10.0.0.3")
		time.Sleep(keep - time.Second)
		want("answers again", false, keep, "http://10.0.0.1:1 http://10.0.0.2:1 http://10.0.0.3:1 http://h:1")
		time.Sleep(time.Second)
		want("away for long enough", false, keep, "http://10.0.0.3:1 http://h:1")
		dns.set("p", "10.0.0.4")
		want("somebody else remembers", false, 0, "http://10.0.0.4:1 http://h:1")
	})
}

func findURLs(members []admin.PoolMember) string {
	var urls []string
	for _, m := range members {
		urls = append(urls, m.Find)
	}
	return strings.Join(urls, " ")
}

// TestTooManyAddressesAreLeftOut: what vanished goes first.
func TestTooManyAddressesAreLeftOut(t *testing.T) {
	dns := new(fakeDNS)
	n := &Names{ask: dns}
	lines := poolLines(t, nameLine)
	dns.set("p", "10.9.9.9")
	n.Members(t.Context(), lines, time.Hour)
	var many []string
	for i := range maxAddresses {
		many = append(many, fmt.Sprintf("10.0.%d.%d", i/250, 1+i%250))
	}
	dns.set("p", many...)
	members, _ := n.Members(t.Context(), lines, time.Hour)
	if len(members) != maxAddresses || strings.Contains(findURLs(members), "10.9.9.9") {
		t.Errorf("%d members, %s", len(members), findURLs(members[:2]))
	}
}

// TestNobodyWaitsForAnIndexerThatHasMoved: one that was read at another address holds
// up no new publisher at the old one, and the old one may be forgotten.
func TestNobodyWaitsForAnIndexerThatHasMoved(t *testing.T) {
	now := time.Now()
	old, at := newNode(now), newNode(now)
	p := &pool{cfg: poolConfig{grace: time.Hour}, nodes: []*node{old, at}}
	id := realID(t, 1)
	old.facts, old.err = &facts{id: id}, errors.New("connection refused")
	if err := p.claimID(at, id); err != nil {
		t.Fatal(err)
	}
	if old.facts != nil || old.awaited(now, p.cfg.grace) {
		t.Errorf("%+v is waited for", old)
	}
	if !at.awaited(now, p.cfg.grace) {
		t.Error("one that was not read yet is not waited for")
	}
}
