package assigner

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/signpost-index/signpost/api/admin"
)

// TestCoverageIsThePoolsUnion: what each member said, also of one that is down, and
// which are not known at all.
func TestCoverageIsThePoolsUnion(t *testing.T) {
	a := idleAssigner(t, "A", "B", "C")
	x, y, p := realID(t, 1), realID(t, 2), realID(t, 11)
	nodes := a.pool.starting()
	now := time.Now()
	for i, f := range []*facts{{id: x}, {id: y}} {
		role := admin.PublisherRole{Publisher: p, Role: admin.RoleHolder, Ranges: []admin.Range{{To: "m"}}, Mark: "m"}
		if i == 1 {
			role.Role, role.Ranges, role.Pending = admin.RoleOwner, []admin.Range{{From: "m"}}, 2
		}
		f.setRoles([]admin.PublisherRole{role})
		look, _, _, _ := a.pool.startLook(nodes[i])
		a.pool.finishLook(nodes[i], look, f, nil, now)
	}
	look, _, _, _ := a.pool.startLook(nodes[0])
	a.pool.finishLook(nodes[0], look, nil, admin.ErrUnavailable, now)

	w := httptest.NewRecorder()
	a.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, admin.CoveragePath, nil))
	var c PoolCoverage
	if err := json.Unmarshal(w.Body.Bytes(), &c); err != nil || w.Code != http.StatusOK || len(c.Members) != 3 {
		t.Fatalf("%d %s %v", w.Code, w.Body, err)
	}
	if m := c.Members[0]; m.ID != x || m.State != StateDown || !m.Known || len(m.Publishers) != 1 || m.Publishers[0].Ranges[0].To != "m" || m.Publishers[0].More {
		t.Errorf("one that is down: %+v", m)
	}
	if m := c.Members[1]; m.ID != y || m.State != StateActive || m.Publishers[0].Role != admin.RoleOwner || !m.Publishers[0].More {
		t.Errorf("one that lags: %+v", m)
	}
	if m := c.Members[2]; m.Known || m.State != StateUnknown || len(m.Publishers) != 0 {
		t.Errorf("one never read: %+v", m)
	}
}
