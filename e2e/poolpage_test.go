package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// The parts of the pool page.
const (
	tokenBox    = chromedp.CSS("#token input")
	tokenButton = chromedp.CSS("#token button")
	whyBox      = chromedp.CSS("#ask input[name=reason]")
	yesButton   = chromedp.CSS("#yes")
)

// poolPageStory is a pool with a publisher, and a browser.
type poolPageStory struct {
	*pool
	owner, other *indexer
	publisher    string
	token, file  string
	browser      *browser
	artefacts    string
}

// TestPoolPageInABrowser: people see their pool change without loading the page
// again, at a desk and on a phone. Who has no token sees and cannot act; who has it
// acts from there.
func TestPoolPageInABrowser(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	s := &poolPageStory{artefacts: artefacts(t), token: "the-token-of-this-test-alone", file: filepath.Join(dir, "token")}
	if err := os.WriteFile(s.file, []byte(s.token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.pool = startPool(t, dir, 2, "--admin-token-file", s.file)
	c := newChain(t, "on the pool page")
	c.add("context", multihashes("on the pool page", 40))
	c.announce(s.announce)
	s.owner, s.publisher = s.holder(t, c.id), c.id.String()
	s.other = s.indexers[1-slices.Index(s.indexers, s.owner)]
	untilDone(t, s.owner.Ingest, c)
	s.browser = startBrowser(t, dir)
	t.Run("a freeze is told", s.freezeIsTold)
	t.Run("an operator acts", s.operatorActs)
	t.Run("a drain has progress", s.drainHasProgress)
	t.Run("phone", s.phone)
	t.Run("dark, with a publisher", s.darkPublisher)
	t.Run("the assigner is down", s.assignerDown)
}

// visit opens the page below base.
func (s *poolPageStory) visit(tb *tab, base, query string) {
	tb.t.Helper()
	resp := tb.load("open the pool page", chromedp.Navigate(base+"/"+query))
	if resp.Status != http.StatusOK || resp.MimeType != "text/html" {
		tb.t.Fatalf("status %d, type %s", resp.Status, resp.MimeType)
	}
	tb.do("mark the document", chromedp.Evaluate[chromedp.Void](`void (document.marked = true)`))
}

// tells waits until the page says something, all by itself.
func tells(tb *tab, pattern string) {
	tb.t.Helper()
	want := regexp.MustCompile(pattern)
	eventually(tb.t, "the page tells "+pattern, func() error {
		if text := read(tb, "text", chromedp.Text(pageBody)); !want.MatchString(text) {
			return fmt.Errorf("it tells:\n%s", text)
		}
		return nil
	})
	if !read(tb, "the mark", chromedp.Evaluate[bool](`Boolean(document.marked)`)) {
		tb.t.Error("the page was loaded again")
	}
}

// state waits until the page says that an indexer is in a state.
func (s *poolPageStory) state(tb *tab, ix *indexer, want string) {
	tb.t.Helper()
	eventually(tb.t, ix.name+" is shown as "+want, func() error {
		got := read(tb, "state", chromedp.Evaluate[string](fmt.Sprintf(`document.querySelector("tr[data-node='%s'] .state")?.textContent ?? "not there"`, ix.ID)))
		if got != want {
			return fmt.Errorf("it is shown as %q", got)
		}
		return nil
	})
	if !read(tb, "the mark", chromedp.Evaluate[bool](`Boolean(document.marked)`)) {
		tb.t.Error("the page was loaded again")
	}
}

// asks says something with signpost pool.
func (s *poolPageStory) asks(t *testing.T, args ...string) {
	t.Helper()
	commandOK(t, append(append([]string{"pool"}, args...), "--admin", s.admin, "--admin-token-file", s.file)...)
}

func (s *poolPageStory) freezeIsTold(t *testing.T) {
	tb := s.browser.open(t)
	s.visit(tb, s.announce, "")
	s.state(tb, s.owner, "active")
	s.state(tb, s.other, "active")
	tells(tb, `2 indexers: 2 active\. 1 publisher,`)
	sees(tb, s.publisher)
	sees(tb, `[0-9.]+ %, [0-9.]+ [KMGT]iB free`)
	checkLayout(tb, 1280)
	tb.screenshot(s.artefacts, "pool-desk")
	if n := read(tb, "buttons", chromedp.Evaluate[int](`document.querySelectorAll("button[data-do]").length`)); n != 0 {
		t.Errorf("where anybody looks there are %d buttons", n)
	}

	s.asks(t, "freeze", s.owner.ID, "--reason", "not for everybody")
	s.state(tb, s.owner, "frozen")
	tells(tb, `(?s)Events.*frozen`)
	tells(tb, `(?s)Events.*handoff`)
	text := read(tb, "text", chromedp.Text(pageBody))
	if strings.Contains(text, "not for everybody") {
		t.Errorf("what an operator said is told to anybody:\n%s", text)
	}
	tb.screenshot(s.artefacts, "pool-frozen-desk")
	tb.stayedAt(s.announce)
}

func (s *poolPageStory) operatorActs(t *testing.T) {
	tb := s.browser.open(t)
	s.visit(tb, s.admin, "")
	s.state(tb, s.owner, "frozen")
	disabled := func() int {
		return read(tb, "buttons", chromedp.Evaluate[int](`[...document.querySelectorAll("button[data-do]")].filter(b => b.disabled).length`))
	}
	all := read(tb, "buttons", chromedp.Evaluate[int](`document.querySelectorAll("button[data-do]").length`))
	if n := disabled(); all < 6 || n != all {
		t.Errorf("without a token %d of %d buttons are disabled", n, all)
	}
	s.forged(t)
	tb.screenshot(s.artefacts, "pool-no-token")

	// Who makes up a token is told so.
	tb.do("a wrong token", chromedp.SendKeys(tokenBox, "a-token-that-nobody-gave-out"), chromedp.Click(tokenButton))
	tells(tb, `The token was refused`)
	tb.mu.Lock()
	tb.statuses = slices.Clone(tb.console) // of the answer 401
	if len(tb.console) != 1 || !strings.Contains(tb.console[0], "401") {
		t.Errorf("console: %q", tb.console)
	}
	tb.mu.Unlock()
	if n := disabled(); n != all {
		t.Errorf("with a wrong token %d of %d buttons are disabled", n, all)
	}
	tb.do("the token", chromedp.SendKeys(tokenBox, s.token), chromedp.Click(tokenButton))
	eventually(t, "buttons can be pressed", func() error {
		if n := disabled(); n != 0 {
			return fmt.Errorf("%d of %d are disabled", n, all)
		}
		return nil
	})
	tells(tb, `not for everybody`) // now it is for this reader
	button := chromedp.CSS(fmt.Sprintf("tr[data-node='%s'] button[data-do*=unfreeze]", s.owner.ID))
	s.keepsFocus(tb, button)
	tb.do("press the button", chromedp.Click(button), chromedp.WaitVisible(yesButton))
	tells(tb, `Have indexer `+s.owner.ID+` take content again\?`)
	tb.screenshot(s.artefacts, "pool-asking")
	tb.do("say why, and yes", chromedp.SendKeys(whyBox, "there is room now"), chromedp.Click(yesButton))
	tells(tb, `indexer `+s.owner.ID+` takes content again`)
	s.state(tb, s.owner, "active")
	tells(tb, `(?s)Events.*there is room now`)
	tb.screenshot(s.artefacts, "pool-operator")
	tb.stayedAt(s.admin)
}

// keepsFocus: what a person is at stays while the page changes around it.
func (s *poolPageStory) keepsFocus(tb *tab, button chromedp.CSS) {
	tb.t.Helper()
	const clock = chromedp.CSS("#sum time")
	tb.do("go to the button", chromedp.Focus(button))
	before := read(tb, "time", chromedp.Text(clock))
	eventually(tb.t, "the page changes", func() error {
		if read(tb, "time", chromedp.Text(clock)) == before {
			return fmt.Errorf("it is as of %s still", before)
		}
		return nil
	})
	if label := read(tb, "focus", chromedp.Evaluate[string](`document.activeElement.textContent`)); label != "Unfreeze" {
		tb.t.Errorf("the focus has gone to %q", label)
	}
}

// forged: who asks past the page, without the token, is refused.
func (s *poolPageStory) forged(t *testing.T) {
	t.Helper()
	for _, path := range []string{"freeze", "drain"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.admin+"/signpost/v1/pool/"+path+"?indexer="+s.other.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s without a token: status %d, want 401", path, resp.StatusCode)
		}
	}
}

func (s *poolPageStory) drainHasProgress(t *testing.T) {
	tb := s.browser.open(t)
	s.visit(tb, s.announce, "")
	s.asks(t, "drain", s.other.ID)
	s.state(tb, s.other, "draining")
	tells(tb, s.other.ID+` is drained for .*\n.* of [0-9]+ publishers go on at other indexers`)
	tells(tb, `([0-9]+) of [0-9]+ publishers have left it`)
	tb.screenshot(s.artefacts, "pool-draining")
	s.asks(t, "undrain", s.other.ID)
	s.state(tb, s.other, "active")
	tb.stayedAt(s.announce)
}

func (s *poolPageStory) phone(t *testing.T) {
	tb := s.browser.open(t)
	tb.do("be a phone", chromedp.EmulateViewport(phoneWidth, phoneHeight,
		chromedp.EmulateMobile, chromedp.EmulateTouch, chromedp.EmulatePortrait, chromedp.EmulateScale(2)))
	for _, base := range []string{s.announce, s.admin} {
		s.visit(tb, base, "")
		s.state(tb, s.owner, "active")
		checkLayout(tb, phoneWidth)
	}
	tb.screenshot(s.artefacts, "pool-phone")
	s.visit(tb, s.announce, "?publisher="+s.publisher)
	sees(tb, `(?s)Publisher.*`+s.publisher+`.*owner`)
	checkLayout(tb, phoneWidth)
	tb.screenshot(s.artefacts, "pool-publisher-phone")
}

func (s *poolPageStory) darkPublisher(t *testing.T) {
	tb := s.browser.open(t)
	tb.dark()
	s.visit(tb, s.announce, "")
	tb.do("look a publisher up", chromedp.SendKeys(chromedp.CSS("form[role=search] input"), s.publisher))
	if resp := tb.load("search", chromedp.Click(chromedp.CSS("form[role=search] button"))); resp.Status != http.StatusOK {
		t.Errorf("status %d", resp.Status)
	}
	sees(tb, `(?s)Publisher.*`+s.publisher+`.*owner`)
	if l := checkLayout(tb, 1280); l.Light > 0.1 {
		t.Errorf("the page is light in the dark: luminance %.2f", l.Light)
	}
	tb.screenshot(s.artefacts, "pool-publisher-dark")
	tb.stayedAt(s.announce)
}

// assignerDown is the last: what was shown stays, and the page says since when.
func (s *poolPageStory) assignerDown(t *testing.T) {
	tb := s.browser.open(t)
	s.visit(tb, s.announce, "")
	s.assigner.kill()
	tells(tb, `The assigner has not answered since`)
	sees(tb, s.owner.ID)
	tb.screenshot(s.artefacts, "pool-stale")
}
