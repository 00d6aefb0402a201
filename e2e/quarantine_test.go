package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDamagedNodeComesBackFromQuarantine: a table is damaged while the node is
// down. check names it, --quarantine sets it aside and makes the node start, and
// it indexes again what is missing by itself: every multihash is found.
func TestDamagedNodeComesBackFromQuarantine(t *testing.T) {
	t.Parallel()
	for name, tables := range map[string]string{"postings": "postings/buckets/*.sst", "rows": "rows/MANIFEST-*"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := workDir(t)
			c, want := newChain(t, "damaged "+name), make(index)
			for n := range 10 {
				mhs := multihashes(fmt.Sprint(name, n), 100)
				c.add(fmt.Sprint(n), mhs)
				want.with(newHolding(c.id, []byte(fmt.Sprint(n)), bitswap), mhs)
			}
			ix := startIndexer(t, dir, "node")
			c.announce(ix.Ingest)
			untilDone(t, ix.Ingest, c)
			commandOK(t, "store", "compact", "--admin", ix.Admin)
			mustExit(t, 2, "check", ix.dir) // it runs
			ix.stop()
			mustExit(t, 0, "check", ix.dir)
			files, err := filepath.Glob(filepath.Join(ix.dir, "store", filepath.FromSlash(tables)))
			if err != nil || len(files) == 0 {
				t.Fatalf("no %s: %v", tables, err)
			}
			for _, file := range files {
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				for n := range min(len(b), 64) {
					b[len(b)-1-n] ^= 0x55
				}
				if err := os.WriteFile(file, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if out := mustExit(t, 1, "check", ix.dir); !strings.Contains(out, name) {
				t.Errorf("check says %q, which does not name %s", out, name)
			}
			if out := mustExit(t, 1, "check", ix.dir, "--quarantine"); !strings.Contains(out, c.id.String()) || !strings.Contains(out, "set aside") {
				t.Errorf("quarantine says %q, which does not name the publisher", out)
			}
			ix.restart()
			eventually(t, "all is found again", func() error { return want.check(ix.Find) })
			untilDone(t, ix.Ingest, c)
			eventually(t, "it is whole", func() error {
				if r := command(t, "store", "mark-whole", "--admin", ix.Admin); r.code != 0 {
					return errors.New(r.stderr)
				}
				return nil
			})
			commandOK(t, "store", "check", "--admin", ix.Admin)
			ix.stop()
			mustExit(t, 0, "check", ix.dir)
		})
	}
}

func mustExit(t testing.TB, code int, args ...string) (stdout string) {
	t.Helper()
	r := command(t, args...)
	if r.code != code {
		t.Errorf("signpost %s: status %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.stdout, r.stderr)
	}
	return r.stdout
}
