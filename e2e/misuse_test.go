package e2e

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMisuse: a wrong flag ends the command at once with status 2, nothing on
// stdout, and a text that names the flag.
func TestMisuse(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	data := filepath.Join(dir, "data")
	badPool := filepath.Join(dir, "bad-pool.txt")
	if err := os.WriteFile(badPool, []byte("# one line\nfind=http://127.0.0.1:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	goodPool, namePool := filepath.Join(dir, "pool.txt"), filepath.Join(dir, "name-pool.txt")
	if err := errors.Join(
		os.WriteFile(goodPool, []byte("find=127.0.0.1:1 ingest=127.0.0.1:2 admin=127.0.0.1:3\n"), 0o600),
		os.WriteFile(namePool, []byte("dns=pool.example find-port=1 ingest-port=2 admin-port=3\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	indexer := func(flags ...string) []string {
		return append([]string{"indexer", "--data", data, "--listen-find", anyPort, "--listen-ingest", anyPort,
			"--listen-admin", anyPort, "--listen-p2p", "none"}, flags...)
	}
	publish := func(flags ...string) []string {
		return append([]string{"publish", "--data", data, "--listen", anyPort, "--announce", "none", "--find", "none"}, flags...)
	}
	cases := []struct {
		name string
		args []string
		says string // must be in the text
	}{
		{"unknown command", []string{"serve"}, "serve"},
		{"unknown flag", indexer("--nope"), "nope"},
		{"stray argument", indexer("data"), "data"},
		{"data missing", []string{"indexer"}, "--data"},
		{"address without port", indexer("--listen-find", "localhost"), "--listen-find"},
		{"p2p address without port", indexer("--listen-p2p", "localhost"), "--listen-p2p"},
		{"admin for everybody", indexer("--listen-admin", "0.0.0.0:0"), "--admin-token-file"},
		{"admin for every IPv6", indexer("--listen-admin", "[::]:0"), "--admin-token-file"},
		{"admin without host", indexer("--listen-admin", ":0"), "--admin-token-file"},
		{"freeze above 100", indexer("--freeze-at", "101"), "--freeze-at"},
		{"freeze at no number", indexer("--freeze-at", "full"), "freeze-at"},
		{"quota of no size", indexer("--disk-quota", "much"), "--disk-quota"},
		{"store memory too small", indexer("--store-memory", "1KiB"), "--store-memory"},
		{"ingest memory too small", indexer("--ingest-memory", "1"), "--ingest-memory"},
		{"no denylist", indexer("--denylist", filepath.Join(dir, "none.txt")), "none.txt"},
		{"denylist with a bad line", indexer("--denylist", badPool), "bad-pool.txt:2: "},
		{"denylist of a frontend with a bad line", []string{"frontend", "--pool", goodPool, "--denylist", badPool}, "bad-pool.txt:2: "},
		{"denylist of a pool of its own with a bad line", []string{"dev", "--data", data, "--denylist", badPool}, "bad-pool.txt:2: "},
		{"client rate below nothing", indexer("--client-rate", "-1"), "--client-rate"},
		{"client rate of a frontend that is no number", []string{"frontend", "--pool", goodPool, "--client-rate", "NaN"}, "--client-rate"},
		{"proxy without an address", []string{"frontend", "--pool", goodPool, "--trusted-proxies", "10.0.0.0/8,proxy"}, `--trusted-proxies "proxy"`},
		{"drain below nothing", []string{"frontend", "--pool", goodPool, "--drain-for", "-1s"}, "--drain-for"},
		{"log level", indexer("--log-level", "loud"), "--log-level"},
		{"gossip peer without ID", indexer("--gossip-peer", "/ip4/127.0.0.1/tcp/1"), "--gossip-peer"},
		{"pool missing", []string{"assigner", "--listen", anyPort, "--listen-p2p", "none"}, "--pool"},
		{"pool with a bad line", []string{"assigner", "--listen", anyPort, "--listen-p2p", "none", "--pool", badPool}, "line 2"},
		{"no replication", []string{"assigner", "--replication", "0", "--pool", badPool}, "--replication"},
		{"resolver without port", []string{"assigner", "--resolver", "127.0.0.1", "--pool", goodPool}, "--resolver"},
		{"assigner's admin for all", []string{"assigner", "--listen-admin", ":0", "--pool", goodPool}, "--admin-token-file"},
		{"frontend's resolver without port", []string{"frontend", "--listen", anyPort, "--pool", namePool, "--resolver", "127.0.0.1"}, "--resolver"},
		{"gossip forwarded without gossip", []string{"assigner", "--listen-p2p", "none", "--pool", goodPool, "--forward-gossip"}, "--forward-gossip"},
		{"forwarded to no URL", []string{"assigner", "--listen-p2p", "none", "--pool", goodPool, "--forward-announce", "ftp://x"}, "--forward-announce"},
		{"stands by for no URL", []string{"assigner", "--listen-p2p", "none", "--pool", goodPool, "--standby-for", "x"}, "--standby-for"},
		{"negative poll", []string{"assigner", "--poll-interval", "-1s", "--pool", badPool}, "--poll-interval"},
		{"frontend of nobody", []string{"frontend", "--listen", anyPort}, "--pool"},
		{"frontend with a bad pool", []string{"frontend", "--listen", anyPort, "--pool", badPool}, "--pool"},
		{"dev without indexers", []string{"dev", "--data", data, "--indexers", "0"}, "--indexers"},
		{"dev exits for no demo", []string{"dev", "--data", data, "--exit"}, "--demo"},
		{"codec", publish("--codec", "dag-pb"), "--codec"},
		{"metadata", publish("--metadata", "carrier-pigeon"), "--metadata"},
		{"metadata update", publish("--update-metadata", "base64:!"), "--update-metadata"},
		{"provider address", publish("--provider-addr", "/ip4/nowhere"), "--provider-addr"},
		{"nobody to wait for", publish("--wait"), "--find"},
		{"path that is not there", publish(filepath.Join(dir, "nothing")), "nothing"},
		{"find of nothing", []string{"find"}, "CID"},
		{"find of no CID", []string{"find", "bafynot"}, "bafynot"},
		{"output of nothing", []string{"find", "--output", "x", "bafkqaaa"}, "--fetch"},
		{"announce of nobody", []string{"announce"}, "--publisher"},
		{"status of nobody", []string{"status", "--publisher", "me"}, "--publisher"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r := command(t, tc.args...)
			if r.code != 2 || r.stdout != "" || !strings.Contains(r.stderr, tc.says) {
				t.Errorf("signpost %s: status %d, stdout %q, stderr %q; want status 2, nothing, and a text with %q",
					strings.Join(tc.args, " "), r.code, r.stdout, r.stderr, tc.says)
			}
		})
	}
}

// TestAdminTokenIsAskedFor: with a token file nobody gets in without it, and
// an assigner that has it does.
func TestAdminTokenIsAskedFor(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	token := filepath.Join(dir, "token")
	const secret = "0123456789abcdef0123456789abcdef"
	if err := os.WriteFile(token, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ix := startIndexer(t, dir, "indexer", "--assigned-only", "--admin-token-file", token)
	for header, want := range map[string]int{"": 401, "Bearer wrong-wrong-wrong-wrong": 401, "Bearer " + secret: 200} {
		req, err := http.NewRequest(http.MethodGet, ix.Admin+"/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		if header != "" {
			req.Header.Set("Authorization", header)
		}
		if a, err := do(req); err != nil || a.status != want {
			t.Errorf("status with %q: %d, %v; want %d", header, a.status, err, want)
		}
	}
	file := writePool(t, dir, ix)
	line, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	line = append(line[:len(line)-1], " token-file=token\n"...)
	if err := os.WriteFile(file, line, 0o600); err != nil {
		t.Fatal(err)
	}
	p := &pool{dir: dir, file: file, indexers: []*indexer{ix}}
	p.startAssigner(t, anyPort)
	c := newChain(t, "publisher")
	c.add("context", multihashes("context", 5))
	c.announce(p.announce)
	untilDone(t, ix.Ingest, c)
}

// TestAdminRefusesOtherSites: a web page that a browser was lured to send to
// the open loopback listener gets nothing.
func TestAdminRefusesOtherSites(t *testing.T) {
	t.Parallel()
	ix := startIndexer(t, workDir(t), "indexer")
	for _, tc := range []struct{ host, origin string }{
		{"evil.example", ""}, {"evil.example:3002", ""}, {"", "https://evil.example"},
	} {
		req, err := http.NewRequest(http.MethodPut, ix.Admin+"/freeze", nil)
		if err != nil {
			t.Fatal(err)
		}
		if tc.host != "" {
			req.Host = tc.host
		}
		if tc.origin != "" {
			req.Header.Set("Origin", tc.origin)
		}
		if a, err := do(req); err != nil || a.status != http.StatusForbidden {
			t.Errorf("freeze by host %q, origin %q: %d, %v; want 403", tc.host, tc.origin, a.status, err)
		}
	}
	if st, err := ix.api().Status(t.Context()); err != nil || st.Frozen {
		t.Errorf("status: %+v, %v; want not frozen", st, err)
	}
}
