package doc

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/signpost-index/signpost/api/health"
)

// alert is a rule of operations/alerts.yml.
type alert struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func readAlerts(t *testing.T) []alert {
	t.Helper()
	b, err := os.ReadFile("operations/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []struct{ Rules []alert } }
	if err := yaml.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	var all []alert
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// TestEveryConditionThatWantsALookHasAnAlert compares alerts.yml with the health
// codes: severity, meaning, remedy and paragraph are those of the code.
func TestEveryConditionThatWantsALookHasAnAlert(t *testing.T) {
	ofCode := make(map[health.Code]alert)
	for _, a := range readAlerts(t) {
		code, doc := health.Code(a.Annotations["code"]), a.Annotations["doc"]
		if a.Annotations["summary"] == "" || a.Annotations["remedy"] == "" || a.For == "" {
			t.Errorf("%s: no summary, remedy or time", a.Alert)
		}
		if code == "" {
			if a.Alert != "SignpostDown" { // which a daemon cannot say of itself
				t.Errorf("%s names no health code", a.Alert)
			}
			continue
		}
		if _, ok := health.Of(code); !ok || doc != "doc/operations.md#"+string(code) {
			t.Errorf("%s: code %q, doc %q: want a health code and its paragraph", a.Alert, code, doc)
		}
		if a.Expr == fmt.Sprintf(`signpost_health_condition{code="%s"} == 1`, code) {
			ofCode[code] = a
		}
	}
	for _, d := range health.Definitions() {
		a, ok := ofCode[d.Code]
		if ok != (d.Severity != health.Info) {
			t.Errorf("%s, which is %s, has an alert: %v", d.Code, d.Severity, ok)
		}
		if ok && (a.Labels["severity"] != string(d.Severity) || a.Annotations["summary"] != d.Meaning || a.Annotations["remedy"] != d.Remedy) {
			t.Errorf("%s: severity, summary or remedy of %s are not those of the code: %+v", a.Alert, d.Code, a)
		}
	}
}

var (
	usedMetric = regexp.MustCompile(`\bsignpost_[a-z0-9_]+`)
	// ofHistogram is what Prometheus adds to the name of a histogram.
	ofHistogram = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// checkMetrics wants each metric an expression uses to be made by the code.
func checkMetrics(t *testing.T, made []string, where, expr string) {
	t.Helper()
	for _, m := range usedMetric.FindAllString(expr, -1) {
		if !slices.Contains(made, m) && !slices.Contains(made, ofHistogram.ReplaceAllString(m, "")) {
			t.Errorf("%s uses %s, which nothing makes", where, m)
		}
	}
}

func TestAlertsAndDashboardUseMetricsThatExist(t *testing.T) {
	made := metricNames(t)
	for _, a := range readAlerts(t) {
		checkMetrics(t, made, a.Alert, a.Expr)
	}
	b, err := os.ReadFile("operations/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		UID, Title string
		Panels     []struct {
			Title, Type string
			Targets     []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Query string }
		}
	}
	if err := json.Unmarshal(b, &board); err != nil {
		t.Fatal(err)
	}
	if board.UID == "" || board.Title == "" || len(board.Panels) < 20 {
		t.Fatalf("this is no dashboard: %q with %d panels", board.Title, len(board.Panels))
	}
	for _, p := range board.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, q := range p.Targets {
			if !strings.Contains(q.Expr, "$instance") {
				t.Errorf("panel %q is not of the daemons that were chosen: %s", p.Title, q.Expr)
			}
			checkMetrics(t, made, "panel "+p.Title, q.Expr)
		}
	}
	for _, v := range board.Templating.List {
		checkMetrics(t, made, "variable "+v.Name, v.Query)
	}
}
