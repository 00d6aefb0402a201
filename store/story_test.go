package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// The stories in testdata/stories are conversations with a store on a disk
// that loses what was not synced when the power goes. The commands:
//
//	open | close | crash                      crash: power loss, then open
//	sync
//	ad NAME pub=P pos=N [prev=NAME] [prov=Q] [ctx=C] [md=M] [mhs=(..)]
//	   [put | meta | rm | none | rejected | superseded | skipped] [abort]
//	   [addrs=(..)] [xp=(..)]                 put is the default; abort: not
//	                                          committed; addrs=() touches the registry
//	find MH..
//	progress P                                applied, and durable where it differs
//	pending P (NAME..)                        AddPending of ads named before or by ref
//	ref NAME pos=N [prev=NAME]                names an ad without applying it
//	mark P NAME
//	state NAME..
//	provider Q | error P TEXT
//	freeze | unfreeze
//	assign P [mark=NAME] [from=X] | unassign P | assignments
//	stats
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		st := &story{t: t, fs: vfs.NewCrashableMem(), ads: make(map[string]AdRef), names: map[cid.Cid]string{cid.Undef: "-"}}
		defer st.close()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var b strings.Builder
			if err := st.run(d, &b); err != nil {
				fmt.Fprintf(&b, "error: %v\n", st.readable(err))
			}
			if b.Len() == 0 {
				return "ok\n"
			}
			return b.String()
		})
	})
}

type story struct {
	t     *testing.T
	fs    *vfs.MemFS
	s     *Store
	ads   map[string]AdRef
	names map[cid.Cid]string
}

// readable takes the noise out of an error: only its sentinel is part of the
// story.
func (st *story) readable(err error) error {
	for _, sentinel := range []error{ErrFrozen, ErrClosed, ErrConflict, ErrInvalid, ErrInUse} {
		if errors.Is(err, sentinel) {
			return sentinel
		}
	}
	return err
}

func (st *story) open() (err error) {
	st.s, err = Open(testConfig(st.fs))
	return err
}

func (st *story) close() error {
	if st.s == nil {
		return nil
	}
	defer func() { st.s = nil }()
	return st.s.Close()
}

func (st *story) crash() error {
	clone := st.fs.CrashClone(vfs.CrashCloneCfg{})
	if err := st.close(); err != nil {
		return err
	}
	st.fs = clone
	return st.open()
}

// words returns the arguments that have no values.
func words(d *datadriven.TestData) (ws []string) {
	for _, a := range d.CmdArgs {
		if len(a.Vals) == 0 {
			ws = append(ws, a.Key)
		}
	}
	return ws
}

func (st *story) run(d *datadriven.TestData, b *strings.Builder) error {
	ws := words(d)
	first := ""
	if len(ws) > 0 {
		first = ws[0]
	}
	switch d.Cmd {
	case "open":
		return st.open()
	case "close":
		return st.close()
	case "crash":
		return st.crash()
	case "sync":
		return st.s.Sync()
	case "ref":
		st.ref(d, first)
		return nil
	case "ad":
		return st.ad(d, first)
	case "find":
		return st.find(b, ws)
	case "progress":
		st.progress(b, peer.ID(first))
		return nil
	case "pending":
		var refs []AdRef
		for _, name := range ws[1:] {
			refs = append(refs, st.ads[name])
		}
		return st.s.AddPending(peer.ID(first), refs)
	case "mark":
		return st.s.SetMark(peer.ID(first), st.ads[ws[1]])
	case "state":
		return st.states(b, ws)
	case "provider":
		return st.provider(b, peer.ID(first))
	case "error":
		return st.s.SetError(peer.ID(first), strings.Join(ws[1:], " "), testTime)
	case "freeze":
		return st.s.Freeze(testTime)
	case "unfreeze":
		return st.s.Unfreeze()
	case "assign":
		return st.assign(d, peer.ID(first))
	case "unassign":
		return st.s.Unassign(peer.ID(first))
	case "assignments":
		as := st.s.Assignments()
		slices.SortFunc(as, func(a, b Assignment) int { return strings.Compare(string(a.Publisher), string(b.Publisher)) })
		for _, a := range as {
			fmt.Fprintf(b, "%s continued=%q\n", string(a.Publisher), string(a.Continued))
		}
		return nil
	case "stats":
		s, err := st.s.Stats()
		fmt.Fprintf(b, "postings %d records %d\n", s.Postings, s.Records)
		return err
	}
	d.Fatalf(st.t, "unknown command")
	return nil
}

func (st *story) ref(d *datadriven.TestData, name string) AdRef {
	if !d.HasArg("pos") {
		return st.ads[name]
	}
	var prev string
	var ref AdRef
	var pos uint64
	d.ScanArgs(st.t, "pos", &pos)
	d.MaybeScanArgs(st.t, "prev", &prev)
	h, err := multihash.Sum([]byte(name), multihash.SHA2_256, -1)
	if err != nil {
		st.t.Fatal(err)
	}
	ref = AdRef{Ad: cid.NewCidV1(cid.DagJSON, h), Prev: st.ads[prev].Ad, Pos: Position(pos)}
	st.ads[name], st.names[ref.Ad] = ref, name
	return ref
}

func values(d *datadriven.TestData, key string) []string {
	arg, ok := d.Arg(key)
	if !ok {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(arg.Vals), func(v string) bool { return v == "" })
}

func value(d *datadriven.TestData, key string) string {
	return strings.Join(values(d, key), ",")
}

func storyMH(name string) multihash.Multihash {
	return append(multihash.Multihash{multihash.IDENTITY, byte(len(name))}, name...)
}

func (st *story) ad(d *datadriven.TestData, name string) error {
	ad := Ad{AdRef: st.ref(d, name), Publisher: peer.ID(value(d, "pub")), Provider: peer.ID(value(d, "prov")),
		ContextID: []byte(value(d, "ctx")), Metadata: []byte(value(d, "md"))}
	if ad.Provider == "" {
		ad.Provider = ad.Publisher
	}
	w, err := st.s.Begin(ad)
	if err != nil {
		return err
	}
	defer w.Abort()
	if mhs := values(d, "mhs"); len(mhs) > 0 {
		var put []multihash.Multihash
		for _, mh := range mhs {
			put = append(put, storyMH(mh))
		}
		if err := w.Put(put); err != nil {
			return err
		}
	}
	e := content
	for flag, effect := range map[string]Effect{"meta": metadata, "rm": removal, "none": address,
		"rejected": {Verdict: Rejected, Reason: "bad"}, "superseded": {Verdict: Superseded},
		"skipped": {Kind: EffectMetadata, Verdict: SkippedFrozen}} {
		if d.HasArg(flag) {
			e = effect
		}
	}
	if d.HasArg("addrs") || d.HasArg("xp") {
		e.Provider = &ProviderUpdate{Addrs: values(d, "addrs"), Time: testTime}
		if d.HasArg("xp") {
			e.Provider.Extended = xp(values(d, "xp")...)
		}
	}
	if d.HasArg("abort") {
		return nil
	}
	_, err = w.Commit(e)
	return err
}

func (st *story) find(b *strings.Builder, mhs []string) error {
	for _, mh := range mhs {
		values, err := st.s.Find(storyMH(mh))
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "%s:", mh)
		for _, v := range values {
			fmt.Fprintf(b, " %s/%s=%s", string(v.Provider), v.ContextID, v.Metadata)
		}
		b.WriteString("\n")
	}
	return nil
}

func (st *story) progress(b *strings.Builder, pub peer.ID) {
	text := func(p Progress) string {
		name := func(refs []AdRef) (ns []string) {
			for _, r := range refs {
				ns = append(ns, st.names[r.Ad])
			}
			return ns
		}
		return fmt.Sprintf("mark %s applied %v pending %v", st.names[p.Mark.Ad], name(p.Applied), name(p.Holes))
	}
	applied, durable := text(st.s.Progress(pub)), text(st.s.DurableProgress(pub))
	fmt.Fprintln(b, applied)
	if durable != applied {
		fmt.Fprintf(b, "durable: %s\n", durable)
	}
}

func (st *story) states(b *strings.Builder, names []string) error {
	for _, name := range names {
		a, ok, err := st.s.AdState(st.ads[name].Ad)
		if err != nil {
			return err
		}
		if !ok {
			fmt.Fprintf(b, "%s: unknown\n", name)
			continue
		}
		fmt.Fprintf(b, "%s: %s %s@%d", name, a.Verdict, string(a.Publisher), a.Pos)
		if a.Reason != "" {
			fmt.Fprintf(b, " (%s)", a.Reason)
		}
		if !a.Durable {
			b.WriteString(", not durable")
		}
		b.WriteString("\n")
	}
	return nil
}

func (st *story) provider(b *strings.Builder, id peer.ID) error {
	p, ok, err := st.s.Provider(id)
	if err != nil || !ok {
		b.WriteString("unknown\n")
		return err
	}
	fmt.Fprintf(b, "addrs %v last %s by %s", p.Addrs, st.names[p.LastAd], string(p.Publisher))
	if p.FrozenAt.Defined() {
		fmt.Fprintf(b, " frozen at %s", st.names[p.FrozenAt])
	}
	if p.LastError != "" {
		fmt.Fprintf(b, " error %q", p.LastError)
	}
	b.WriteString("\n")
	list := func(set ExtendedSet) (ids []string) {
		for _, x := range set.Providers {
			ids = append(ids, string(x.ID))
		}
		return ids
	}
	if p.Extended != nil {
		fmt.Fprintf(b, "chain: %v\n", list(*p.Extended))
	}
	for _, c := range p.Contextual {
		fmt.Fprintf(b, "%s: %v\n", c.ContextID, list(c.ExtendedSet))
	}
	return nil
}

func (st *story) assign(d *datadriven.TestData, pub peer.ID) error {
	a := Assignment{Publisher: pub, Continued: peer.ID(value(d, "from")), Time: testTime}
	if name := value(d, "mark"); name != "" {
		ref := st.ads[name]
		return st.s.AssignWithMark(a, &ref, nil)
	}
	return st.s.Assign(a)
}
