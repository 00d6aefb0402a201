package assigner

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/admin"
)

func (a *Assigner) addMember(r *request) (Done, error) {
	body, err := api.ReadBody(r.Body, maxIntentsLine)
	if err != nil {
		return Done{}, fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
	}
	l, err := admin.ParsePoolLine(strings.TrimSpace(string(body)))
	if err != nil {
		return Done{}, fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
	}
	if err := a.addable(l); err != nil {
		return Done{}, err
	}
	if err := a.want(r, func(in Intents) (Intents, error) { return in.add(l) }); err != nil {
		return Done{}, err
	}
	return Done{Text: "added to the pool: " + l.String()}, a.inForce()
}

// inForce makes the members that are wanted the pool's. If that does not work, such
// as for want of another member's token, it is tried again every two seconds.
func (a *Assigner) inForce() error {
	if err := a.roster.update(); err != nil {
		return fmt.Errorf("%w: the wish is kept, and not in force yet: %w", admin.ErrUnavailable, err)
	}
	return nil
}

// addable says why a line cannot be added. A token file is sent to whom the line
// names, so it has to be one the pool file knows, or lie beside it.
func (a *Assigner) addable(l admin.PoolLine) error {
	if l.Name() == "" {
		if err := validateMembers([]admin.PoolMember{l.PoolMember}); err != nil {
			return fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
		}
		if m, ok := a.pool.find(l.Admin, ""); ok {
			return fmt.Errorf("%w: the indexer at %s is in the pool already", admin.ErrRefused, m.member.Admin)
		}
	} else if a.roster.hasName(l.Name()) {
		return fmt.Errorf("%w: %s is in the pool file already", admin.ErrRefused, l.Name())
	}
	if l.TokenFile == "" {
		return nil
	}
	file := a.cfg.Operating.PoolFile
	beside := file != "" && filepath.IsAbs(l.TokenFile) && filepath.Dir(l.TokenFile) == filepath.Dir(absolute(file))
	if !beside && !a.roster.namesTokenFile(l.TokenFile) {
		return fmt.Errorf("%w: token-file %s: give the whole path of a file that lies beside the pool file or is named in it", admin.ErrNotAllowed, l.TokenFile)
	}
	if a.cfg.ReadToken == nil {
		return fmt.Errorf("%w: token files are not configured", admin.ErrBadRequest)
	}
	if _, err := a.cfg.ReadToken(l.TokenFile); err != nil {
		return fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
	}
	return nil
}

func absolute(file string) string {
	if abs, err := filepath.Abs(file); err == nil {
		return abs
	}
	return file
}

func (a *Assigner) removeMember(r *request) (Done, error) {
	dry, err := r.dryRun()
	if err != nil {
		return Done{}, err
	}
	name := r.value("indexer")
	if slices.ContainsFunc(a.intents.Current().Added, func(l admin.PoolLine) bool { return l.Name() != "" && l.Name() == name }) {
		return a.removeName(r, name, dry)
	}
	m, err := a.member(name)
	if err != nil {
		return Done{DryRun: dry}, err
	}
	r.event.Indexer = m.id
	if err := a.removable(m); err != nil {
		return Done{DryRun: dry}, err
	}
	done := Done{Text: fmt.Sprintf("indexer %s at %s is removed from the pool", m.name(), m.member.Admin), DryRun: dry}
	if m.publishers > 0 {
		done.Note = fmt.Sprintf("it is down and had %d publishers, which others fetch from the beginning", m.publishers)
	}
	if dry {
		return done, nil
	}
	removal := Removal{Admin: m.member.Admin, Indexer: m.id, Wish: r.why()}
	elsewhere := a.roster.elsewhere(m.member.Admin)
	if err := a.want(r, func(in Intents) (Intents, error) { return in.remove(removal, elsewhere) }); err != nil {
		return Done{}, err
	}
	return done, a.inForce()
}

func (a *Assigner) removeName(r *request, name string, dry bool) (Done, error) {
	done := Done{Text: "members at " + name + " are removed from the pool", DryRun: dry}
	for _, m := range a.roster.membersOf(name) {
		if found, ok := a.pool.find(m.Admin, ""); ok {
			if err := a.removable(found); err != nil {
				return Done{DryRun: dry}, err
			}
		}
	}
	if dry {
		return done, nil
	}
	if err := a.want(r, func(in Intents) (Intents, error) { return in.removeName(name), nil }); err != nil {
		return Done{}, err
	}
	return done, a.inForce()
}

func (a *Assigner) drain(r *request) (Done, error) {
	m, err := a.knownMember(r.value("indexer"))
	if err != nil {
		return Done{}, err
	}
	r.event.Indexer = m.id
	err = a.want(r, func(in Intents) (Intents, error) { return in.drain(Drain{Indexer: m.id, Wish: r.why()}) })
	return Done{Text: fmt.Sprintf("indexer %s is drained of its %d publishers", m.name(), m.publishers)}, err
}

func (a *Assigner) undrain(r *request) (Done, error) {
	id, err := decodePeer(r.value("indexer"))
	if err != nil { // else it need not be in the pool any more
		m, err := a.knownMember(r.value("indexer"))
		if err != nil {
			return Done{}, err
		}
		id = m.id
	}
	r.event.Indexer = id
	err = a.want(r, func(in Intents) (Intents, error) { return in.undrain(id) })
	return Done{Text: fmt.Sprintf("indexer %s takes publishers again; what it gave away stays where it is", id)}, err
}

func (a *Assigner) freeze(r *request) (Done, error) {
	return a.callMember(r, "is frozen", func(ctx context.Context, ix admin.Indexer) error { return ix.Freeze(ctx) })
}

func (a *Assigner) unfreeze(r *request) (Done, error) {
	return a.callMember(r, "takes content again", func(ctx context.Context, ix admin.Indexer) error {
		n, ok := ix.(admin.Node)
		if !ok {
			return admin.ErrNotSupported
		}
		return n.Unfreeze(ctx)
	})
}

func (a *Assigner) callMember(r *request, done string, call func(context.Context, admin.Indexer) error) (Done, error) {
	m, err := a.member(r.value("indexer"))
	if err != nil {
		return Done{}, err
	}
	r.event.Indexer = m.id
	ctx, cancel := context.WithTimeout(r.Context(), memberTimeout)
	defer cancel()
	if err := call(ctx, m.indexer); err != nil {
		return Done{}, fmt.Errorf("indexer %s: %w", m.name(), err)
	}
	return Done{Text: fmt.Sprintf("indexer %s %s", m.name(), done)}, nil
}

func (a *Assigner) setReplication(r *request) (Done, error) {
	publisher, err := r.publisher()
	if err != nil {
		return Done{}, err
	}
	n, err := strconv.Atoi(r.value("copies"))
	if err != nil {
		return Done{}, fmt.Errorf("%w: copies=%q: want a number", admin.ErrBadRequest, r.value("copies"))
	}
	done := fmt.Sprintf("publisher %s is to have %d copies", publisher, n)
	if n == 0 {
		done = fmt.Sprintf("publisher %s is to have as many copies as the pool's setting says, %d", publisher, a.cfg.Replication)
	}
	return Done{Text: done}, a.want(r, func(in Intents) (Intents, error) { return in.setCopies(publisher, n) })
}

// pin binds a publisher to indexers. With from it moves one copy: it is bound to
// those it was bound to, or else to those that have it, with indexer for from.
func (a *Assigner) pin(r *request) (Done, error) {
	publisher, err := r.publisher()
	if err != nil {
		return Done{}, err
	}
	ids, err := a.pinned(r.value("indexer"))
	if err != nil {
		return Done{}, err
	}
	if from := r.value("from"); from != "" {
		return a.move(r, publisher, from, ids)
	}
	done := fmt.Sprintf("publisher %s goes to %s and to no other indexer", publisher, peerList(ids))
	if len(ids) == 0 {
		done = fmt.Sprintf("publisher %s goes wherever there is room", publisher)
	} else {
		r.event.Indexer = ids[0]
	}
	return Done{Text: done}, a.want(r, func(in Intents) (Intents, error) { return in.pin(publisher, ids) })
}

func (a *Assigner) pinned(list string) (ids []peer.ID, err error) {
	if list == "" {
		return nil, nil
	}
	for text := range strings.SplitSeq(list, ",") {
		if len(ids) == maxPinned {
			return nil, fmt.Errorf("%w: want at most %d indexers", admin.ErrBadRequest, maxPinned)
		}
		m, err := a.knownMember(text)
		if err != nil {
			return nil, err
		}
		ids = append(ids, m.id)
	}
	return ids, nil
}

func (a *Assigner) move(r *request, publisher peer.ID, fromText string, to []peer.ID) (Done, error) {
	from, err := a.knownMember(fromText)
	if err != nil {
		return Done{}, err
	}
	if len(to) != 1 || to[0] == from.id {
		return Done{}, fmt.Errorf("%w: a move has one indexer to go to, another one than it comes from", admin.ErrBadRequest)
	}
	r.event.Indexer, r.event.From = to[0], from.id
	owners := a.pool.ownersOf(publisher)
	err = a.want(r, func(in Intents) (Intents, error) {
		at := slices.Clone(in.PinnedTo(publisher))
		if at == nil {
			at = owners
		}
		i := slices.Index(at, from.id)
		if i < 0 {
			return in, fmt.Errorf("%w: indexer %s does not have publisher %s", admin.ErrNotFound, from.id, publisher)
		}
		at[i] = to[0]
		return in.pin(publisher, at)
	})
	return Done{Text: fmt.Sprintf("publisher %s moves from %s to %s, and stays bound to it", publisher, from.id, to[0])}, err
}

func (a *Assigner) setPolicy(r *request) (Done, error) {
	allow, deny := r.value("allow"), r.value("deny")
	if (allow == "") == (deny == "") {
		return Done{}, fmt.Errorf("%w: want allow or deny with a publisher's peer ID, or %q", admin.ErrBadRequest, allPublishers)
	}
	word := map[bool]string{true: "are taken", false: "are refused"}[deny == ""]
	if allow == allPublishers || deny == allPublishers {
		err := a.want(r, func(in Intents) (Intents, error) { return in.setDefault(deny == ""), nil })
		return Done{Text: "all publishers " + word + ", without exception"}, err
	}
	id, err := decodePeer(allow + deny)
	if err != nil {
		return Done{}, fmt.Errorf("%w: %w", admin.ErrBadRequest, err)
	}
	r.event.Publisher = id
	err = a.want(r, func(in Intents) (Intents, error) { return in.setAllowed(id, deny == "") })
	return Done{Text: fmt.Sprintf("announces of publisher %s %s", id, word)}, err
}

func (a *Assigner) setRebalance(r *request) (Done, error) {
	on, err := strconv.ParseBool(r.value("on"))
	if err != nil {
		return Done{}, fmt.Errorf("%w: on=%q: want true or false", admin.ErrBadRequest, r.value("on"))
	}
	done := "publishers are no longer moved to even out load"
	if on {
		done = "publishers are moved to even out load"
	}
	return Done{Text: done}, a.want(r, func(in Intents) (Intents, error) { return in.setRebalance(on), nil })
}
