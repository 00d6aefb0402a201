package admin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
)

func TestParsePool(t *testing.T) {
	p, f := publisher.String(), frozen.String()
	const one = "find=http://a:3000 ingest=http://a:3001 admin=http://a:3002"
	member := PoolMember{Find: "http://a:3000", Ingest: "http://a:3001", Admin: "http://a:3002"}
	with := func(change func(*PoolMember)) []PoolMember {
		m := member
		change(&m)
		return []PoolMember{m}
	}
	tests := []struct {
		name, text string
		want       []PoolMember
		err        string
	}{
		{"one", one, []PoolMember{member}, ""},
		{"comments and blanks", "# pool\n\n \t" + one + " # the first\r\n#" + one + "\n", []PoolMember{member}, ""},
		{"any order", "admin=http://a:3002\tfind=http://a:3000   ingest=http://a:3001", []PoolMember{member}, ""},
		{"scheme left out", "find=a:3000 ingest=a:3001 admin=a:3002", []PoolMember{member}, ""},
		{"one form of a URL", "find=http://A:3000/ ingest=HTTP://a:3001// admin=a:3002/", []PoolMember{member}, ""},
		{"under a path", one + "\nfind=https://h/find/ ingest=https://h/ingest admin=https://h/admin",
			[]PoolMember{member, {Find: "https://h/find", Ingest: "https://h/ingest", Admin: "https://h/admin"}}, ""},
		{"standby", "standby " + one, with(func(m *PoolMember) { m.Standby = true }), ""},
		{"presets", one + " preset=" + p + "," + f + "," + p, with(func(m *PoolMember) { m.Preset = []peer.ID{publisher, frozen} }), ""},
		{"token file", one + " token-file=secret.token", with(func(m *PoolMember) { m.TokenFile = "secret.token" }), ""},

		{"empty", "# nothing\n", nil, "no indexer: add a line such as find=URL"},
		{"no find", "\ningest=a:1 admin=a:2", nil, "line 2: no find: add find=URL"},
		{"no ingest", "find=a:1 admin=a:2", nil, "line 1: no ingest: add ingest=URL"},
		{"no admin", "find=a:1 ingest=a:2", nil, "line 1: no admin: add admin=URL"},
		{"unknown word", one + " weight=3", nil, "line 1: weight: unknown word: want find=URL"},
		{"unknown flag", one + " stanby", nil, `line 1: "stanby": want find=URL`},
		{"flag with value", one + " standby=yes", nil, `line 1: "standby=yes": want find=URL`},
		{"no value", "find= ingest=a:1 admin=a:2", nil, `line 1: "find=": want`},
		{"twice", one + " find=b:1", nil, "line 1: find is given twice"},
		{"bad URL", "find=ftp://a ingest=a:1 admin=a:2", nil, "line 1: find: base URL"},
		{"bad peer", one + " preset=" + p + ",nonsense", nil, `line 1: preset: "nonsense"`},
		{"URL of another line", one + "\n\nfind=b:1 ingest=b:2 admin=a:3002/", nil, "line 3: http://a:3002 is used in line 1 already"},
		{"URL of the same line", "find=a:1 ingest=a:1 admin=a:2", nil, "line 1: http://a:1 is used in line 1 already"},
		{"long line", one + "\n" + strings.Repeat("x", maxPoolLine), nil, "line 2: longer than"},
		{"too much", strings.Repeat("#"+strings.Repeat("x", 1000)+"\n", maxPoolBytes/1000), nil, "more than"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			lines, err := ParsePoolLines(strings.NewReader(test.text))
			var got []PoolMember
			for _, l := range lines {
				got = append(got, l.PoolMember)
			}
			if test.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), test.err) {
					t.Errorf("got %v, %v", got, err)
				}
				return
			}
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
				t.Error(diff, err)
			}
		})
	}
}

func TestParsePoolLines(t *testing.T) {
	names := PoolLine{DNS: "pool.example", FindPort: 3000, IngestPort: 3001, AdminPort: 3002}
	srv := PoolLine{SRV: "_admin._tcp.pool.example", FindPort: 3000, IngestPort: 3001}
	tests := []struct {
		name, text string
		want       []PoolLine
		err        string
	}{
		{"addresses of a name", "dns=Pool.example. find-port=3000 ingest-port=3001 admin-port=3002", []PoolLine{names}, ""},
		{"targets of a name", "srv=_admin._tcp.pool.example find-port=3000 ingest-port=3001 # admin by SRV", []PoolLine{srv}, ""},
		{"all forms", names.String() + "\n" + srv.String() + "\nfind=a:1 ingest=a:2 admin=a:3",
			[]PoolLine{names, srv, {PoolMember: PoolMember{Find: "http://a:1", Ingest: "http://a:2", Admin: "http://a:3"}}}, ""},
		{"settings", "dns=p find-port=1 ingest-port=2 admin-port=3 standby preset=" + publisher.String() + " token-file=x",
			[]PoolLine{{PoolMember: PoolMember{Standby: true, Preset: []peer.ID{publisher}, TokenFile: "x"}, DNS: "p", FindPort: 1, IngestPort: 2, AdminPort: 3}}, ""},

		{"no admin port", "dns=p find-port=1 ingest-port=2", nil, "line 1: no admin-port: add admin-port=N"},
		{"no find port", "srv=p ingest-port=2", nil, "line 1: no find-port: add find-port=N"},
		{"ports with URLs", "find=a:1 ingest=a:2 admin=a:3 find-port=1", nil, "line 1: find-port does not go with"},
		{"URLs with a name", "dns=p find-port=1 ingest-port=2 admin-port=3 find=a:1", nil, "line 1: find does not go with"},
		{"two names", "dns=p srv=q find-port=1 ingest-port=2", nil, "line 1: dns and srv in one line"},
		{"one port for all", "dns=p find-port=1 ingest-port=1 admin-port=1", nil, "line 1: two ports are the same"},
		{"port 0", "dns=p find-port=0", nil, "line 1: find-port: \"0\": want a port"},
		{"port 65536", "dns=p find-port=65536", nil, "line 1: find-port: \"65536\": want a port"},
		{"address for a name", "dns=10.0.0.1", nil, "line 1: dns: \"10.0.0.1\": want a DNS name"},
		{"URL for a name", "dns=http://p", nil, "line 1: dns: \"http://p\": want a DNS name"},
		{"empty label", "dns=a..b", nil, "line 1: dns: \"a..b\""},
		{"name twice", names.String() + "\n" + names.String(), nil, "line 2: pool.example is used in line 1 already"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParsePoolLines(strings.NewReader(test.text))
			if test.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), test.err) {
					t.Errorf("got %v, %v", got, err)
				}
				return
			}
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
				t.Fatal(diff, err)
			}
			for _, l := range got {
				if again, err := ParsePoolLine(l.String()); err != nil || !cmp.Equal(l, again) {
					t.Errorf("%s reads back as %s, %v", l, again, err)
				}
			}
		})
	}
}

func TestReadPoolLinesFindsTokensBesideIt(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pool")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("find=a:1 ingest=a:2 admin=a:3 token-file=a.token\nfind=b:1 ingest=b:2 admin=b:3 token-file=/etc/b.token\nfind=c:1 ingest=c:2 admin=c:3\n")
	members, err := ReadPoolLines(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{filepath.Join(dir, "a.token"), "/etc/b.token", ""} {
		if got := members[i].TokenFile; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	write("oops")
	if _, err := ReadPoolLines(path); err == nil || !strings.Contains(err.Error(), path+": line 1") {
		t.Errorf("got %v", err)
	}
	if _, err := ReadPoolLines(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func FuzzParsePool(f *testing.F) {
	f.Add("find=a:1 ingest=a:2 admin=a:3 standby preset=" + publisher.String() + " token-file=x # comment\n")
	f.Add("find=http://[::1]:1/ ingest=https://a admin=b\ndns=p find-port=1 ingest-port=2 admin-port=3")
	f.Fuzz(func(t *testing.T, text string) {
		lines, err := ParsePoolLines(strings.NewReader(text))
		if (err == nil) != (len(lines) > 0) {
			t.Fatalf("%d lines, %v", len(lines), err)
		}
		for _, l := range lines {
			again, err := ParsePoolLines(strings.NewReader(l.String()))
			if err != nil || again[0].String() != l.String() {
				t.Fatalf("%s read again: %v, %v", l, again, err)
			}
		}
	})
}

func FuzzParsePoolLine(f *testing.F) {
	f.Add("dns=p.example. find-port=1 ingest-port=2 admin-port=3 standby token-file=x")
	f.Add("srv=_a._tcp.p find-port=1 ingest-port=2 preset=" + publisher.String())
	f.Add("find=a:1 ingest=a:2 admin=a:3 # c")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParsePoolLine(text)
		if err != nil {
			return
		}
		again, err := ParsePoolLine(l.String())
		if err != nil || again.String() != l.String() {
			t.Fatalf("%q becomes %q, then %q: %v", text, l, again, err)
		}
	})
}
