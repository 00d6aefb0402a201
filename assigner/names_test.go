package assigner

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/signpost-index/signpost/api/admin"
)

func poolLines(t *testing.T, text string) []admin.PoolLine {
	t.Helper()
	lines, err := admin.ParsePoolLines(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// at makes endpoints of texts such as 10.0.0.1 or 10.0.0.1:3002.
func at(texts ...string) (es []endpoint) {
	for _, text := range texts {
		if ap, err := netip.ParseAddrPort(text); err == nil {
			es = append(es, endpoint{ap.Addr(), ap.Port()})
			continue
		}
		es = append(es, endpoint{addr: netip.MustParseAddr(text)})
	}
	return es
}

func TestNamesResolveToMembers(t *testing.T) {
	const dns, srv = "dns=p find-port=3000 ingest-port=3001 admin-port=3002", "srv=s find-port=3000 ingest-port=3001"
	addr := netip.MustParseAddr
	tests := []struct {
		name, lines string
		a           answers
		want        string // find and admin of each member
	}{
		{"no answer yet", dns + "\nfind=h:1 ingest=h:2 admin=h:3", answers{}, "http://h:1 http://h:3"},
		{"an address each", dns, answers{names: map[string][]endpoint{"p": at("10.0.0.2", "10.0.0.1", "fd00::1")}},
			"http://10.0.0.2:3000 http://10.0.0.2:3002\nhttp://10.0.0.1:3000 http://10.0.0.1:3002\nhttp://[fd00::1]:3000 http://[fd00::1]:3002"},
		{"the admin port of SRV", srv, answers{names: map[string][]endpoint{"s": at("10.0.0.1:4002", "10.0.0.1:5002")}},
			"http://10.0.0.1:3000 http://10.0.0.1:4002\nhttp://10.0.0.1:3000 http://10.0.0.1:5002"},
		{"an admin port besides SRV", srv + " admin-port=3002", answers{names: map[string][]endpoint{"s": at("10.0.0.1:53")}},
			"http://10.0.0.1:3000 http://10.0.0.1:3002"},
		{"in the order of lines", dns + "\nfind=h:1 ingest=h:2 admin=h:3", answers{names: map[string][]endpoint{"p": at("10.0.0.1")}},
			"http://10.0.0.1:3000 http://10.0.0.1:3002\nhttp://h:1 http://h:3"},

		{"a line by address comes first", dns + "\nfind=10.0.0.1:1 ingest=10.0.0.1:2 admin=10.0.0.1:3002",
			answers{names: map[string][]endpoint{"p": at("10.0.0.1", "10.0.0.2")}},
			"http://10.0.0.2:3000 http://10.0.0.2:3002\nhttp://10.0.0.1:1 http://10.0.0.1:3002"},
		{"a line by host comes first", dns + "\nfind=h:1 ingest=h:2 admin=h:3002",
			answers{names: map[string][]endpoint{"p": at("10.0.0.1", "10.0.0.2")}, hosts: map[string][]netip.Addr{"h": {addr("10.0.0.2")}}},
			"http://10.0.0.1:3000 http://10.0.0.1:3002\nhttp://h:1 http://h:3002"},
		{"another port is another indexer", dns + "\nfind=h:1 ingest=h:2 admin=h:3003",
			answers{names: map[string][]endpoint{"p": at("10.0.0.2")}, hosts: map[string][]netip.Addr{"h": {addr("10.0.0.2")}}},
			"http://10.0.0.2:3000 http://10.0.0.2:3002\nhttp://h:1 http://h:3003"},
		{"of two names the first", dns + "\n" + srv, answers{names: map[string][]endpoint{"p": at("10.0.0.1"), "s": at("10.0.0.1:3002", "10.0.0.2:3002")}},
			"http://10.0.0.1:3000 http://10.0.0.1:3002\nhttp://10.0.0.2:3000 http://10.0.0.2:3002"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, m := range resolve(poolLines(t, test.lines), test.a) {
				got = append(got, m.Find+" "+m.Admin)
			}
			if diff := cmp.Diff(test.want, strings.Join(got, "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestALineAddedTwiceIsOneMember: by the file and by the operator.
func TestALineAddedTwiceIsOneMember(t *testing.T) {
	l := poolLines(t, "find=h:1 ingest=h:2 admin=h:3")
	if got := resolve(append(l, l...), answers{}); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

func TestMembersOfANameHaveTheSettingsOfItsLine(t *testing.T) {
	l := poolLines(t, "dns=p find-port=1 ingest-port=2 admin-port=3 standby token-file=x preset="+realID(t, 1).String())
	got := resolve(l, answers{names: map[string][]endpoint{"p": at("10.0.0.1")}})
	want := l[0].PoolMember
	want.Find, want.Ingest, want.Admin = "http://10.0.0.1:1", "http://10.0.0.1:2", "http://10.0.0.1:3"
	if diff := cmp.Diff([]admin.PoolMember{want}, got); diff != "" {
		t.Error(diff)
	}
}

func TestAnswersAreRemembered(t *testing.T) {
	lines := poolLines(t, "dns=p find-port=1 ingest-port=2 admin-port=3\ndns=q find-port=1 ingest-port=2 admin-port=3")
	var a answers
	for i, step := range []struct {
		p, q []endpoint // nil: the look-up failed
		want string
		left int
	}{
		{at("10.0.0.1", "10.0.0.2"), nil, "p 10.0.0.1 10.0.0.2", 0},
		{at("10.0.0.2", "10.0.0.0"), at("10.1.0.1"), "p 10.0.0.1 10.0.0.2 10.0.0.0 q 10.1.0.1", 0},
		{nil, nil, "p 10.0.0.1 10.0.0.2 10.0.0.0 q 10.1.0.1", 0},
		{at("10.0.0.7"), at("10.1.0.7", "10.1.0.8"), "p 10.0.0.1 10.0.0.2 10.0.0.0 10.0.0.7 q 10.1.0.1", 2},
	} {
		fresh := answers{names: make(map[string][]endpoint)}
		if step.p != nil {
			fresh.names["p"] = step.p
		}
		if step.q != nil {
			fresh.names["q"] = step.q
		}
		left := 0
		a, left = a.with(fresh, lines, 5)
		var words []string
		for _, name := range []string{"p", "q"} {
			if a.names[name] != nil {
				words = append(words, name)
			}
			for _, e := range a.names[name] {
				words = append(words, e.String())
			}
		}
		if got := strings.Join(words, " "); got != step.want || left != step.left {
			t.Errorf("step %d: %s, %d left, want %s, %d left", i, got, left, step.want, step.left)
		}
	}
	if a, _ = a.with(answers{}, lines[1:], 5); len(a.names["p"]) > 0 || len(a.names["q"]) != 1 {
		t.Errorf("a name that is not in the pool any more is remembered: %v", a.names)
	}
}

func TestAnSRVTargetIsOneIndexer(t *testing.T) {
	addrs := usable([]netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("::ffff:10.0.0.2"), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("ff02::1")})
	if got := fmt.Sprint(addrs); got != "[10.0.0.1 10.0.0.2 fd00::1]" {
		t.Errorf("usable: %s", got)
	}
	if got := lowest(addrs).String(); got != "10.0.0.1" {
		t.Errorf("lowest: %s", got)
	}
}
