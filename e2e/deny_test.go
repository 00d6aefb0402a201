package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/signpost-index/signpost/api/find"
)

// denyFile is a denylist that a test changes.
type denyFile struct {
	t    testing.TB
	path string
}

func newDenyFile(t testing.TB, dir, name string) *denyFile {
	f := &denyFile{t, filepath.Join(dir, name)}
	f.set("# nothing yet")
	return f
}

// set replaces the list, as an operator's editor does.
func (f *denyFile) set(lines ...string) {
	f.t.Helper()
	next := f.path + ".new"
	if err := errors.Join(os.WriteFile(next, []byte(strings.Join(lines, "\n")+"\n"), 0o600), os.Rename(next, f.path)); err != nil {
		f.t.Fatal(err)
	}
}

// denies waits for key to be denied at base, for a reason.
func denies(t testing.TB, base string, key cid.Cid, reason string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s denied for %q", key, reason), func() error {
		for _, accept := range []string{asJSON, asNDJSON} {
			a, err := get(base+"/cid/"+key.String(), accept)
			if err != nil {
				return err
			}
			if a.status != http.StatusGone || string(a.body) != reason+"\n" {
				return fmt.Errorf("%s: status %d: %s", accept, a.status, a.body)
			}
		}
		return nil
	})
}

// finds waits for key to be found at base, in full.
func finds(t testing.TB, base string, key cid.Cid) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s found at %s", key, base), func() error {
		a, err := get(base+"/cid/"+key.String(), asJSON)
		if err != nil {
			return err
		}
		return expectOK(a, asJSON)
	})
}

// TestDenylistIsLive: of two indexers that have the same content one gets a takedown, and
// its pool holds it within five seconds, without a restart; a file that is broken later
// lifts nothing; and the frontend has a list of its own.
func TestDenylistIsLive(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	atA, atFront := newDenyFile(t, dir, "a.txt"), newDenyFile(t, dir, "front.txt")
	a := startIndexer(t, dir, "a", "--denylist", atA.path)
	b := startIndexer(t, dir, "b")
	fe := spawn(t, dir, "frontend", "frontend", "--listen", anyPort, "--pool", writePool(t, dir, a, b),
		"--denylist", atFront.path, "--listen-metrics", anyPort)
	front := fe.ready()
	c := newChain(t, "taken down")
	mhs := multihashes("taken down", 4)
	c.add("set 17", mhs[:2])
	c.add("set 18", mhs[2:])
	c.announce(a.Ingest)
	c.announce(b.Ingest)
	keys := []cid.Cid{raw(mhs[0]), raw(mhs[1]), raw(mhs[2]), raw(mhs[3])}
	for _, key := range keys {
		finds(t, a.Find, key)
		finds(t, b.Find, key)
		finds(t, front.HTTP, key)
	}

	changed := time.Now()
	atA.set("multihash " + keys[0].String() + " order 7")
	denies(t, a.Find, keys[0], "order 7")
	if took := time.Since(changed); took > 5*time.Second {
		t.Errorf("a change was in force after %s", took)
	}
	eventually(t, "the whole pool denies it", func() error { return goneOrEnded(front.HTTP, keys[0], "order 7") })
	finds(t, b.Find, keys[0])
	finds(t, front.HTTP, keys[1])
	if r := command(t, "find", keys[0].String(), "--find", front.HTTP); r.code != 1 || !strings.Contains(r.stderr, "denied: order 7") {
		t.Errorf("signpost find: status %d, %s", r.code, r.stderr)
	}
	if r := command(t, "find", keys[0].String(), keys[1].String(), "--find", front.HTTP, "--json"); r.code != 1 ||
		!strings.Contains(r.stderr, "denied: order 7") || !strings.Contains(r.stdout, `"Denied":[{"Key":"`+keys[0].String()+`","Kind":"multihash","Reason":"order 7"}]`) {
		t.Errorf("signpost find of two: status %d, %s, %s", r.code, r.stdout, r.stderr)
	}

	atA.set("multihash oops")
	eventually(t, "the broken list is told of", func() error {
		m, err := get(a.Admin+"/metrics", "")
		if err != nil || !bytes.Contains(m.body, []byte("signpost_denylist_stale 1")) {
			return fmt.Errorf("metrics do not tell: %v", err)
		}
		if log := a.log(); !strings.Contains(log, atA.path+":1: ") || !strings.Contains(log, "the one read before stays in force") {
			return fmt.Errorf("log: %s", log)
		}
		return nil
	})
	denies(t, a.Find, keys[0], "order 7")

	atA.set("provider "+c.id.String()+" spam", "context "+c.id.String()+" c2V0IDE3 malware")
	a.signal(syscall.SIGHUP)
	denies(t, a.Find, keys[0], "spam")
	finds(t, front.HTTP, keys[0]) // b still has it, and denies no provider

	salted := sha256.Sum256(append(append([]byte("CR_DOUBLEHASH"), make([]byte, 64-13)...), mhs[2]...))
	atFront.set(fmt.Sprintf("double-hash 5620%x order 8", salted), "context "+c.id.String()+" c2V0IDE3 malware")
	denies(t, front.HTTP, keys[2], "order 8")
	denies(t, front.HTTP, keys[1], "malware")
	finds(t, front.HTTP, keys[3])
	finds(t, b.Find, keys[2])
	if m := mustGet(t, front.Metrics+"/metrics", ""); !bytes.Contains(m.body, []byte(`signpost_denylist_entries{kind="double-hash"} 1`)) ||
		!bytes.Contains(m.body, []byte(`signpost_denylist_denied_total{kind="context"}`)) {
		t.Errorf("metrics: %s", m.body)
	}
	if log := fe.log(); !strings.Contains(log, "added.double-hash=1 added.context=1") || !strings.Contains(log, "lookup denied") || strings.Contains(log, mhs[2].B58String()) {
		t.Errorf("log: %s", log)
	}

	atA.set("")
	atFront.set("")
	for _, key := range keys {
		finds(t, a.Find, key)
		finds(t, front.HTTP, key)
	}
}

// goneOrEnded is nil if key is denied; a stream may have begun with what another
// indexer knows.
func goneOrEnded(base string, key cid.Cid, reason string) error {
	for _, accept := range []string{asJSON, asNDJSON} {
		a, err := get(base+"/cid/"+key.String(), accept)
		if err != nil {
			return err
		}
		ended := accept == asNDJSON && a.status == http.StatusOK && a.header.Get(find.HeaderDenied) == "multihash "+reason
		if !ended && (a.status != http.StatusGone || string(a.body) != reason+"\n") {
			return fmt.Errorf("%s: status %d: %s %v", accept, a.status, a.body, a.header)
		}
	}
	return nil
}

// TestDevHasADenylist, for its frontend and all its indexers.
func TestDevHasADenylist(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	list := newDenyFile(t, dir, "deny.txt")
	dev := spawn(t, dir, "dev", "dev", "--data", filepath.Join(dir, "data"), "--listen", anyPort, "--listen-announce", anyPort, "--listen-p2p", "none", "--denylist", list.path)
	r := dev.ready()
	key := raw(multihashes("dev", 1)[0])
	list.set("multihash " + key.String() + " order 7")
	for _, base := range []string{r.Frontend.HTTP, r.Indexers[0].Find, r.Indexers[1].Find} {
		denies(t, base, key, "order 7")
	}
}
