package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/announce"
)

// announceTo announces head number n of a publisher.
func announceTo(t *testing.T, base string, publisher peer.ID, n uint64) error {
	return announce.NewSender(client).Send(t.Context(), base, announce.Announce{
		Head: floodHead(n),
		Publisher: peer.AddrInfo{ID: publisher, Addrs: []multiaddr.Multiaddr{
			multiaddr.StringCast("/dns4/publisher.example/tcp/443/https"),
		}},
	})
}

// TestKilledAssignerForwardsWhatItPromised: announces that were answered 204
// while no indexer took them reach their owner after kill -9 and a new start,
// the newest of each publisher.
func TestKilledAssignerForwardsWhatItPromised(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	var ids []peer.ID
	for i := range 20 {
		ids = append(ids, floodPeer(t, fmt.Sprint("publisher ", i)))
	}
	owner := startOwner(t, floodPeer(t, "owner"), ids)
	owner.setBusy(true)
	file := ownerPool(t, dir, owner)
	p := spawn(t, dir, "assigner", "assigner", "--listen", anyPort, "--listen-p2p", "none", "--listen-admin", anyPort, "--pool", file,
		"--journal", filepath.Join(dir, "journal"))
	base := p.ready().HTTP
	for n := range 5 {
		for _, id := range ids {
			if err := announceTo(t, base, id, uint64(n+1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.kill()
	owner.setBusy(false)
	p.launch()
	p.ready()
	eventually(t, "the owner has what was promised", func() error {
		for _, id := range ids {
			if got := owner.head(id); got != 5 {
				return fmt.Errorf("head %d of %s, want 5", got, id)
			}
		}
		return nil
	})
	p.kill()
	p.launch() // over a journal of delivered announces, twice torn
	p.ready()
}

// TestStandbyTakesOver: a second assigner does nothing while the first answers,
// takes its place when it is killed, and steps back when it returns.
func TestStandbyTakesOver(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	publisher := floodPeer(t, "publisher")
	owner := startOwner(t, floodPeer(t, "owner"), []peer.ID{publisher})
	file := ownerPool(t, dir, owner)
	first := spawn(t, dir, "first", "assigner", "--listen", freeAddr(t), "--listen-p2p", "none", "--listen-admin", anyPort, "--pool", file)
	firstURL := first.ready().HTTP
	second := spawn(t, dir, "second", "assigner", "--listen", anyPort, "--listen-p2p", "none", "--listen-admin", anyPort, "--pool", file,
		"--standby-for", firstURL)
	secondURL := second.ready().HTTP
	health := func(want string) error {
		a, err := get(secondURL+"/health", "")
		if err == nil && strings.TrimSpace(string(a.body)) != want {
			err = fmt.Errorf("health says %q, want %q", a.body, want)
		}
		return err
	}
	if err := health("assigner standing by"); err != nil {
		t.Error(err)
	}
	if err := announceTo(t, firstURL, publisher, 1); err != nil {
		t.Error(err)
	}
	err := announceTo(t, secondURL, publisher, 2)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint(http.StatusServiceUnavailable)) {
		t.Errorf("announce to the passive one: %v, want 503", err)
	}

	first.kill()
	eventually(t, "the second takes over", func() error { return health("assigner ready") })
	if err := announceTo(t, secondURL, publisher, 3); err != nil {
		t.Error(err)
	}
	if got := owner.head(publisher); got != 3 {
		t.Errorf("answered 204, and the owner has head %d, want 3", got)
	}
	first.launch()
	first.ready()
	eventually(t, "the second steps back", func() error { return health("assigner standing by") })
}
