package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api/admin"
)

func TestAlertRulesAreRules(t *testing.T) {
	if out, err := exec.Command(promtool(t), "check", "rules", "--lint=all", "--lint-fatal", alertsFile(t)).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
}

// observed are daemons with the URLs of their metrics, by name.
type observed struct {
	t       *testing.T
	dir     string
	daemons map[string]string
	healthy scrapes
}

// conditions are the health codes present at a daemon, with their severities.
func (o *observed) conditions(name string) (map[string]string, error) {
	a, err := get(o.daemons[name]+"/signpost/v1/health", "")
	if err != nil {
		return nil, err
	}
	var r struct {
		Conditions []struct{ Code, Severity string }
	}
	if err := json.Unmarshal(a.body, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", a.body, err)
	}
	codes := make(map[string]string)
	for _, c := range r.Conditions {
		codes[c.Code] = c.Severity
	}
	return codes, nil
}

// untilHealthy waits until nobody complains, and remembers what that looks like.
func (o *observed) untilHealthy() {
	o.t.Helper()
	for name := range o.daemons {
		eventually(o.t, name+" is healthy", func() error {
			codes, err := o.conditions(name)
			for code, severity := range codes {
				if severity != "info" {
					return fmt.Errorf("%s: %s", severity, code)
				}
			}
			return err
		})
		if r := command(o.t, "health", o.daemons[name]); r.code != 0 {
			o.t.Errorf("signpost health of %s, where nothing is wrong: status %d\n%s%s", name, r.code, r.stdout, r.stderr)
		}
	}
	o.healthy = scrape(o.t, o.daemons)
}

// exitOf is the status of signpost health by severity.
var exitOf = map[string]int{"info": 0, "warning": 1, "critical": 2}

// after injects a fault, waits until the daemons named say so with these codes,
// and returns what they all show then.
func (o *observed) after(inject func(), codes map[string]string) fault {
	o.t.Helper()
	began := time.Now()
	inject()
	for name, code := range codes {
		eventually(o.t, fmt.Sprintf("%s says %s", name, code), func() error {
			now, err := o.conditions(name)
			if err == nil && now[code] == "" {
				err = fmt.Errorf("it says %v", now)
			}
			return err
		})
		worst := 0
		now, _ := o.conditions(name)
		for _, severity := range now {
			worst = max(worst, exitOf[severity])
		}
		if r := command(o.t, "health", "--admin", o.daemons[name]); r.code != worst || !strings.Contains(r.stdout, code) {
			o.t.Errorf("signpost health of %s: status %d, want %d, and to read %s\n%s%s", name, r.code, worst, code, r.stdout, r.stderr)
		}
	}
	return fault{o.healthy, scrape(o.t, o.daemons), time.Since(began)}
}

// TestAlertsWhenDaemonsDie: the indexers of a pool, and then the assigner, die one
// after another. The frontend and the assigner say so, and the alerts fire.
func TestAlertsWhenDaemonsDie(t *testing.T) {
	t.Parallel()
	p := startPool(t, workDir(t), 3, "--listen-metrics", anyPort)
	fe := spawn(t, p.dir, "observed", "frontend", "--listen", anyPort, "--pool", p.file, "--assigner", p.announce, "--listen-metrics", anyPort).ready()
	o := &observed{t: t, dir: p.dir, daemons: map[string]string{"assigner": p.assigner.ready().Metrics, "frontend": fe.Metrics}}
	for _, ix := range p.indexers {
		o.daemons[ix.name] = ix.Admin
	}
	c := newChain(t, "lives on one indexer")
	mhs := multihashes("lives on one indexer", 10)
	c.add("all", mhs)
	c.announce(p.announce)
	first := p.holder(t, c.id)
	untilDone(t, first.Ingest, c)
	d := newChain(t, "lives on another")
	stay := multihashes("lives on another", 10)
	d.add("all", stay)
	d.announce(p.announce)
	if second := p.holder(t, d.id); second == first {
		t.Fatal("one indexer has both publishers, and two have none")
	} else {
		untilDone(t, second.Ingest, d)
	}
	make(index).with(newHolding(c.id, []byte("all"), bitswap), mhs).
		with(newHolding(d.id, []byte("all"), bitswap), stay).mustFind(t, fe.HTTP, "while all is well")
	o.untilHealthy()

	f := o.after(func() {
		first.kill()
		eventually(t, "lookups are 503", func() error {
			a, err := get(fe.HTTP+"/cid/"+raw(mhs[0]).String(), "")
			if err == nil && a.status != http.StatusServiceUnavailable {
				err = fmt.Errorf("status %d", a.status)
			}
			return err
		})
		knownIsPartial(t, fe.HTTP, stay[:1], first.Find)
	}, map[string]string{"frontend": "backend-down", "assigner": "pool-node-silent"})
	f.fires(t, p.dir, map[string][]string{
		"SignpostBackendDown": {"frontend"}, "SignpostPoolNodeSilent": {"assigner"}, "SignpostLookupsPartial": {"frontend"},
		"SignpostLookupsUndecided": {"frontend"}, "SignpostDown": {first.name}, "SignpostNoQuorum": nil, "SignpostLookupsFail": nil,
	})

	others := slices.DeleteFunc(slices.Clone(p.indexers), func(ix *indexer) bool { return ix == first })
	f = o.after(others[0].kill, map[string]string{"frontend": "no-quorum"})
	f.fires(t, p.dir, map[string][]string{"SignpostNoQuorum": {"frontend"}})

	f = o.after(func() {
		others[1].kill()
		stranger := newChain(t, "announced in vain")
		stranger.add("all", multihashes("announced in vain", 1))
		if err := announce.NewSender(client).Send(t.Context(), p.announce, stranger.announced()); err == nil {
			t.Error("an announce is taken that no indexer has taken")
		}
	}, map[string]string{"assigner": "announces-dropped"})
	f.fires(t, p.dir, map[string][]string{"SignpostAnnouncesDropped": {"assigner"}})

	f = o.after(p.assigner.kill, map[string]string{"frontend": "assigner-silent"})
	f.fires(t, p.dir, map[string][]string{"SignpostAssignerSilent": {"frontend"}})
}

// TestAlertsWhenAPoolHasNoRoom: no node of a pool takes content any more, and a
// drain cannot end.
func TestAlertsWhenAPoolHasNoRoom(t *testing.T) {
	t.Parallel()
	p := startPool(t, workDir(t), 2, "--listen-metrics", anyPort)
	o := &observed{t: t, dir: p.dir, daemons: map[string]string{"assigner": p.assigner.ready().Metrics}}
	for _, ix := range p.indexers {
		o.daemons[ix.name] = ix.Admin
	}
	c := newChain(t, "has a node")
	c.add("all", multihashes("has a node", 10))
	c.announce(p.announce)
	owner := p.holder(t, c.id)
	other := p.indexers[1-slices.Index(p.indexers, owner)]
	untilDone(t, owner.Ingest, c)
	o.untilHealthy()

	f := o.after(func() {
		commandOK(t, "freeze", "--admin", other.Admin)
		commandOK(t, "pool", "drain", owner.ID, "--admin", p.admin)
	}, map[string]string{"assigner": "drain-stuck", other.name: "frozen"})
	f.fires(t, p.dir, map[string][]string{"SignpostDrainStuck": {"assigner"}, "SignpostFrozen": {other.name}})

	f = o.after(func() {
		commandOK(t, "freeze", "--admin", owner.Admin)
		stranger := newChain(t, "has no node")
		stranger.add("all", multihashes("has no node", 1))
		_ = announce.NewSender(client).Send(t.Context(), p.announce, stranger.announced()) // nobody takes it
	}, map[string]string{"assigner": "assigner-no-room"})
	f.fires(t, p.dir, map[string][]string{"SignpostAssignerNoRoom": {"assigner"}, "SignpostFrozen": names(owner, other)})
}

// TestAlertsAboutPublishersAndTheDenylist: publishers go away, one has a gap in
// its chain, and the denylist is spoilt.
func TestAlertsAboutPublishersAndTheDenylist(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	list := filepath.Join(dir, "deny.txt")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# nothing is denied\n")
	ix := startIndexer(t, dir, "indexer", "--denylist", list)
	o := &observed{t: t, dir: dir, daemons: map[string]string{"indexer": ix.Admin}}
	gone := newLeaver(t, "goes away")
	gone.add("all", multihashes("goes away", 10))
	gone.announce(ix.Ingest)
	untilDone(t, ix.Ingest, gone.chain)
	o.untilHealthy()

	f := o.after(func() {
		gone.leave()
		if err := ix.api().Sync(t.Context(), gone.id, admin.SyncOptions{}); err != nil {
			t.Error(err)
		}
	}, map[string]string{"indexer": "publishers-unreachable"})
	f.fires(t, dir, map[string][]string{"SignpostPublishersUnreachable": {"indexer"}, "SignpostPublisherGap": nil})

	broken := newChain(t, "has a gap")
	f = o.after(func() {
		missing, err := cid.NewPrefixV1(cid.DagJSON, multihash.SHA2_256).Sum([]byte("an ad that was lost"))
		if err != nil {
			t.Fatal(err)
		}
		broken.head = missing
		broken.add("above", multihashes("above the gap", 10))
		broken.announce(ix.Ingest)
	}, map[string]string{"indexer": "publisher-gap"})
	f.fires(t, dir, map[string][]string{"SignpostPublisherGap": {"indexer"}, "SignpostDenylistStale": nil})
	if a := mustGet(t, ix.Admin+"/metrics", ""); !strings.Contains(string(a.body), "signpost_indexer_publisher_lag_seconds{publisher=\""+broken.id.String()) {
		t.Errorf("the lag of a publisher with a gap is not shown")
	}

	f = o.after(func() { write("multihash nonsense\n") }, map[string]string{"indexer": "denylist-stale"})
	f.fires(t, dir, map[string][]string{"SignpostDenylistStale": {"indexer"}})
}

// TestEveryAlertHasAFault: for each rule some test injects the real fault into real
// daemons, and has the alert fire on what they show then.
func TestEveryAlertHasAFault(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests: %v", err)
	}
	fired := make(map[string]bool)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range wantedAlert.FindAllSubmatch(b, -1) {
			fired[string(m[1])] = true
		}
	}
	for name := range alertRules(t) {
		if !fired[name] {
			t.Errorf("no test has alert %s fire on a real fault", name)
		}
	}
}

// wantedAlert is an alert with who has to have it, as tests give both to fires.
var wantedAlert = regexp.MustCompile(`"(Signpost\w+)": *(?:\{"|\{\w+\.name|names\()`)

// TestEveryAlertFiresOnASeriesThatDaemonsHave: of each health code some daemon has
// a series, and once that is 1, its alert fires. So an alert on a code that no one
// reports any more is found, and so is one that is about another.
func TestEveryAlertFiresOnASeriesThatDaemonsHave(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	list := filepath.Join(dir, "deny.txt")
	if err := os.WriteFile(list, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ix := startIndexer(t, dir, "indexer", "--denylist", list, "--listen-p2p", anyPort, "--mirror", filepath.Join(dir, "mirror"))
	p := &pool{dir: dir, file: writePool(t, dir, ix)}
	p.startAssigner(t, anyPort, "--listen-metrics", anyPort, "--journal", filepath.Join(dir, "journal"), "--standby-for", "http://127.0.0.1:1")
	fe := spawn(t, dir, "frontend", "frontend", "--listen", anyPort, "--pool", p.file, "--assigner", p.announce, "--denylist", list,
		"--index-secret", filepath.Join(ix.dir, "index-secret"), "--listen-metrics", anyPort).ready()
	o := &observed{t: t, dir: dir, daemons: map[string]string{"indexer": ix.Admin, "assigner": p.assigner.ready().Metrics, "frontend": fe.Metrics}}
	o.untilHealthy()

	f, want := fault{before: o.healthy, after: make(scrapes)}, make(map[string][]string)
	codes := make(map[string][]string) // daemons that look at each
	for series, v := range o.healthy {
		if strings.HasPrefix(series, conditionMetric+"{") {
			v = 1
			code, instance := label(series, "code"), label(series, "instance")
			codes[code] = append(codes[code], instance)
		}
		f.after[series] = v
	}
	for name, rule := range alertRules(t) {
		if !rule.ofCondition() {
			continue
		}
		if len(codes[rule.code()]) == 0 {
			t.Errorf("alert %s is on code %s, at which no daemon looks", name, rule.code())
		}
		want[name] = codes[rule.code()]
	}
	f.fires(t, dir, want)

	var defined []struct{ Code string }
	if err := json.Unmarshal([]byte(commandOK(t, "health", "--json").stdout), &defined); err != nil {
		t.Fatal(err)
	}
	for _, d := range defined {
		if len(codes[d.Code]) == 0 {
			t.Errorf("no daemon looks at %s", d.Code)
		}
		delete(codes, d.Code)
	}
	if len(codes) > 0 || len(defined) == 0 {
		t.Errorf("signpost health lists %d codes and not %v", len(defined), codes)
	}
}

// label is the value of a label of a series.
func label(series, name string) string {
	_, rest, _ := strings.Cut(series, name+`="`)
	v, _, _ := strings.Cut(rest, `"`)
	return v
}

func names(of ...*indexer) (all []string) {
	for _, ix := range of {
		all = append(all, ix.name)
	}
	return all
}
