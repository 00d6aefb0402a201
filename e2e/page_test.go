package e2e

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/ipfs/go-cid"
)

// The parts of the front page.
const (
	searchBox    = chromedp.CSS("input[name=q]")
	searchButton = chromedp.CSS("form button")
	pageBody     = chromedp.CSS("body")
)

// What is asked of a page that people read on a phone.
const (
	phoneWidth, phoneHeight = 390, 844
	leastText               = 12   // CSS pixels
	leastTap                = 40   // CSS pixels, of what is tapped at each visit
	leastLink               = 24   // CSS pixels, WCAG 2.2, target size
	leastContrast           = 4.5  // WCAG 2, level AA
	leastBoxWidth           = 300. // CSS pixels: a CID is long
)

// longAddrs are addresses that no phone shows in one line.
var longAddrs = []string{
	providerAddr,
	"/dns4/a-provider-with-quite-a-long-name.storage.region-1.example.com/tcp/443/tls/sni/a-provider-with-quite-a-long-name.storage.region-1.example.com/http",
	"/ip6/2001:db8:85a3:1234:5678:8a2e:370:7334/udp/4001/quic-v1/webtransport/certhash/uEiAkH5a4DPGKUuOBjYw0CgwjvcJCJMD2K_1aluKR_tpevQ/certhash/uEiAfbgiymPP2_nX7Dgir8B4QkksjHp2lVuJZz0F79Be9JA",
}

// pageStory is a pool with content, and a browser.
type pageStory struct {
	front       string // URL
	spare       *indexer
	down        bool    // it is
	held, other cid.Cid // found, and provided by nobody
	providers   []string
	browser     *browser
	artefacts   string
}

// startPageStory has two indexers behind a frontend. Both have what one provider
// has, one of them what another has.
func startPageStory(t *testing.T) *pageStory {
	t.Helper()
	dir := workDir(t)
	a, b := startIndexer(t, dir, "a"), startIndexer(t, dir, "b")
	mhs := multihashes("front page", 3)
	s := &pageStory{spare: b, held: raw(mhs[0]), other: raw(multihashes("nobody's", 1)[0]), artefacts: artefacts(t)}
	plain, long := newChain(t, "plain provider"), newChain(t, "provider with long addresses")
	plain.add("context", mhs)
	ad := long.ad("context", long.entries(mhs, 10)[0])
	ad.Addresses, ad.Metadata = longAddrs, bitswapGateway
	long.push(ad)
	for _, ix := range []*indexer{a, b} {
		plain.announce(ix.Ingest)
		untilIndexed(t, ix.Ingest, plain.head)
	}
	long.announce(a.Ingest)
	untilIndexed(t, a.Ingest, long.head)
	s.providers = []string{plain.id.String(), long.id.String()}
	s.front = startFrontend(t, dir, writePool(t, dir, a, b))
	finds(t, s.front, s.held)
	s.browser = startBrowser(t, dir)
	return s
}

// TestFrontPageInABrowser: a person with a real browser types a CID and sees who
// provides it, or that nobody does; with and without scripts, at a desk and on a
// phone, by day and by night. The page asks nobody else for anything, and lets
// nothing in that others wrote.
func TestFrontPageInABrowser(t *testing.T) {
	t.Parallel()
	s := startPageStory(t)
	t.Run("desk", s.desk)
	t.Run("without scripts", s.withoutScripts)
	t.Run("phone", s.phone)
	t.Run("dark", s.dark)
	t.Run("hostile query", s.hostileQuery)
	t.Run("policy in force", s.policyInForce)
	t.Run("an indexer is down", s.indexerDown)
}

func (s *pageStory) desk(t *testing.T) {
	tb := s.browser.open(t)
	s.visit(tb)
	s.seesSize(tb)
	tb.screenshot(s.artefacts, "front-desk")
	s.search(tb, s.held.String(), http.StatusOK)
	s.seesProviders(tb)
	s.seesSize(tb)
	checkLayout(tb, 1280)
	tb.screenshot(s.artefacts, "found-desk")

	s.search(tb, s.other.String(), http.StatusNotFound)
	sees(tb, `Nobody provides it, in [0-9.]+(µs|ms|s)\.`)
	s.search(tb, s.held.String()+"x", http.StatusBadRequest)
	sees(tb, `neither a CID nor a multihash`)

	// The Enter key is enough, and a multihash is as good as a CID.
	s.searchBy(tb, enter, s.held.Hash().B58String(), http.StatusOK)
	s.seesProviders(tb)
	tb.stayedAt(s.front)
}

func (s *pageStory) withoutScripts(t *testing.T) {
	tb := s.browser.open(t)
	tb.do("no scripts", chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}), chromedp.Navigate(`data:text/html,<title>off</title><script>document.title="on"</script>`))
	if title := read(tb, "title", chromedp.Title()); title != "off" {
		t.Fatalf("scripts are %s", title)
	}
	s.visit(tb)
	s.search(tb, s.held.String(), http.StatusOK)
	s.seesProviders(tb)
	s.seesSize(tb)
	s.search(tb, s.other.String(), http.StatusNotFound)
	sees(tb, `Nobody provides it`)
	tb.stayedAt(s.front)
}

func (s *pageStory) phone(t *testing.T) {
	tb := s.browser.open(t)
	tb.do("be a phone", chromedp.EmulateViewport(phoneWidth, phoneHeight,
		chromedp.EmulateMobile, chromedp.EmulateTouch, chromedp.EmulatePortrait, chromedp.EmulateScale(2)))
	s.visit(tb)
	checkLayout(tb, phoneWidth)
	tb.screenshot(s.artefacts, "front-phone")
	s.searchBy(tb, tap, s.held.String(), http.StatusOK)
	s.seesProviders(tb)
	s.seesSize(tb)
	// The heads of the columns are not shown; each part says what it is.
	sees(tb, `(?s)provider.*`+s.providers[0]+`.*addresses.*`+regexp.QuoteMeta(providerAddr)+`.*protocols.*transport-bitswap`)
	checkLayout(tb, phoneWidth)
	tb.screenshot(s.artefacts, "found-phone")
	s.search(tb, strings.Repeat("nonsense", 100), http.StatusBadRequest)
	sees(tb, `neither a CID nor a multihash`)
	checkLayout(tb, phoneWidth)
	tb.stayedAt(s.front)
}

func (s *pageStory) dark(t *testing.T) {
	tb := s.browser.open(t)
	tb.dark()
	s.visit(tb)
	s.search(tb, s.held.String(), http.StatusOK)
	s.seesProviders(tb)
	if l := checkLayout(tb, 1280); l.Light > 0.1 {
		t.Errorf("the page is light in the dark: luminance %.2f", l.Light)
	}
	tb.screenshot(s.artefacts, "found-dark")
	tb.stayedAt(s.front)
}

func (s *pageStory) hostileQuery(t *testing.T) {
	const query = `"><script>document.title="taken"</script><img src="http://127.0.0.1:9/x" onerror="document.title='taken'"><style>body{display:none}</style>`
	tb := s.browser.open(t)
	s.visit(tb)
	title := read(tb, "title", chromedp.Title())
	s.search(tb, query, http.StatusBadRequest)
	sees(tb, `neither a CID nor a multihash`)
	if got := read(tb, "title", chromedp.Title()); got != title {
		t.Errorf("title %q, was %q", got, title)
	}
	if got := read(tb, "the box", chromedp.Value(searchBox)); got != query {
		t.Errorf("the box has %q, want what was typed", got)
	}
	tb.stayedAt(s.front)
}

// policyInForce puts into the page what should never come to be in it: the
// browser, told by the page, takes none of it.
func (s *pageStory) policyInForce(t *testing.T) {
	tb := s.browser.open(t)
	s.visit(tb)
	blocked := read(tb, "put scripts and pictures into the page", chromedp.Evaluate[[]string](`new Promise(done => {
		const blocked = [];
		document.addEventListener("securitypolicyviolation", e => {
			blocked.push(e.effectiveDirective);
			if (blocked.length == 3) done(blocked.sort());
		});
		const put = (name, set) => document.body.append(Object.assign(document.createElement(name), set));
		put("script", {textContent: "document.title = 'taken'"});
		put("script", {src: "/health"});
		put("img", {src: "/health"});
	})`, chromedp.EvalAwaitPromise))
	if got := strings.Join(blocked, " "); got != "img-src script-src-elem script-src-elem" {
		t.Errorf("blocked: %s", got)
	}
	if title := read(tb, "title", chromedp.Title()); title == "taken" {
		t.Error("a script ran")
	}
}

func (s *pageStory) indexerDown(t *testing.T) {
	s.spare.kill()
	s.down = true
	tb := s.browser.open(t)
	tb.do("be a phone", chromedp.EmulateViewport(phoneWidth, phoneHeight, chromedp.EmulateMobile, chromedp.EmulatePortrait))
	s.visit(tb)
	s.search(tb, s.other.String(), http.StatusServiceUnavailable)
	sees(tb, `That is not decided: no answer from .*Try again`)
	s.search(tb, s.held.String(), http.StatusOK)
	s.seesProviders(tb)
	sees(tb, `This may not be all: no answer from `)
	checkLayout(tb, phoneWidth)
	tb.screenshot(s.artefacts, "partial-phone")
	tb.stayedAt(s.front)
}

// visit loads the page with nothing searched.
func (s *pageStory) visit(tb *tab) {
	tb.t.Helper()
	resp := tb.load("open the page", chromedp.Navigate(s.front+"/"))
	if resp.Status != http.StatusOK || resp.MimeType != "text/html" {
		tb.t.Fatalf("status %d, type %s", resp.Status, resp.MimeType)
	}
	tb.do("the box is there", chromedp.WaitVisible(searchBox), chromedp.WaitVisible(searchButton))
}

// manner is how a person searches: types, in place of what is in the box, and sends.
type manner func(query string) (typing, sending chromedp.Action[chromedp.Void])

func click(query string) (typing, sending chromedp.Action[chromedp.Void]) {
	return chromedp.Steps(chromedp.Clear(searchBox), chromedp.SendKeys(searchBox, query)), chromedp.Click(searchButton)
}

func tap(query string) (typing, sending chromedp.Action[chromedp.Void]) {
	return chromedp.Steps(chromedp.Clear(searchBox), chromedp.Tap(searchBox), chromedp.KeyEvent(query)), chromedp.Tap(searchButton)
}

func enter(query string) (typing, sending chromedp.Action[chromedp.Void]) {
	typing, _ = click(query)
	return typing, chromedp.SendKeys(searchBox, "\n")
}

func (s *pageStory) search(tb *tab, query string, status int64) {
	tb.t.Helper()
	s.searchBy(tb, click, query, status)
}

// searchBy searches until the status is this. A frontend waits for no indexer that is
// slow, as those of a busy machine may be: who is told so tries again, as the page says.
func (s *pageStory) searchBy(tb *tab, by manner, query string, status int64) {
	tb.t.Helper()
	eventually(tb.t, "an answer to "+query, func() error {
		typing, sending := by(query)
		tb.do("type "+query, typing)
		resp := tb.load("search for "+query, sending)
		if got := read(tb, "the box", chromedp.Value(searchBox)); got != query || !strings.HasPrefix(resp.URL, s.front+"/?q=") {
			tb.t.Fatalf("at %s the box has %q, want %q", resp.URL, got, query)
		}
		tooBusy := resp.Status == http.StatusServiceUnavailable || strings.Contains(read(tb, "text", chromedp.Text(pageBody)), "This may not be all")
		switch {
		case resp.Status == status && (s.down || !tooBusy):
			return nil
		case tooBusy:
			return fmt.Errorf("status %d, in part", resp.Status)
		}
		tb.t.Fatalf("%s: status %d, want %d", resp.URL, resp.Status, status)
		return nil
	})
}

// seesProviders: both providers, with addresses and protocols, and the time.
func (s *pageStory) seesProviders(tb *tab) {
	tb.t.Helper()
	sees(tb, `2 results from 2 providers, in [0-9.]+(µs|ms|s)\.`)
	for _, want := range append(append([]string{"transport-bitswap", "transport-ipfs-gateway-http"}, s.providers...), longAddrs...) {
		sees(tb, regexp.QuoteMeta(want))
	}
}

// seesSize: how much the pool has, and how fresh it is. What is not known in time is
// not shown, for a while.
func (s *pageStory) seesSize(tb *tab) {
	tb.t.Helper()
	size := regexp.MustCompile(`The index has about [0-9,]+ entries of 2 providers; the newest advertisement came (now|[0-9]+ (second|minute)s? ago)`)
	eventually(tb.t, "the page tells of the pool", func() error {
		text := read(tb, "text", chromedp.Text(pageBody))
		if size.MatchString(text) {
			return nil
		}
		tb.load("look again", chromedp.Reload())
		return fmt.Errorf("text: %s", text)
	})
}

// sees fails the test unless a text is on the page, for eyes.
func sees(tb *tab, pattern string) {
	tb.t.Helper()
	text := read(tb, "text", chromedp.Text(pageBody))
	if !regexp.MustCompile(pattern).MatchString(text) {
		tb.t.Errorf("nobody sees %s in:\n%s", pattern, text)
	}
}

// layout is what a page looks like.
type layout struct {
	Window, Page     float64 // widths, CSS pixels
	Text             float64 // the smallest, CSS pixels
	Contrast         float64 // the least
	Faint            string  // what has it
	Light            float64 // luminance of the background
	Box, Button      struct{ W, H float64 }
	Link             float64 // the height of the lowest
	Outside, Smaller []string
}

// measureLayout looks at each piece of text that is shown.
const measureLayout = `(() => {
	const rgb = css => { const c = document.createElement("canvas").getContext("2d", {willReadFrequently: true}); c.fillStyle = css; c.fillRect(0, 0, 1, 1); return [...c.getImageData(0, 0, 1, 1).data]; };
	const luminance = css => { const [r, g, b] = rgb(css).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
	const canvas = (() => { const e = document.createElement("div"); e.style.backgroundColor = "Canvas"; document.body.append(e); const css = getComputedStyle(e).backgroundColor; e.remove(); return css; })();
	const ground = e => { for (; e; e = e.parentElement) { const css = getComputedStyle(e).backgroundColor; if (rgb(css)[3] == 255) return css; } return canvas; };
	const size = e => { const r = e.getBoundingClientRect(); return {W: r.width, H: r.height}; };
	const out = {Window: innerWidth, Page: document.documentElement.scrollWidth, Text: 1e9, Contrast: 1e9, Faint: "", Light: luminance(canvas),
		Box: size(document.querySelector("form[role=search] input")), Button: size(document.querySelector("form button")), Link: 1e9, Outside: [], Smaller: []};
	const look = (e, text) => {
		const r = e.getBoundingClientRect(), style = getComputedStyle(e);
		if (!r.width || style.visibility != "visible") return;
		out.Text = Math.min(out.Text, parseFloat(style.fontSize));
		if (r.left < 0 || r.right > innerWidth) out.Outside.push(text);
		const [a, b] = [luminance(style.color), luminance(ground(e))].sort((x, y) => y - x), contrast = (a + .05) / (b + .05);
		if (contrast < out.Contrast) { out.Contrast = contrast; out.Faint = text; }
	};
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	for (let n; n = walk.nextNode();) if (n.data.trim()) look(n.parentElement, n.data.trim());
	look(document.querySelector("form[role=search] input"), "the box");
	for (const a of document.links) out.Link = Math.min(out.Link, a.getBoundingClientRect().height);
	return out;
})()`

// checkLayout: the page is as wide as the window, and can be read and tapped.
func checkLayout(tb *tab, width float64) layout {
	tb.t.Helper()
	l := read(tb, "measure the page", chromedp.Evaluate[layout](measureLayout))
	if l.Window != width || l.Page > l.Window || len(l.Outside) > 0 {
		tb.t.Errorf("the page is %v wide, the window %v, want %v; outside of it: %q", l.Page, l.Window, width, l.Outside)
	}
	if l.Text < leastText || l.Contrast < leastContrast {
		tb.t.Errorf("text of %v pixels; contrast %.1f of %q", l.Text, l.Contrast, l.Faint)
	}
	if l.Box.H < leastTap || l.Box.W < leastBoxWidth || l.Button.H < leastTap || l.Button.W < leastTap || l.Link < leastLink {
		tb.t.Errorf("too small to tap: box %v, button %v, links %v pixels", l.Box, l.Button, l.Link)
	}
	return l
}
