package assigner

import "github.com/signpost-index/signpost/api/admin"

// copiesOf counts whole copies of a chain: paths from the genesis to "growing"
// along ranges, no range used twice. Ranges are edges, the ads they begin and
// end at are points.
//
//	genesis ──A──► M1 ──C──► growing        two copies; without A it is one,
//	genesis ──────────B────► growing        for C alone is not a whole one
//
// It stops at want. There are few ranges, so each path is looked for anew
// (Ford and Fulkerson's way, with edges of capacity one).
func copiesOf(ranges []admin.Range, want int) int {
	used := make([]bool, len(ranges))
	n := 0
	for n < want && augment(ranges, used) {
		n++
	}
	return n
}

// point is an ad, or growing. The genesis is the empty one.
type point struct {
	ad      string
	growing bool
}

func ends(r admin.Range) (from, to point) {
	return point{ad: r.From}, point{ad: r.To, growing: r.To == ""}
}

// augment finds one more path, which may give back edges of others, and marks
// what is used now.
func augment(ranges []admin.Range, used []bool) bool {
	type reach struct {
		edge int
		back bool
		from point
	}
	start, goal := point{}, point{growing: true}
	by := map[point]reach{start: {edge: -1}}
	queue := []point{start}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		if at == goal {
			for at != start {
				r := by[at]
				used[r.edge] = !r.back
				at = r.from
			}
			return true
		}
		for n, r := range ranges {
			from, to := ends(r)
			next, back := to, false
			switch {
			case from == at && !used[n]:
			case to == at && used[n]:
				next, back = from, true
			default:
				continue
			}
			if _, seen := by[next]; !seen {
				by[next] = reach{n, back, at}
				queue = append(queue, next)
			}
		}
	}
	return false
}
