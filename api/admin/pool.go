package admin

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api"
)

// Limits of a pool file.
const (
	maxPoolBytes = 4 << 20
	maxPoolLine  = 64 << 10
)

// PoolMember is an indexer of a pool: the base URLs of its three APIs, without
// a slash at the end, and how the assigner is to treat it.
type PoolMember struct {
	Find, Ingest, Admin string
	// Standby members take over from frozen ones and get no new publishers.
	Standby bool
	// Preset publishers go to this member, and others that list them, only.
	Preset []peer.ID
	// TokenFile holds the token of the member's admin API; empty for none.
	TokenFile string
}

// ReadPoolLines reads the pool at path as ParsePoolLines does. A relative
// token-file is taken from the directory of the pool file.
func ReadPoolLines(path string) ([]PoolLine, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("pool file: %w", err)
	}
	defer f.Close()
	all, err := ParsePoolLines(f)
	if err != nil {
		return nil, fmt.Errorf("pool file %s: %w", path, err)
	}
	for i := range all {
		if m := &all[i].PoolMember; m.TokenFile != "" && !filepath.IsAbs(m.TokenFile) {
			m.TokenFile = filepath.Join(filepath.Dir(path), m.TokenFile)
		}
	}
	return all, nil
}

// poolURL reads a URL whose scheme may be missing.
func poolURL(s string) (string, error) {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := api.ParseBaseURL(s)
	if err != nil {
		return "", err
	}
	return normalized(u), nil
}

// normalized is u such that two texts of one URL are the same.
func normalized(u *url.URL) string {
	n := *u
	n.Host = strings.ToLower(n.Host)
	n.Path = strings.TrimRight(n.Path, "/")
	return n.String()
}

// presets reads a comma-separated list of peer IDs.
func presets(s string) ([]peer.ID, error) {
	var ids []peer.ID
	for text := range strings.SplitSeq(s, ",") {
		id, err := decodePeer(text)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
