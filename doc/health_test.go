package doc

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/signpost-index/signpost/api/health"
)

// TestEveryHealthCodeHasItsParagraph compares the codes with the sections below
// "Health" in operations.md, both ways.
func TestEveryHealthCodeHasItsParagraph(t *testing.T) {
	page, err := os.ReadFile("operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Health\n")
	section, _, _ = strings.Cut(section, "\n## ")
	parts := regexp.MustCompile(`(?m)^### (.+)$`).FindAllStringSubmatchIndex(section, -1)
	paragraphs := make(map[health.Code]string)
	var order []health.Code
	for i, p := range parts {
		end := len(section)
		if i+1 < len(parts) {
			end = parts[i+1][0]
		}
		code := health.Code(section[p[2]:p[3]])
		paragraphs[code] = strings.TrimSpace(section[p[1]:end])
		order = append(order, code)
	}
	var want []health.Code
	for _, d := range health.Definitions() {
		want = append(want, d.Code)
		text := paragraphs[d.Code]
		begin := strings.ToUpper(string(d.Severity)[:1]) + string(d.Severity)[1:] + ", " + strings.ReplaceAll(d.Roles, ", ", " and ") + ". "
		switch {
		case text == "":
			t.Errorf("operations.md has no paragraph on %s", d.Code)
		case !strings.HasPrefix(text, begin):
			t.Errorf("%s: the paragraph begins with %.40q, want %q", d.Code, text, begin)
		case strings.Contains(text, "\n\n"):
			t.Errorf("%s: want one paragraph", d.Code)
		}
	}
	if !slices.Equal(order, want) {
		t.Errorf("operations.md has these paragraphs:\n%q\nwant, in the order of the codes:\n%q", order, want)
	}
}
