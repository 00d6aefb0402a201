package e2e

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// artefactsEnv names the directory for what a test leaves for people to look at.
const artefactsEnv = "SIGNPOST_ARTEFACTS"

// chromiumNames are the commands that may be the browser.
var chromiumNames = []string{"chromium", "chromium-browser", "google-chrome"}

// chromium is the path of the browser. A test without one fails.
func chromium(t testing.TB) string {
	t.Helper()
	for _, name := range chromiumNames {
		if found, err := exec.LookPath(name); err == nil {
			return found
		}
	}
	t.Fatalf("no browser: none of %s is in PATH; `make browser` as root installs Debian's package chromium",
		strings.Join(chromiumNames, ", "))
	return ""
}

// browser is one Chromium process. It has a home of its own, and what is not on
// loopback does not exist for it.
type browser struct {
	ctx context.Context
}

// startBrowser starts Chromium. When the test ends it is closed, and none of
// its processes may be left.
func startBrowser(t testing.TB, dir string) *browser {
	t.Helper()
	home := filepath.Join(dir, "browser")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	opts := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(chromium(t)), chromedp.UserDataDir(home), chromedp.Env("HOME="+home),
		chromedp.CombinedOutput(&output), // read when it has ended
		chromedp.WindowSize(1280, 900),
		chromedp.NoSandbox, // root and many containers can have none; it sees pages of ours only
		chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	)
	alloc, release := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		closing, done := context.WithTimeout(ctx, patience)
		defer done()
		if err := chromedp.Cancel(closing); err != nil {
			t.Errorf("close the browser: %v", err)
		}
		cancel()
		release()
		if t.Failed() {
			t.Logf("the browser wrote:\n%s", output.String())
		}
		eventually(t, "the browser's processes are gone", func() error { return unusedBy(home) })
	})
	// The browser lives until it is closed, not as long as its first step may take.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", chromium(t), err)
	}
	return &browser{ctx}
}

// unusedBy reports nil if no process has dir in its command line. Chromium
// gives it to each of its processes.
func unusedBy(dir string) error {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && bytes.Contains(line, []byte(dir)) {
			return fmt.Errorf("%s: %q", file, line)
		}
	}
	return nil
}

// tab is a tab of a browser, and what happened in it. Its methods are for the
// test's goroutine.
type tab struct {
	t   testing.TB
	ctx context.Context

	mu       sync.Mutex
	requests []string // URLs
	console  []string // what it said, errors and warnings among it

	statuses []string // what it has to say of pages that are no 200
}

// open opens a tab. It is closed when the test ends.
func (b *browser) open(t testing.TB) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	t.Cleanup(cancel)
	tb := &tab{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, tb.heard); err != nil {
		t.Fatal(err)
	}
	return tb
}

// heard notes an event, in the order in which they come.
func (tb *tab) heard(event any) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		tb.requests = append(tb.requests, e.Request.URL)
	case *network.EventWebSocketCreated:
		tb.requests = append(tb.requests, e.URL)
	case *log.EventEntryAdded:
		tb.console = append(tb.console, fmt.Sprintf("%s %s: %s", e.Entry.Source, e.Entry.Level, e.Entry.Text))
	case *runtime.EventConsoleAPICalled:
		tb.console = append(tb.console, "console."+string(e.Type))
	case *runtime.EventExceptionThrown:
		tb.console = append(tb.console, "exception: "+e.ExceptionDetails.Text)
	}
}

// do does steps, one after the other.
func (tb *tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		tb.t.Fatalf("%s: %v", what, err)
	}
}

// dark makes it night.
func (tb *tab) dark() {
	tb.t.Helper()
	tb.do("night", chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}},
		})
		return err
	}))
}

// load does a step that loads a page, and returns the answer.
func (tb *tab) load(what string, steps ...chromedp.Action[chromedp.Void]) *network.Response {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	resp, err := chromedp.RunResponse(ctx, steps...)
	if err != nil {
		tb.t.Fatalf("%s: %v", what, err)
	}
	if resp.Status >= http.StatusBadRequest {
		tb.statuses = append(tb.statuses, fmt.Sprintf("network error: Failed to load resource: the server responded with a status of %d (%s)",
			resp.Status, http.StatusText(int(resp.Status))))
	}
	return resp
}

// read is the value of one action in a tab.
func read[T any](tb *tab, what string, action chromedp.Action[T]) T {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, action)
	if err != nil {
		tb.t.Fatalf("%s: %v", what, err)
	}
	return value
}

// stayedAt fails the test if the tab asked for anything that is not below base,
// or its console said anything but what Chromium says of any page that is an error.
func (tb *tab) stayedAt(base string) {
	tb.t.Helper()
	tb.mu.Lock()
	defer tb.mu.Unlock()
	home, err := url.Parse(base)
	if err != nil {
		tb.t.Fatal(err)
	}
	for _, asked := range tb.requests {
		u, err := url.Parse(asked)
		if err != nil || u.Scheme != "data" && (u.Scheme != home.Scheme || u.Host != home.Host) {
			tb.t.Errorf("the page asked for %s", asked)
		}
	}
	if len(tb.requests) == 0 {
		tb.t.Error("no request was seen")
	}
	if !slices.Equal(tb.console, tb.statuses) {
		tb.t.Errorf("console: %q, want %q", tb.console, tb.statuses)
	}
}

// screenshot keeps the whole page, as it looks, as an artefact of the test.
func (tb *tab) screenshot(dir, name string) {
	tb.t.Helper()
	const quality = 100 // that is PNG
	image := read(tb, "screenshot", chromedp.FullScreenshot(quality))
	size, err := png.DecodeConfig(bytes.NewReader(image))
	if err != nil || size.Width < 300 || size.Height < 300 {
		tb.t.Fatalf("screenshot %s: %+v, %v", name, size, err)
	}
	file := filepath.Join(dir, name+".png")
	if err := os.WriteFile(file, image, 0o600); err != nil {
		tb.t.Fatal(err)
	}
	tb.t.Logf("screenshot of %d bytes: %s", len(image), file)
}

// artefacts is the directory for what the test leaves: what the environment says,
// or that of the go command, which keeps it with -artifacts only. It is never in
// the repository.
func artefacts(t testing.TB) string {
	t.Helper()
	dir := os.Getenv(artefactsEnv)
	if dir == "" {
		return t.ArtifactDir()
	}
	repository, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if rel, err := filepath.Rel(repository, dir); !filepath.IsAbs(dir) || err != nil || filepath.IsLocal(rel) {
		t.Fatalf("%s=%s: want an absolute path outside of the repository", artefactsEnv, dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
