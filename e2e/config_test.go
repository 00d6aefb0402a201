package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// configFile is the file of a process's --config.
type configFile struct {
	t    *testing.T
	path string
}

func (f configFile) set(lines ...string) {
	f.t.Helper()
	if err := os.WriteFile(f.path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// logs waits until a process has logged a line with all of the texts.
func logs(t *testing.T, p *process, texts ...string) {
	t.Helper()
	eventually(t, "a line of the log", func() error {
	lines:
		for line := range strings.Lines(p.log()) {
			for _, text := range texts {
				if !strings.Contains(line, text) {
					continue lines
				}
			}
			return nil
		}
		return fmt.Errorf("no line with %q in\n%s", texts, p.logTail())
	})
}

// lookups are the answers to n lookups.
func lookups(t *testing.T, url string, n int) map[int]int {
	t.Helper()
	got := make(map[int]int)
	for range n {
		got[mustGet(t, url+"/cid/bafkqaaa", "").status]++
	}
	return got
}

// TestSettingsChangeWithTheFileWhileItRuns: what can be changed is, at SIGHUP; what
// cannot is told; a broken file changes nothing; and no process ends of it.
func TestSettingsChangeWithTheFileWhileItRuns(t *testing.T) {
	dir := workDir(t)
	file := configFile{t, filepath.Join(dir, "signpost.yaml")}
	common := []string{
		"indexer:", "  data: " + filepath.Join(dir, "ix"), "  listen-find: 127.0.0.1:0", "  listen-ingest: 127.0.0.1:0",
		"  listen-admin: 127.0.0.1:0", "  listen-p2p: none", "  store-memory: 128MiB", "  ingest-memory: 128MiB",
	}
	file.set(common...)
	p := spawn(t, dir, "indexer", "indexer", "--config", file.path)
	at := p.ready()
	if got := lookups(t, at.Find, 100); got[http.StatusNotFound] != 100 {
		t.Errorf("without a limit: %v", got)
	}

	file.set(append(common, "  client-rate: 0.01", "  log-level: debug", "  freeze-at: 50", "  publisher-ads: 7")...)
	p.signal(syscall.SIGHUP)
	logs(t, p, "setting changed", "setting=client-rate", "old=0", "new=0.01", "from="+file.path+":9")
	logs(t, p, "setting changed", "setting=log-level", "old=info", "new=debug")
	logs(t, p, "given before that", "setting=freeze-at", "running=-1", `from="env SIGNPOST_FREEZE_AT"`)
	logs(t, p, "needs a restart", "setting=publisher-ads", "running=0", "new=7")
	logs(t, p, "settings read again", "changed=2")
	if got := lookups(t, at.Find, 100); got[http.StatusTooManyRequests] != 90 {
		t.Errorf("with a limit: %v, want 90 refused", got)
	}

	file.set(append(common, "  client-rate: 0", "  log-levle: info")...)
	p.signal(syscall.SIGHUP)
	logs(t, p, "level=ERROR", "the running ones stay", file.path+":10", "did you mean", "log-level")
	if got := lookups(t, at.Find, 10); got[http.StatusTooManyRequests] != 10 {
		t.Errorf("after a broken file: %v, want all refused", got)
	}

	file.set(common...)
	p.signal(syscall.SIGHUP)
	logs(t, p, "setting changed", "setting=client-rate", "old=0.01", "new=0", "from=default")
	if got := lookups(t, at.Find, 100); got[http.StatusNotFound] != 100 {
		t.Errorf("without a limit again: %v", got)
	}
}

// TestAFrontendAndAnAssignerReadTheirSettingsAgain from one file for both.
func TestAFrontendAndAnAssignerReadTheirSettingsAgain(t *testing.T) {
	dir := workDir(t)
	pool := filepath.Join(dir, "pool.txt")
	configFile{t, pool}.set("find=http://127.0.0.1:1 ingest=http://127.0.0.1:2 admin=http://127.0.0.1:3")
	file := configFile{t, filepath.Join(dir, "signpost.yaml")}
	text := func(level string) []string {
		return []string{
			"assigner:", "  pool: " + pool, "  listen: 127.0.0.1:0", "  listen-admin: none", "  listen-p2p: none", "  log-level: " + level,
			"frontend:", "  pool: " + pool, "  listen: 127.0.0.1:0", "  log-level: " + level,
		}
	}
	file.set(text("info")...)
	for _, role := range []string{"assigner", "frontend"} {
		p := spawn(t, dir, role, role, "--config", file.path)
		p.ready()
		file.set(text("debug")...)
		p.signal(syscall.SIGHUP)
		logs(t, p, "setting changed", "setting=log-level", "old=info", "new=debug")
		logs(t, p, "settings read again", "changed=1")
		logs(t, p, "msg=reloaded") // the pool file, as without --config
		file.set(text("info")...)
	}
}

// TestWhatIsRunByHandReadsItsFileAgain, and does not end at SIGHUP as it would
// without one.
func TestWhatIsRunByHandReadsItsFileAgain(t *testing.T) {
	dir := workDir(t)
	file := configFile{t, filepath.Join(dir, "signpost.yaml")}
	text := func(level string) []string {
		return []string{
			"dev:", "  data: " + filepath.Join(dir, "dev"), "  indexers: 1", "  listen: 127.0.0.1:0", "  listen-announce: 127.0.0.1:0", "  listen-p2p: none", "  log-level: " + level,
			"publish:", "  data: " + filepath.Join(dir, "publish"), "  listen: 127.0.0.1:0", "  announce: [none]", "  find: none", "  json: true", "  log-level: " + level,
		}
	}
	file.set(text("info")...)
	dev := spawn(t, dir, "dev", "dev", "--config", file.path)
	dev.ready()
	publish := spawn(t, dir, "publish", "publish", "--config", file.path)
	publish.event("serving")
	file.set(text("debug")...)
	for _, p := range []*process{dev, publish} {
		p.signal(syscall.SIGHUP)
		logs(t, p, "setting changed", "setting=log-level", "old=info", "new=debug")
		logs(t, p, "settings read again", "changed=1")
	}
}

// TestAnIndexerWithoutAFileOutlivesSIGHUP, and says that there was nothing to read.
func TestAnIndexerWithoutAFileOutlivesSIGHUP(t *testing.T) {
	ix := startIndexer(t, workDir(t), "indexer")
	ix.signal(syscall.SIGHUP)
	logs(t, ix.process, "no settings read again")
	if a := mustGet(t, ix.Find+"/health", ""); a.status != http.StatusOK {
		t.Errorf("health: %d", a.status)
	}
}
