package indexer

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signpost-index/signpost/api/admin"
)

// TestANodeThatIsHeldStaysFrozen, whoever asks, and a new process of it as well;
// the promise gets longer and not shorter, and then the node can be unfrozen.
func TestANodeThatIsHeldStaysFrozen(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(dir, holdFile)
		w, l, _ := testWatch(95, func() float64 { return 10 })
		w.hold.path = path
		if err := errors.Join(w.holdFor(time.Minute, "to be restarted"), w.holdFor(time.Second, "by somebody else")); err != nil {
			t.Fatal(err)
		}
		if got := w.heldFor(); got != time.Minute || l.why != "maintenance: to be restarted" {
			t.Errorf("held for %v, frozen for %q", got, l.why)
		}
		time.Sleep(59 * time.Second)
		again, l2, _ := testWatch(95, func() float64 { return 10 })
		l2.frozen = l.frozen
		var err error
		if again.hold, err = readHold(path); err != nil {
			t.Fatal(err)
		}
		for _, w := range []*diskWatch{w, again} {
			if err := w.unfreeze(); !errors.Is(err, admin.ErrHeld) || !strings.Contains(err.Error(), "another 1s, as frontends were told (to be restarted)") {
				t.Errorf("unfreeze of a node that is held: %v", err)
			}
		}
		time.Sleep(time.Second)
		if err := again.unfreeze(); err != nil || l2.Frozen() || again.heldFor() != 0 {
			t.Errorf("unfreeze after that: %v", err)
		}
	})
}

// TestAPromiseThatCannotBeReadStopsTheStart: frontends rely on it. One of a clock
// that was wrong binds for an hour at most.
func TestAPromiseThatCannotBeReadStopsTheStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), holdFile)
	for text, says := range map[string]string{`{"Until":`: "delete the file", `{"Until":"2999-01-01T00:00:00Z"}`: ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := readHold(path)
		if (err != nil) != (says != "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		}
		if err == nil && h.left(time.Now()) != admin.MaxHold {
			t.Errorf("%s: held for %v", text, h.left(time.Now()))
		}
	}
}
