package sim

import (
	"cmp"
	"slices"
)

// Shares between which balance in package assigner brings loads.
const lowShare, highShare = 0.85, 1.045

// owned is a publisher of a node.
type owned struct {
	rate float64
	came int // the node it came from, -1: none
}

// maxLooks is after how many states the search of fewestMoves gives up.
const maxLooks = 200_000

// fewestMoves is how many moves bring loads near their mean at least, that of
// spreadable, if a publisher is moved at most once, not to where it came from,
// and only if there was room for it somewhere at first. loads are the publishers
// of each node, empty nodes included. A number that is not shown to be too small
// by leastMoves is tried out by a search of everything, until that takes too long.
func fewestMoves(loads [][]owned) (moves int) {
	b := &bound{}
	var rates [][]float64
	for _, node := range loads {
		of, sum := []float64{}, 0.0
		for _, o := range node {
			of = append(of, o.rate)
			sum += o.rate
			b.largest = max(b.largest, o.rate)
		}
		rates = append(rates, of)
		b.sums = append(b.sums, sum)
		b.loads = append(b.loads, slices.SortedFunc(slices.Values(node), func(x, y owned) int { return cmp.Compare(y.rate, x.rate) }))
	}
	total := 0.0
	for _, sum := range b.sums {
		total += sum
	}
	mean := spreadable(rates, total)
	b.low, b.high = lowShare*mean, highShare*max(mean, b.largest)
	b.room = b.high - slices.Min(b.sums)
	for moves = b.leastMoves(); ; moves++ {
		b.looks = maxLooks
		if b.find(moves) || b.looks < 0 {
			return moves
		}
	}
}

// bound is a state of fewestMoves.
type bound struct {
	loads           [][]owned // the largest first
	sums            []float64
	largest         float64
	low, high, room float64
	looks           int // that are left
}

// leastMoves is how many moves are needed at least:
//
//   - of each node above high, the largest publishers that bring it down to that;
//   - and the largest of all nodes above low that are needed, with those, to
//     bring the nodes below up to it.
//
// What a node gives beyond what it can spare it has to get back, and what the
// one that lacks most gets beyond that is wasted; neither counts.
func (b *bound) leastMoves() int {
	lacking, lacks := 0.0, 0.0
	for _, sum := range b.sums {
		lacking += max(b.low-sum, 0)
		lacks = max(lacks, b.low-sum)
	}
	forced := 0
	var more []float64
	for i, node := range b.loads {
		spare := b.sums[i] - b.low
		if spare < 0 {
			continue
		}
		var can, worth []float64
		for _, o := range node {
			r := o.rate
			if r > b.room {
				continue
			}
			can = append(can, r)
			if r > lacks {
				r = min(lacks, spare+lacks-r)
			}
			if r > 0 {
				worth = append(worth, r)
			}
		}
		n := take(can, b.sums[i]-b.high)
		forced += n
		worth = capped(worth, spare)
		n = min(n, len(worth))
		for _, r := range worth[:n] {
			lacking -= r
		}
		more = append(more, worth[n:]...)
	}
	return forced + take(more, lacking)
}

// find tells whether so many moves are enough. Whoever lacks most gets something
// first, or if nobody lacks anything, who has most too much gives.
func (b *bound) find(moves int) bool {
	if b.looks--; b.looks < 0 {
		return false
	}
	needy, rich, lacking, over := 0, 0, 0, 0
	for i, sum := range b.sums {
		if sum < b.sums[needy] {
			needy = i
		}
		if sum > b.sums[rich] {
			rich = i
		}
		if sum < b.low {
			lacking++
		}
		if sum > b.high {
			over++
		}
	}
	if lacking+over == 0 {
		return true
	}
	if max(lacking, over) > moves || b.leastMoves() > moves {
		return false
	}
	for i := range b.sums {
		from, to := i, needy
		if lacking == 0 {
			from, to = rich, i
		}
		if from != to && b.tries(from, to, moves) {
			return true
		}
	}
	return false
}

func (b *bound) tries(from, to, moves int) bool {
	node, was, got := b.loads[from], b.sums[from], b.sums[to]
	for n, o := range node {
		if o.came == to || o.rate > b.room || n > 0 && node[n-1].rate == o.rate {
			continue
		}
		// It is moved only once: from now on it is part of the sum only.
		b.loads[from] = slices.Delete(slices.Clone(node), n, n+1)
		b.sums[from], b.sums[to] = was-o.rate, got+o.rate
		found := b.find(moves - 1)
		b.loads[from], b.sums[from], b.sums[to] = node, was, got
		if found || b.looks < 0 {
			return found
		}
	}
	return false
}

// spreadable is the mean without publishers that are more than it, each with a
// node of its own.
func spreadable(loads [][]float64, total float64) float64 {
	rates, nodes := slices.Concat(loads...), float64(len(loads))
	take(rates, 0) // sorts
	for _, r := range rates {
		if r <= total/nodes || nodes == 1 {
			break
		}
		total -= r
		nodes--
	}
	return total / nodes
}

// take is how many of rates, the largest first, make sum; all if they do not.
func take(rates []float64, sum float64) int {
	slices.SortFunc(rates, func(a, b float64) int {
		if a > b {
			return -1
		}
		return 1
	})
	for n, r := range rates {
		if sum <= 0 {
			return n
		}
		sum -= r
	}
	return len(rates)
}

// capped are the largest of rates up to a sum of most, the last one cut.
func capped(rates []float64, most float64) []float64 {
	rates = slices.Clone(rates)
	take(rates, 0) // sorts
	for n, r := range rates {
		if most <= r {
			rates[n] = most
			return rates[:n+1]
		}
		most -= r
	}
	return rates
}
