package find

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// randomResults draws from few identities and few address lists, so that
// repetitions with and without other addresses come up often.
func randomResults(random *rand.Rand, n int) []ProviderResult {
	peers := []peer.AddrInfo{provider, extended1, noAddress}
	addrs := []multiaddr.Multiaddr{}
	for _, s := range []string{"/ip4/203.0.113.7/tcp/3", "/ip4/203.0.113.7/tcp/1", "/dns/example.com/tcp/2"} {
		addrs = append(addrs, multiaddr.StringCast(s))
	}
	results := make([]ProviderResult, n)
	for i := range results {
		info := peer.AddrInfo{ID: peers[random.IntN(len(peers))].ID}
		for range random.IntN(4) {
			info.Addrs = append(info.Addrs, addrs[random.IntN(len(addrs))])
		}
		results[i] = result([]string{"", "a", "b"}[random.IntN(3)], [][]byte{bitswap, gateway}[random.IntN(2)], info)
		if random.IntN(3) > 0 {
			results[i].Position = Position{[16]byte{byte(1 + random.IntN(2))}, uint64(1 + random.IntN(3)), random.IntN(4) == 0}
		}
	}
	return results
}

// TestMergeIgnoresOrderRepetitionAndGrouping merges the same results in
// different ways.
func TestMergeIgnoresOrderRepetitionAndGrouping(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		results := randomResults(random, random.IntN(12))
		want := Merge(slices.Clone(results))
		for i := 1; i < len(want); i++ {
			if sameIdentity(&want[i-1], &want[i]) {
				t.Fatal("one identity twice")
			}
		}
		var again []ProviderResult
		for _, i := range random.Perm(len(results)) {
			for range 1 + random.IntN(3) {
				again = append(again, results[i])
			}
		}
		cut := random.IntN(len(again) + 1)
		grouped := slices.Concat(Unite(slices.Clone(again[:cut])), Unite(slices.Clone(again[cut:])))
		for _, other := range [][]ProviderResult{again, grouped, slices.Clone(want)} {
			if diff := cmp.Diff(want, Merge(other), compare); diff != "" {
				t.Fatalf("of %v\n-want +got\n%s", results, diff)
			}
		}
	}
}

// TestOnlyWhatIsNewerInOneChainWins: results of other publishers, of other contexts, in
// another role, or without a position are all kept.
func TestOnlyWhatIsNewerInOneChainWins(t *testing.T) {
	at := func(metadata string, chain byte, height uint64, extended bool) ProviderResult {
		r := result("a", []byte(metadata), provider)
		r.Position = Position{[16]byte{chain}, height, extended}
		return r
	}
	bare := result("a", []byte("bare"), provider)
	elsewhere := at("elsewhere", 1, 1, false)
	elsewhere.ContextID = []byte("b")
	all := []ProviderResult{
		at("old", 1, 4, false), at("new", 1, 5, false), at("older", 1, 3, false),
		at("old", 2, 1, true), at("publisher", 3, 1, false), at("new", 1, 2, false), bare, elsewhere,
	}
	want := "bare new old publisher elsewhere"
	for range 20 {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		var got []string
		for _, r := range Merge(slices.Clone(all)) {
			got = append(got, string(r.Metadata))
		}
		if strings.Join(got, " ") != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func TestMergeKeepsTheOrderOfAddressesThatAllAgreeOn(t *testing.T) {
	backwards := mustInfo(extended1.ID.String(), "/dns4/gw.example.com/tcp/443/https", "/ip4/198.51.100.1/tcp/1001")
	got := Merge([]ProviderResult{result("a", bitswap, backwards), result("a", bitswap, backwards)})
	if diff := cmp.Diff([]ProviderResult{result("a", bitswap, backwards)}, got, compare); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	other := mustInfo(extended1.ID.String(), "/ip4/198.51.100.9/tcp/9")
	got = Merge([]ProviderResult{result("a", bitswap, backwards), result("a", bitswap, other)})
	if len(got) != 1 || len(got[0].Provider.Addrs) != 3 {
		t.Errorf("got %v, want one result with three addresses", got)
	}
	if len(backwards.Addrs) != 2 || len(other.Addrs) != 1 {
		t.Error("the lists that were merged have changed")
	}
}
