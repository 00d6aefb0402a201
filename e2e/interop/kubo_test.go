package interop

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/multiformats/go-multihash"
)

// kuboEnv names Kubo's binary, ipfs; `make kubo` builds it and runs these tests.
const kuboEnv = "SIGNPOST_KUBO"

// kubo is a Kubo node that asks one delegated router and nobody else.
type kubo struct {
	t    *testing.T
	repo string
}

func startKubo(t *testing.T, router string) *kubo {
	t.Helper()
	k := &kubo{t, filepath.Join(workDir(t), "repo")}
	k.run("init", "--profile", "test", "--empty-repo")
	for key, value := range map[string]string{
		"Routing.Type":             `"delegated"`,
		"Routing.DelegatedRouters": fmt.Sprintf("[%q]", router),
		"Ipns.DelegatedPublishers": "[]",
		"AutoConf.Enabled":         "false",
		"Provide.Enabled":          "false",
		"AutoTLS.Enabled":          "false",
		"Bootstrap":                "[]",
	} {
		k.run("config", "--json", key, value)
	}
	cmd := k.command(context.Background(), "daemon")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	isUp := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "Daemon is ready") {
				close(isUp)
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		<-read
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("kubo: %v\n%s", err, &stderr)
		}
	})
	select {
	case <-isUp:
	case <-read:
		t.Fatal("kubo ended")
	case <-time.After(time.Minute):
		t.Fatal("kubo did not come up")
	}
	return k
}

func (k *kubo) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Getenv(kuboEnv), args...)
	cmd.Env = append(environment(filepath.Dir(k.repo)), "IPFS_PATH="+k.repo)
	return cmd
}

// run returns the lines that a command of Kubo's prints.
func (k *kubo) run(args ...string) []string {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), time.Minute)
	defer cancel()
	out, err := k.command(ctx, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		text := ""
		if errors.As(err, &exit) {
			text = string(exit.Stderr)
		}
		k.t.Fatalf("ipfs %s: %v %s", strings.Join(args, " "), err, text)
	}
	return strings.Fields(string(out))
}

// TestKuboAsksTheFrontend: Kubo with our frontend as its only router finds the
// providers it can use, their addresses, and nothing where there is nothing.
func TestKuboAsksTheFrontend(t *testing.T) {
	if os.Getenv(kuboEnv) == "" {
		t.Log("not asked for: " + kuboEnv + " is not set")
		return
	}
	r := startRouted(t)
	k := startKubo(t, r.pool.frontend.HTTP)
	found := func(mh multihash.Multihash) []string {
		return k.run("routing", "findprovs", "--num-providers", "20", rawCID(mh).String())
	}
	got := found(r.mh)
	for _, name := range []string{"bitswap", "three", "gateway", "unknown"} {
		id := r.providers[name].id.String()
		if usable := name != "unknown"; slices.Contains(got, id) != usable {
			t.Errorf("%s: found %v, want %v", name, !usable, usable)
		}
	}
	if got := found(sum([]byte("nobody has this"))); len(got) != 0 {
		t.Errorf("found %q of what nobody has", got)
	}
	addrs := k.run("routing", "findpeer", r.providers["bitswap"].id.String())
	if !slices.ContainsFunc(addrs, func(a string) bool { return strings.HasPrefix(a, "/ip4/192.0.2.1/tcp/4001") }) {
		t.Errorf("addresses of a peer: %q", addrs)
	}
}
