package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/signpost-index/signpost/api/admin"
)

// TestAnnounceProbeTellsAProviderWhatIsWrong: over the command line, as a
// provider's operator does.
func TestAnnounceProbeTellsAProviderWhatIsWrong(t *testing.T) {
	t.Parallel()
	ix := startIndexer(t, workDir(t), "indexer")
	c := newChain(t, "probed")
	c.add("a", multihashes("a", 20))
	args := []string{"announce", "--probe", "--to", ix.Ingest, "--publisher", c.id.String(), "--addr"}
	if r := commandOK(t, append(args, c.addr.String())...); !strings.Contains(r.stdout, "ok") || !strings.Contains(r.stdout, ix.Ingest) {
		t.Errorf("probe of a good publisher says:\n%s", r.stdout)
	}
	untilDone(t, ix.Ingest, c) // it was an announce as well
	other := newChain(t, "other")
	other.add("b", multihashes("b", 20))
	for _, bad := range []struct{ name, addr, head, want string }{
		{"another's chain", other.addr.String(), "", other.id.String()},
		{"nobody there", "/ip4/127.0.0.1/tcp/1/http", c.head.String(), "refuses"},
		{"no HTTP", "/ip4/127.0.0.1/tcp/1/ws", c.head.String(), "address"},
	} {
		a := append(args, bad.addr)
		if bad.head != "" {
			a = append(a, "--head", bad.head)
		}
		r := command(t, a...)
		if r.code != 1 || !strings.Contains(r.stdout, bad.want) {
			t.Errorf("%s: status %d, want 1 and %q in:\n%s%s", bad.name, r.code, bad.want, r.stdout, r.stderr)
		}
	}
}

// TestOperatorSeesAndDecidesWhatWaits: an ad without entries and a gap, told by
// status, given up by skip, and applied after all by requeue.
func TestOperatorSeesAndDecidesWhatWaits(t *testing.T) {
	t.Parallel()
	ix := startIndexer(t, workDir(t), "indexer")
	c := newChain(t, "in trouble")
	mhs := multihashes("late", 20)
	missing := c.add("missing", multihashes("missing", 20))
	entries := c.entries(mhs, 20)[0]
	late := c.push(c.ad("late", entries))
	c.add("fine", multihashes("fine", 20))
	ad, err := c.mem.Block(t.Context(), missing)
	if err != nil {
		t.Fatal(err)
	}
	chunk, err := c.mem.Block(t.Context(), entries)
	if err != nil {
		t.Fatal(err)
	}
	c.mem.Delete(missing)
	c.mem.Delete(entries)
	c.announce(ix.Ingest)
	untilIndexed(t, ix.Ingest, c.head)
	status := func() (p admin.Progress) {
		t.Helper()
		r := commandOK(t, "status", "--json", "--publisher", c.id.String(), "--admin", ix.Admin)
		if err := json.Unmarshal([]byte(r.stdout), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	eventually(t, "status names both", func() error {
		p := status()
		if len(p.Gaps) != 1 || p.Gaps[0].Ad != missing.String() || len(p.Delayed) != 1 || p.Delayed[0].Ad != late.String() {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	story := commandOK(t, "status", "--publisher", c.id.String(), "--admin", ix.Admin).stdout
	for _, want := range []string{"1 ads wait", "breaks off at " + missing.String(), late.String(), "404"} {
		if !strings.Contains(story, want) {
			t.Errorf("the story does not say %q:\n%s", want, story)
		}
	}
	for _, link := range []string{missing.String(), late.String()} {
		commandOK(t, "ad", "skip", "--publisher", c.id.String(), "--reason", "disk died", "--admin", ix.Admin, link)
	}
	eventually(t, "nothing waits", func() error {
		if p := status(); p.Mark != c.head.String() || p.Pending != 0 || len(p.Gaps) != 0 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	if st, err := getAdStatus(ix.Ingest, late); err != nil || st.Verdict != "rejected" || !strings.Contains(st.Reason, "disk died") {
		t.Errorf("skipped ad: %+v, %v", st, err)
	}
	c.mem.PutCID(missing, ad)
	c.mem.PutCID(entries, chunk)
	commandOK(t, "ad", "requeue", "--admin", ix.Admin, late.String())
	untilIndexed(t, ix.Ingest, late)
	want := make(index)
	want.with(newHolding(c.id, []byte("late"), bitswap), mhs)
	want.mustFind(t, ix.Find, "after the requeue")
	if r := command(t, "ad", "requeue", "--admin", ix.Admin, late.String()); r.code != 1 || !strings.Contains(r.stderr, "not rejected") {
		t.Errorf("requeue of what is applied: status %d, %s", r.code, r.stderr)
	}
	commandOK(t, "ad", "resync", "--admin", ix.Admin, c.id.String())
}
