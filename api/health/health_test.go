package health

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// board is a Board whose clock and findings a test sets.
func board(t *testing.T, codes ...Code) (b *Board, now *time.Time, found map[Code]string) {
	t.Helper()
	at := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	found = make(map[Code]string)
	var checks []Check
	for _, c := range codes {
		checks = append(checks, Check{c, func(time.Time) string { return found[c] }})
	}
	b = New(Config{Checks: checks})
	b.now = func() time.Time { return at }
	return b, &at, found
}

func TestEveryCodeSaysWhatItIsAndWhatToDo(t *testing.T) {
	seen := make(map[Code]bool)
	for _, d := range Definitions() {
		switch {
		case !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(string(d.Code)), seen[d.Code]:
			t.Errorf("code %q: want lower-case words with hyphens, once", d.Code)
		case d.Severity.rank() == 0:
			t.Errorf("%s: severity %q", d.Code, d.Severity)
		case d.Meaning == "", d.Remedy == "", d.Roles == "":
			t.Errorf("%s: something is not said: %+v", d.Code, d)
		case strings.ContainsAny(d.Meaning+d.Remedy, "\n") || strings.HasSuffix(d.Meaning, ".") || strings.HasSuffix(d.Remedy, "."):
			t.Errorf("%s: want one line without a full stop", d.Code)
		}
		seen[d.Code] = true
	}
}

func TestTheWorstConditionComesFirst(t *testing.T) {
	b, _, found := board(t, GossipAlone, Frozen, StoreFailed, DiskFilling)
	found[GossipAlone], found[Frozen], found[StoreFailed], found[DiskFilling] = "a", "b", "c", "d"
	r := b.Report()
	var got []Code
	for _, c := range r.Conditions {
		got = append(got, c.Code)
	}
	if diff := cmp.Diff([]Code{StoreFailed, DiskFilling, Frozen, GossipAlone}, got); diff != "" || r.Severity != Critical {
		t.Errorf("severity %s, conditions (-want +got):\n%s", r.Severity, diff)
	}
}

func TestAConditionKeepsWhenItBegan(t *testing.T) {
	b, now, found := board(t, Frozen)
	if r := b.Report(); r.Severity != "" || len(r.Conditions) != 0 {
		t.Fatalf("nothing is wrong: %+v", r)
	}
	began := now.Add(time.Minute)
	*now, found[Frozen] = began, "disk is full"
	b.Report()
	*now, found[Frozen] = now.Add(time.Hour), "disk is fuller"
	if c := b.Report().Conditions[0]; !c.Since.Equal(began) || c.Detail != "disk is fuller" {
		t.Errorf("since %s, detail %q, want %s and what is so now", c.Since, c.Detail, began)
	}
	*now, found[Frozen] = now.Add(time.Minute), ""
	if r := b.Report(); len(r.Conditions) != 0 {
		t.Errorf("it is over: %+v", r)
	}
}

func TestTheMetricHasASeriesForEachCodeThatIsChecked(t *testing.T) {
	b, _, found := board(t, Frozen, NoQuorum)
	found[NoQuorum] = "2 of 2"
	want := `
# HELP signpost_health_condition 1 while a condition is present, by its code.
# TYPE signpost_health_condition gauge
signpost_health_condition{code="frozen",severity="warning"} 0
signpost_health_condition{code="no-quorum",severity="critical"} 1
`
	if err := testutil.CollectAndCompare(b, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

func TestAReportIsReadAsItWasServed(t *testing.T) {
	b, _, found := board(t, Frozen)
	found[Frozen] = "since noon: an operator asked for it"
	srv := httptest.NewServer(b.Beside(http.NotFoundHandler()))
	defer srv.Close()
	got, err := Ask(context.Background(), srv.Client(), srv.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.Report(), got); diff != "" {
		t.Errorf("(-served +read):\n%s", diff)
	}
}

func TestGrowthForgetsWhatIsLongAgo(t *testing.T) {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "c", Help: "c"})
	c.Add(100)
	g := Growth{Within: 10 * time.Minute, Counters: []prometheus.Collector{c}}
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	want := func(after time.Duration, n float64) {
		t.Helper()
		if got := g.Lately(now.Add(after)); got != n {
			t.Errorf("after %s: %v lately, want %v", after, got, n)
		}
	}
	want(0, 0) // what was there before does not count
	c.Add(3)
	want(time.Minute, 3)
	c.Add(2)
	want(5*time.Minute, 5)
	want(11*time.Minute, 2)
	want(15*time.Minute, 0)
}
