package assigner

import (
	"strings"
	"testing"

	"github.com/signpost-index/signpost/api/admin"
)

// spans makes ranges of words "from-to".
func spans(words string) (out []admin.Range) {
	for w := range strings.FieldsSeq(words) {
		from, to, _ := strings.Cut(w, "-")
		out = append(out, admin.Range{From: from, To: to})
	}
	return out
}

func TestCopiesAreWholeChains(t *testing.T) {
	for ranges, want := range map[string]int{
		"":                        0,
		"-":                       1,
		"- -":                     2,
		"-1":                      0,
		"1-":                      0,
		"-1 1-":                   1,
		"-1 2-":                   0,
		"-1 1- 1-":                1,
		"-1 -1 1- 1-":             2,
		"-1 1- -":                 2,
		"-1 1-2 2- -":             2,
		"-1 -2 1-2 2- 2-":         2,
		"-1 -2 1-3 2-3 3-4 4-":    1,
		"-1 1-2 1-3 2-4 3-4 4- -": 2,
		"-1 1-1 1-":               1,
	} {
		if got := copiesOf(spans(ranges), 9); got != want {
			t.Errorf("%q: %d copies, want %d", ranges, got, want)
		}
	}
}

// TestCopiesEqualTheNarrowestPlace: the number of paths is that of ranges whose
// loss cuts the genesis off from the newest (Menger), found by trying all.
func TestCopiesEqualTheNarrowestPlace(t *testing.T) {
	r := seeded(t)
	ads := []string{"", "1", "2", "3"}
	for range 2000 {
		var ranges []admin.Range
		for range r.IntN(9) {
			from := r.IntN(len(ads))
			to := from + 1 + r.IntN(len(ads)-from)
			g := admin.Range{From: ads[from]}
			if to < len(ads) {
				g.To = ads[to]
			}
			ranges = append(ranges, g)
		}
		if got, want := copiesOf(ranges, 99), narrowest(ranges); got != want {
			t.Fatalf("%v: %d copies, want %d", ranges, got, want)
		}
	}
}

// narrowest counts the fewest ranges without which nothing leads from the genesis
// to the newest.
func narrowest(ranges []admin.Range) int {
	least := len(ranges)
	for without := range 1 << len(ranges) {
		var left []admin.Range
		for n, g := range ranges {
			if without&(1<<n) == 0 {
				left = append(left, g)
			}
		}
		if copiesOf(left, 1) == 0 {
			least = min(least, len(ranges)-len(left))
		}
	}
	return least
}
