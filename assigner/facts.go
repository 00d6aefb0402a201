package assigner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// refreshFacts is how old facts may become that change all the time: how far
// publishers are, and how much comes of them. Roles are read when they change.
const refreshFacts = 15 * time.Second

// staleAfter is how long an indexer owns a publisher of which nothing comes
// until that is given up, unless an announce of it is kept: whoever makes up
// publishers must not fill the pool with them.
const staleAfter = time.Hour

// What an indexer says is taken within bounds: as many ranges as one of ours has
// at most, the newest, and a rate that no machine reaches.
const (
	maxRanges = 256
	maxRate   = 1e12 // multihashes a second
)

// client is what the assigner asks of a member. Of a foreign one all but
// admin.Indexer is answered with an error that is foreign.
type client interface {
	admin.Indexer
	admin.Node
	admin.RoleKeeper
	// Reindex and MarkWhole are those of admin.Operator.
	Reindex(ctx context.Context) (admin.Reindexed, error)
	MarkWhole(ctx context.Context, force bool) error
}

// facts are what one look at an indexer brought, or a pool map that other
// indexers kept. A value is replaced, never edited.
type facts struct {
	id        peer.ID
	plain     bool // it knows no roles
	frozen    bool
	heldUntil time.Time // it stays frozen until then at least; the zero time: it is not held
	usage     float64   // percent of its file system in use, -1 unknown
	node      admin.NodeStatus
	version   string                // of its roles
	roles     []admin.PublisherRole // by publisher
	index     map[peer.ID]int       // place in roles
	preferred []peer.ID             // ascending
	read      time.Time             // when roles and preferred were
}

// resting tells whether it is frozen for a short time only, to be maintained: it
// keeps what it owns, as one that is down does.
func (f *facts) resting(now time.Time, grace time.Duration) bool {
	return f.frozen && f.node.FrozenBy == admin.FrozenByMaintenance && now.Before(f.heldUntil.Add(grace))
}

// holdEnds is until when a node that was asked at a time is held at least, or when
// its hold ended, as far as that is known. It need not have been unfrozen by then.
func holdEnds(n admin.NodeStatus, old *facts, asked time.Time) (at time.Time) {
	switch {
	case n.Frozen && n.HeldSeconds > 0:
		return asked.Add(time.Duration(min(n.HeldSeconds, admin.MaxHold.Seconds()) * float64(time.Second)))
	case !n.Frozen || n.FrozenBy != admin.FrozenByMaintenance:
		return at
	case old != nil && old.id == n.ID && old.heldUntil.Before(asked) && !old.heldUntil.IsZero():
		return old.heldUntil
	}
	return asked
}

// foreign tells whether an error says that an indexer knows nothing of what was
// asked, as those of others.
func foreign(err error) bool {
	return errors.Is(err, admin.ErrNotSupported) || errors.Is(err, admin.ErrNotFound)
}

func (f *facts) setRoles(roles []admin.PublisherRole) {
	slices.SortStableFunc(roles, func(a, b admin.PublisherRole) int { return cmp.Compare(a.Publisher, b.Publisher) })
	f.roles = slices.CompactFunc(roles, func(a, b admin.PublisherRole) bool { return a.Publisher == b.Publisher })
	f.index = make(map[peer.ID]int, len(f.roles))
	for n := range f.roles {
		r := &f.roles[n]
		r.Ranges = r.Ranges[max(0, len(r.Ranges)-maxRanges):]
		r.LeansOn = r.LeansOn[:min(len(r.LeansOn), maxRanges)]
		r.MultihashesPerSecond = min(max(r.MultihashesPerSecond, 0), maxRate)
		r.RateWeight = min(max(r.RateWeight, 0), 1)
		f.index[r.Publisher] = n
	}
}

// role is what the indexer is to the publisher, or nil.
func (f *facts) role(publisher peer.ID) *admin.PublisherRole {
	n, ok := f.index[publisher]
	if !ok {
		return nil
	}
	return &f.roles[n]
}

// same reports whether f and g make the same plan, but for loads.
func (f *facts) same(g *facts) bool {
	return f.id == g.id && f.frozen == g.frozen && f.plain == g.plain && slices.Equal(f.preferred, g.preferred) &&
		slices.EqualFunc(f.roles, g.roles, func(a, b admin.PublisherRole) bool {
			return a.Publisher == b.Publisher && a.Role == b.Role && a.Continued == b.Continued &&
				a.Filling == b.Filling && slices.Equal(a.Ranges, b.Ranges) && slices.Equal(a.LeansOn, b.LeansOn)
		})
}

// held are the roles as Plan wants them.
func (f *facts) held(now time.Time) []Held {
	hs := make([]Held, 0, len(f.roles))
	for _, r := range f.roles {
		hs = append(hs, Held{
			Publisher: r.Publisher, Role: r.Role, Continued: r.Continued, Ranges: r.Ranges, LeansOn: r.LeansOn,
			Height: r.Height, Top: r.Top, Unsure: r.Unsure, Filling: r.Filling, Load: r.MultihashesPerSecond, Weight: r.RateWeight,
			Stale: !f.plain && r.Role == admin.RoleOwner && r.Mark == "" && r.Pending == 0 &&
				!r.Since.IsZero() && now.Sub(r.Since) > staleAfter,
		})
	}
	return hs
}

// room is how many bytes can be stored until the node freezes, -1 if it does
// not say.
func (f *facts) room() int64 {
	room := int64(-1)
	least := func(n float64) {
		if r := int64(max(n, 0)); room < 0 || r < room {
			room = r
		}
	}
	for _, d := range f.node.Disks {
		least(float64(d.FreeBytes) - float64(d.MinFreeBytes))
		if f.node.FreezePercent >= 0 {
			least(float64(d.TotalBytes)*f.node.FreezePercent/100 - float64(d.UsedBytes))
		}
	}
	if f.node.QuotaBytes > 0 {
		percent := 100.0
		if f.node.FreezePercent >= 0 {
			percent = f.node.FreezePercent
		}
		least(float64(f.node.QuotaBytes)*percent/100 - float64(f.node.StoredBytes))
	}
	return room
}

// read asks an indexer for its facts, within one call time-out for all. What old
// has and is still so is not asked for again.
func (a *Assigner) read(ctx context.Context, ix client, old *facts) (*facts, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.CallTimeout)
	defer cancel()
	f := new(facts)
	began := time.Now()
	node, err := ix.Node(ctx)
	switch {
	case foreign(err):
		return a.readPlain(ctx, ix)
	case err != nil:
		return nil, fmt.Errorf("read status: %w", err)
	}
	f.id, f.frozen, f.usage, f.node = node.ID, node.Frozen, node.Usage, node
	f.heldUntil = holdEnds(node, old, began)
	if err := f.id.Validate(); err != nil {
		return nil, fmt.Errorf("read status: indexer tells no identity: %w", err)
	}
	version := ""
	t, upgrading := a.tasks.active() // then how far publishers are counts now
	upgrading = upgrading && t.Kind == TaskUpgrade
	if !upgrading && old != nil && old.id == f.id && time.Since(old.read) < refreshFacts && old.frozen == f.frozen {
		version = old.version
	}
	roles, err := ix.Roles(ctx, version)
	switch {
	case foreign(err):
		return a.readPlain(ctx, ix)
	case err != nil:
		return nil, fmt.Errorf("read roles: %w", err)
	case roles == nil && version == "":
		return nil, errors.New("read roles: the indexer says they have not changed, but was not asked that")
	case roles == nil:
		f.version, f.roles, f.index, f.preferred, f.read = old.version, old.roles, old.index, old.preferred, old.read
		return f, nil
	}
	f.version, f.read = roles.Version, time.Now()
	f.setRoles(roles.Publishers)
	a.readPreferred(ctx, ix, f)
	return f, nil
}

// readPlain asks an indexer that knows no roles.
func (a *Assigner) readPlain(ctx context.Context, ix client) (*facts, error) {
	st, err := ix.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read status: %w", err)
	}
	if err := st.ID.Validate(); err != nil {
		return nil, fmt.Errorf("read status: indexer tells no identity: %w", err)
	}
	assigned, err := ix.Assigned(ctx)
	if err != nil {
		return nil, fmt.Errorf("read assignments: %w", err)
	}
	f := plainFacts(st, assigned)
	a.readPreferred(ctx, ix, f)
	return f, nil
}

// plainFacts are those of an indexer that knows no roles.
func plainFacts(st admin.Status, assigned []admin.Assignment) *facts {
	f := &facts{id: st.ID, plain: true, frozen: st.Frozen, usage: st.Usage, read: time.Now()}
	roles := make([]admin.PublisherRole, 0, len(assigned))
	for _, as := range assigned {
		roles = append(roles, admin.PublisherRole{Publisher: as.Publisher, Role: admin.RoleOwner, Continued: as.Continued})
	}
	f.setRoles(roles)
	return f
}

// readPreferred asks what an indexer has content of. It is only a preference:
// without it the plan is as correct.
func (a *Assigner) readPreferred(ctx context.Context, ix client, f *facts) {
	if f.frozen {
		return
	}
	preferred, err := ix.Preferred(ctx)
	if err != nil {
		a.metrics.preferredFailures.Inc()
		a.log.Debug("preferred publishers not read", "indexer", f.id, "err", err)
	}
	f.preferred = slices.Sorted(slices.Values(preferred))
}

// factsOf are what a pool map says of a member.
func factsOf(m admin.MappedMember) *facts {
	f := &facts{id: m.ID, frozen: m.Frozen, usage: -1}
	roles := make([]admin.PublisherRole, 0, len(m.Publishers))
	for _, p := range m.Publishers {
		roles = append(roles, admin.PublisherRole{Publisher: p.Publisher, Role: p.Role, Continued: p.Continued, Ranges: p.Ranges, LeansOn: p.LeansOn})
	}
	f.setRoles(roles)
	return f
}

// mapped is the opposite of factsOf.
func (f *facts) mapped(adminURL string) admin.MappedMember {
	m := admin.MappedMember{ID: f.id, Admin: adminURL, Frozen: f.frozen, Publishers: make([]admin.MappedPublisher, 0, len(f.roles))}
	for _, r := range f.roles {
		m.Publishers = append(m.Publishers, admin.MappedPublisher{Publisher: r.Publisher, Role: r.Role, Continued: r.Continued, Ranges: r.Ranges, LeansOn: r.LeansOn})
	}
	return m
}
