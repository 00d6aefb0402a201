package fanout

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
	"go.uber.org/goleak"

	"github.com/signpost-index/signpost/api/find"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// actor is a backend that acts out steps: results, or "wait <duration>",
// "fail", "partial <name>", "panic", "hang" (until its context ends) or "stuck"
// (a minute, whatever its context does).
type actor struct {
	steps []string
	infos []find.ProviderInfo
	stats find.Stats
}

var errDown = errors.New("down")

// step acts out what is no result.
func (a *actor) step(ctx context.Context, step string) error {
	word, argument, _ := strings.Cut(step, " ")
	switch word {
	case "wait":
		d, err := time.ParseDuration(argument)
		if err != nil {
			return err
		}
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return ctx.Err()
		}
	case "fail":
		return errDown
	case "deny":
		kind, reason, _ := strings.Cut(argument, " ")
		return &find.DeniedError{Kind: find.DenyKind(kind), Reason: reason}
	case "partial":
		return &find.PartialError{Missing: []string{argument}}
	case "panic":
		panic("a bug")
	case "hang":
		<-ctx.Done()
		return ctx.Err()
	case "stuck":
		time.Sleep(time.Minute)
	default:
		return fmt.Errorf("step %q", step)
	}
	return nil
}

func (a *actor) Find(ctx context.Context, _ multihash.Multihash) iter.Seq2[find.ProviderResult, error] {
	return func(yield func(find.ProviderResult, error) bool) {
		for _, step := range a.steps {
			if r, ok := parseResult(step); ok {
				if !yield(r, nil) {
					return
				}
			} else if err := a.step(ctx, step); err != nil {
				yield(find.ProviderResult{}, err)
				return
			}
		}
	}
}

// all acts out the steps for a question that is no find.
func (a *actor) all(ctx context.Context) error {
	for _, step := range a.steps {
		if err := a.step(ctx, step); err != nil {
			return err
		}
	}
	return nil
}

func (a *actor) Providers(ctx context.Context) ([]find.ProviderInfo, error) {
	return a.infos, a.all(ctx)
}

func (a *actor) Provider(ctx context.Context, id peer.ID) (*find.ProviderInfo, error) {
	err := a.all(ctx)
	for _, info := range a.infos {
		if info.AddrInfo.ID == id {
			return &info, err
		}
	}
	if err != nil {
		return nil, err
	}
	return nil, find.ErrNotFound
}

func (a *actor) Stats(ctx context.Context) (find.Stats, error) { return a.stats, a.all(ctx) }

// peerNamed makes a peer ID of a name.
func peerNamed(name string) peer.ID {
	mh, err := multihash.Sum([]byte(name), multihash.IDENTITY, -1)
	if err != nil {
		panic(err)
	}
	return peer.ID(mh)
}

// nameOf is the reverse of peerNamed.
func nameOf(id peer.ID) string { return string(id[2:]) }

// parseResult reads "<provider>/<context ID>/<metadata>[ <address>...]"; an
// address is a port.
func parseResult(step string) (find.ProviderResult, bool) {
	fields := strings.Fields(step)
	parts := strings.Split(fields[0], "/")
	if len(parts) != 3 {
		return find.ProviderResult{}, false
	}
	info := &peer.AddrInfo{ID: peerNamed(parts[0])}
	for _, port := range fields[1:] {
		info.Addrs = append(info.Addrs, multiaddr.StringCast("/ip4/127.0.0.1/tcp/"+port))
	}
	return find.ProviderResult{ContextID: []byte(parts[1]), Metadata: []byte(parts[2]), Provider: info}, true
}

// formatResult is the reverse of parseResult.
func formatResult(r find.ProviderResult) string {
	s := fmt.Sprintf("%s/%s/%s", nameOf(r.Provider.ID), r.ContextID, r.Metadata)
	for _, addr := range r.Provider.Addrs {
		s += " " + strings.TrimPrefix(addr.String(), "/ip4/127.0.0.1/tcp/")
	}
	return s
}

var mh = multihash.Multihash(peerNamed("what is asked for"))

// TestStories runs testdata/find: each command is a find, in fake time, over
// backends of which each line gives the name and the steps. Shown is when each
// result came, and how the find ended.
func TestStories(t *testing.T) {
	datadriven.RunTest(t, "testdata/find", func(t *testing.T, d *datadriven.TestData) string {
		var out strings.Builder
		leave := -1
		d.MaybeScanArgs(t, "leave-after", &leave)
		synctest.Test(t, func(t *testing.T) {
			tell(&out, New(Config{Backends: parseBackends(t, d.Input)}), leave)
			time.Sleep(2 * time.Minute) // what is still waiting then is a leak: the bubble fails
		})
		return out.String()
	})
}

func parseBackends(t *testing.T, input string) (backends []Backend) {
	for line := range strings.Lines(input) {
		name, script, ok := strings.Cut(line, ":")
		if !ok {
			t.Fatalf("line %q", line)
		}
		a := &actor{}
		for step := range strings.SplitSeq(script, ";") {
			if step = strings.TrimSpace(step); step != "" {
				a.steps = append(a.steps, step)
			}
		}
		backends = append(backends, Backend{Name: name, Finder: a})
	}
	return backends
}

// tell runs one find and writes what comes when. Results of one moment are
// from different goroutines; the stories have none where that shows.
func tell(out *strings.Builder, f *Finder, leave int) {
	start := time.Now()
	say := func(s string) { fmt.Fprintf(out, "%6s %s\n", time.Since(start), s) }
	n := 0
	for r, err := range f.Find(context.Background(), mh) {
		if err != nil {
			say(err.Error())
			return
		}
		say(formatResult(r))
		if n++; n == leave {
			break
		}
	}
	if n == leave {
		say("left")
		return
	}
	say("complete")
}
