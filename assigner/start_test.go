package assigner

import (
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/signpost-index/signpost/api/admin"
)

// TestStartOnAHundredIndexersIsQuick: within five seconds an assigner has read
// 10,000 publishers from 100 indexers over HTTP, and has placed a new one.
func TestStartOnAHundredIndexersIsQuick(t *testing.T) {
	const indexers, each = 100, 100
	var members []admin.PoolMember
	var all []*oursIndexer
	for i := range indexers {
		o := newOurs(newFake(realID(t, int64(1000+i))))
		for k := range each {
			p := madeUp(i*each + k)
			o.roles[p] = &admin.PublisherRole{Publisher: p, Role: admin.RoleOwner, Ranges: []admin.Range{{}}, Mark: head("1").String(), Height: 1}
		}
		srv := httptest.NewServer(admin.NewHandler(o, admin.HandlerConfig{Node: o, Roles: o}))
		t.Cleanup(srv.Close)
		all = append(all, o)
		members = append(members, admin.PoolMember{
			Find: fmt.Sprintf("http://127.0.0.1:1/%d", i), Ingest: fmt.Sprintf("http://127.0.0.1:2/%d", i), Admin: srv.URL,
		})
	}
	started := time.Now()
	a, _ := run(t, Config{Replication: 1, Members: members})
	publisher := realID(t, 1)
	if err := a.hear(t.Context(), announceOf(publisher, "h")); err != nil {
		t.Fatal(err)
	}
	owners := func() (n int) {
		for _, o := range all {
			o.set(func() {
				if o.roles[publisher] != nil {
					n++
				}
			})
		}
		return n
	}
	acted := make(chan struct{}, 1)
	for _, o := range all {
		o.set(func() { o.acted = acted })
	}
	for deadline := time.After(30 * time.Second); owners() == 0; {
		select {
		case <-acted:
		case <-deadline:
			t.Fatal("the new publisher has no owner")
		}
	}
	elapsed := time.Since(started)
	t.Logf("%v until a new publisher had an owner", elapsed)
	if _, publishers, _ := a.pool.members(time.Now()); publishers < indexers*each || owners() != 1 {
		t.Errorf("%d publishers, %d owners of the new one", publishers, owners())
	}
	if elapsed > 5*time.Second {
		t.Errorf("took %v", elapsed)
	}
}
