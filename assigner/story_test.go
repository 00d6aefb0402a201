package assigner

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
	"github.com/signpost-index/signpost/api/admin"
)

// TestStories plays the scripts in testdata/stories, each in a bubble with
// time of its own. See testdata/README.md for the commands.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/stories/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &story{t: t, fakes: make(map[string]*fakeIndexer), ours: make(map[string]*oursIndexer)}
				defer s.stop()
				datadriven.RunTest(t, file, func(t *testing.T, td *datadriven.TestData) string {
					return s.do(td)
				})
			})
		})
	}
}

// story is a pool of fakes and perhaps an assigner that runs.
type story struct {
	t       *testing.T
	fakes   map[string]*fakeIndexer
	ours    map[string]*oursIndexer // those with roles
	members []admin.PoolMember

	announces AnnounceConfig
	primary   func(ctx context.Context, u string) error                      // answers health checks
	other     func(ctx context.Context, u string, a announce.Announce) error // takes what goes outside the pool

	assigner *Assigner
	cancel   context.CancelFunc
	ended    chan error
}

func (s *story) do(td *datadriven.TestData) string {
	switch td.Cmd {
	case "pool":
		return s.pool(td.Input)
	case "start":
		return s.start(td)
	case "stop":
		return s.stop()
	case "announce":
		return s.announce(td)
	case "indexer":
		return s.change(td)
	case "wait":
		d, err := time.ParseDuration(td.CmdArgs[0].Key)
		if err != nil {
			td.Fatalf(s.t, "%v", err)
		}
		time.Sleep(d)
		synctest.Wait()
		return s.show()
	case "calls":
		return s.calls()
	case "wish":
		return s.wish(td)
	case "plan":
		return s.plan()
	case "explain":
		return s.explain(td)
	case "states":
		return s.states()
	}
	td.Fatalf(s.t, "unknown command %s", td.Cmd)
	return ""
}

// pool takes lines of "name [ours] [standby] [preset=publisher,...]".
func (s *story) pool(input string) string {
	s.members = nil
	for line := range strings.Lines(input) {
		fields := strings.Fields(line)
		name := fields[0]
		m := admin.PoolMember{Find: url("find", name), Ingest: url("ingest", name), Admin: url("admin", name)}
		for _, f := range fields[1:] {
			if f == "ours" && s.ours[name] == nil {
				s.fakes[name] = newFake(peer.ID(name))
				s.ours[name] = newOurs(s.fakes[name])
				continue
			}
			if presets, ok := strings.CutPrefix(f, "preset="); ok {
				m.Preset = ids(strings.ReplaceAll(presets, ",", " "))
			}
			m.Standby = m.Standby || f == "standby"
		}
		s.members = append(s.members, m)
		if s.fakes[name] == nil {
			s.fakes[name] = newFake(peer.ID(name))
			s.fakes[name].fakes = s.byURL
		}
	}
	if s.assigner == nil {
		return "ok"
	}
	if err := s.assigner.SetPool(s.members); err != nil {
		return err.Error()
	}
	return "ok"
}

func url(api, name string) string { return "http://" + api + "." + name }

func (s *story) name(u string) string { return u[strings.LastIndexByte(u, '.')+1:] }

func (s *story) byURL(u string) *fakeIndexer { return s.fakes[s.name(u)] }

func (s *story) start(td *datadriven.TestData) string {
	cfg := Config{
		Listener: newIdleListener(), Members: s.members, Replication: 1,
		PollInterval: 2 * time.Second, CallTimeout: time.Second, Announces: s.announces,
	}
	td.MaybeScanArgs(s.t, "replication", &cfg.Replication)
	td.MaybeScanArgs(s.t, "moves", &cfg.Moves)
	var err error
	s.assigner, err = open(cfg, links{
		connect: func(m admin.PoolMember, _ string) (client, error) {
			if o := s.ours[s.name(m.Admin)]; o != nil {
				return o, nil
			}
			return s.byURL(m.Admin), nil
		},
		healthy: s.primary,
		send: func(ctx context.Context, u string, a announce.Announce) error {
			if s.byURL(u) == nil {
				return s.other(ctx, u, a)
			}
			err := error(nil)
			if o := s.ours[s.name(u)]; o != nil {
				err = o.announced(ctx, a)
			} else {
				err = s.byURL(u).announced(ctx, a)
			}
			if err == announce.ErrNotAllowed {
				return &announce.StatusError{Code: 403}
			}
			return err
		},
	})
	if err != nil {
		return err.Error()
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	s.cancel, s.ended = cancel, make(chan error, 1)
	go func(a *Assigner) { s.ended <- a.Run(ctx) }(s.assigner)
	synctest.Wait()
	return "ok"
}

func (s *story) stop() string {
	if s.assigner == nil {
		return "ok"
	}
	s.cancel()
	s.assigner = nil
	if err := <-s.ended; err != nil {
		return err.Error()
	}
	return "ok"
}

// announce takes words "publisher@head".
func (s *story) announce(td *datadriven.TestData) string {
	for _, arg := range td.CmdArgs {
		publisher, headWord, _ := strings.Cut(arg.Key, "@")
		if err := s.assigner.hear(s.t.Context(), announceOf(peer.ID(publisher), headWord)); err != nil {
			return err.Error()
		}
	}
	return "ok"
}

// change takes "name what [publishers]".
func (s *story) change(td *datadriven.TestData) string {
	f := s.fakes[td.CmdArgs[0].Key]
	what := td.CmdArgs[1].Key
	var publishers []peer.ID
	for _, arg := range td.CmdArgs[2:] {
		publishers = append(publishers, peer.ID(arg.Key))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if o := s.ours[td.CmdArgs[0].Key]; o != nil && o.change(what, publishers) {
		return "ok"
	}
	switch what {
	case "freeze":
		f.frozen = true
	case "strict":
		f.strict = true
	case "assigned", "unassign", "refuse", "allow", "nocontent":
		for _, p := range publishers {
			switch what {
			case "assigned":
				f.assigned[p], f.content[p] = "", true
			case "nocontent":
				delete(f.content, p)
			case "unassign":
				delete(f.assigned, p)
			default:
				f.refuses[p] = what == "refuse"
			}
		}
	case "preferred":
		f.preferred = publishers
	default:
		f.mode = mode(what)
	}
	return "ok"
}

// show writes the pool, one indexer a line.
func (s *story) show() string {
	var b strings.Builder
	for _, name := range s.names() {
		if o := s.ours[name]; o != nil {
			fmt.Fprintln(&b, o)
			continue
		}
		fmt.Fprintln(&b, s.fakes[name])
	}
	return b.String()
}

func (s *story) names() []string {
	var names []string
	for name := range s.fakes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// calls writes, sorted, what the indexers were made to do since last asked.
func (s *story) calls() string {
	var all []string
	for name, f := range s.fakes {
		f.set(func() {
			for _, what := range f.did {
				all = append(all, name+": "+what)
			}
			f.did = nil
		})
	}
	if len(all) == 0 {
		return "none"
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// states writes the pool page.
func (s *story) states() string {
	members, publishers, unplaced := s.assigner.pool.members(time.Now())
	var b strings.Builder
	for _, m := range members {
		fmt.Fprintf(&b, "%s %s %d\n", strings.TrimPrefix(m.Admin, "http://admin."), m.State, m.Publishers)
	}
	fmt.Fprintf(&b, "publishers=%d unplaced=%d\n", publishers, unplaced)
	return b.String()
}

// wish takes "drain name", "undrain name", "pin publisher name...", "copies
// publisher=n", "rebalance-off", or "clean".
func (s *story) wish(td *datadriven.TestData) string {
	args := td.CmdArgs
	if args[0].Key == "clean" {
		s.assigner.pool.cleanNow()
		return "ok"
	}
	err := s.assigner.intents.Change(func(in Intents) (Intents, error) {
		switch args[0].Key {
		case "drain":
			return in.drain(Drain{Indexer: peer.ID(args[1].Key)})
		case "undrain":
			return in.undrain(peer.ID(args[1].Key))
		case "pin":
			var to []peer.ID
			for _, a := range args[2:] {
				to = append(to, peer.ID(a.Key))
			}
			in.Pins = append(slices.Clone(in.Pins), Pin{Publisher: peer.ID(args[1].Key), Indexers: to})
			return in, nil
		case "copies":
			n, err := strconv.Atoi(args[1].Vals[0])
			in.Copies = append(slices.Clone(in.Copies), Copies{Publisher: peer.ID(args[1].Key), Copies: n})
			return in, err
		case "rebalance-off":
			in.NoRebalance = true
			return in, nil
		}
		return in, fmt.Errorf("no such wish")
	})
	if err != nil {
		return err.Error()
	}
	return "ok"
}

// plan writes what would be done now.
func (s *story) plan() string {
	if steps := Plan(s.assigner.pool.peek(time.Now())); len(steps) > 0 {
		return text(steps)
	}
	return "nothing"
}

// explain writes why a publisher is where it is.
func (s *story) explain(td *datadriven.TestData) string {
	x := Explain(s.assigner.pool.peek(time.Now()), peer.ID(td.CmdArgs[0].Key))
	var b strings.Builder
	fmt.Fprintf(&b, "wished %d, whole %d\n", x.Wished, x.Whole)
	for _, p := range x.Places {
		fmt.Fprintf(&b, "%s %s %s\n", p.Role, string(p.Indexer), p.State)
	}
	for _, p := range x.Steps {
		fmt.Fprintf(&b, "%s %s: %s\n", p.Kind, string(p.Indexer), p.Why)
	}
	if x.Waiting != "" {
		fmt.Fprintf(&b, "waiting: %s\n", x.Waiting)
	}
	return b.String()
}
