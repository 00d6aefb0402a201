package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// promtool is the path of Prometheus's rule engine. A test without it fails.
func promtool(t testing.TB) string {
	t.Helper()
	found, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("no promtool in PATH: `make prometheus` as root installs Debian's package prometheus, which has it")
	}
	return found
}

// alertsFile is what operators give Prometheus.
func alertsFile(t testing.TB) string {
	t.Helper()
	file, err := filepath.Abs("../doc/operations/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// alertRule is a rule of the file.
type alertRule struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

// code is the health code it is about.
func (r alertRule) code() string { return r.Annotations["code"] }

// ofCondition says that it fires on the condition itself.
func (r alertRule) ofCondition() bool { return strings.HasPrefix(r.Expr, conditionMetric+"{") }

const conditionMetric = "signpost_health_condition"

func alertRules(t testing.TB) map[string]alertRule {
	t.Helper()
	b, err := os.ReadFile(alertsFile(t))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []struct{ Rules []alertRule } }
	if err := yaml.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	rules := make(map[string]alertRule)
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			rules[r.Alert] = r
		}
	}
	return rules
}

// scrapes are values by series, as Prometheus would have them of several daemons.
type scrapes map[string]float64

// scrape reads the metrics of daemons, by the names that are their instances. Of
// one that does not answer only that is known.
func scrape(t testing.TB, daemons map[string]string) scrapes {
	t.Helper()
	s := make(scrapes)
	for name, base := range daemons {
		labels := fmt.Sprintf("instance=%q,job=%q", name, "signpost")
		up := "up{" + labels + "}"
		s[up] = 0
		a, err := get(base+"/metrics/", "")
		if err != nil {
			continue
		}
		s[up] = 1
		for line := range strings.Lines(string(a.body)) {
			if !strings.HasPrefix(line, "signpost_") {
				continue
			}
			at := strings.LastIndexByte(line, ' ')
			series, text := line[:at], strings.TrimSpace(line[at+1:])
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatalf("metrics of %s: %q: %v", name, line, err)
			}
			if metric, own, found := strings.Cut(series, "{"); found {
				series = metric + "{" + labels + "," + own
			} else {
				series += "{" + labels + "}"
			}
			s[series] = v
		}
	}
	return s
}

// How simulated time goes: everything is well until the fault, and five minutes
// after it the alert has to be there.
const (
	scrapeEvery  = 15 * time.Second
	faultAfter   = 10 * time.Minute
	firesWithin  = 5 * time.Minute
	samplesWell  = int(faultAfter / scrapeEvery)
	samplesAfter = int(firesWithin / scrapeEvery)
)

// fault is what daemons showed before something was done to them and after, and
// how much later that was.
type fault struct {
	before, after scrapes
	elapsed       time.Duration
}

// values are those of a series, in promtool's notation.
func (f fault) values(series string) string {
	shown := int((f.elapsed + scrapeEvery - 1) / scrapeEvery) // samples until it is seen
	before, was := f.before[series]
	after, is := f.after[series]
	var parts []string
	repeat := func(v float64, n int) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s+0x%d", strconv.FormatFloat(v, 'f', -1, 64), n-1))
		}
	}
	missing := func(n int) {
		if n > 0 {
			parts = append(parts, strings.TrimSpace(strings.Repeat("_ ", n)))
		}
	}
	well := samplesWell + shown + 1
	if was {
		repeat(before, well)
	} else {
		missing(well)
	}
	if is {
		repeat(after, samplesAfter)
	} else {
		parts = append(parts, "stale")
	}
	return strings.Join(parts, " ")
}

// firing is an alert with the labels it has to have.
type firing struct {
	Labels      map[string]string `json:"exp_labels"`
	Annotations map[string]string `json:"exp_annotations"`
}

// fires has promtool evaluate the rules over a fault: nothing fires before it, and
// within five minutes after it each alert named does, of these daemons and of no
// other.
func (f fault) fires(t *testing.T, dir string, want map[string][]string) {
	t.Helper()
	if f.elapsed > firesWithin-time.Minute {
		t.Fatalf("the fault was seen after %s only", f.elapsed)
	}
	type input struct {
		Series string `json:"series"`
		Values string `json:"values"`
	}
	type check struct {
		At     string   `json:"eval_time"`
		Alert  string   `json:"alertname"`
		Alerts []firing `json:"exp_alerts"`
	}
	var series []input
	names := maps.Clone(f.before)
	maps.Copy(names, f.after)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if v := names[name]; v-v == 0 { // neither infinite nor no number
			series = append(series, input{name, f.values(name)})
		}
	}
	var checks []check
	rules := alertRules(t)
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		checks = append(checks, check{At: faultAfter.String(), Alert: name, Alerts: []firing{}})
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		rule, ok := rules[name]
		if !ok {
			t.Fatalf("there is no alert %s", name)
		}
		c := check{At: (faultAfter + firesWithin).String(), Alert: name, Alerts: []firing{}}
		for _, instance := range want[name] {
			labels := maps.Clone(rule.Labels)
			labels["instance"], labels["job"] = instance, "signpost"
			if rule.ofCondition() {
				labels["code"] = rule.code()
			}
			c.Alerts = append(c.Alerts, firing{labels, rule.Annotations})
		}
		checks = append(checks, c)
	}
	// JSON is YAML.
	b, err := json.MarshalIndent(map[string]any{
		"rule_files":          []string{alertsFile(t)},
		"evaluation_interval": "30s",
		"tests":               []any{map[string]any{"interval": scrapeEvery.String(), "input_series": series, "alert_rule_test": checks}},
	}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-")+".test.yml")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool(t), "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool test rules %s: %v\n%s", file, err, bytes.TrimSpace(out[:min(len(out), 8<<10)]))
	}
}
