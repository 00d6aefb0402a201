package admin

import (
	"bufio"
	"errors"
	"fmt"
	"io"
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

// poolForm is what a line of a pool file looks like.
const poolForm = "find=URL ingest=URL admin=URL [standby] [preset=PEERID,...] [token-file=FILE]"

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

// ParsePool reads a pool, one indexer a line:
//
//	find=URL ingest=URL admin=URL [standby] [preset=PEERID,...] [token-file=FILE]
//
// in any order, with blanks between, "#" starting a comment, and http:// being
// understood where a URL has no scheme. No URL may appear twice, and there
// must be a member. Errors name the line and what to write there.
func ParsePool(r io.Reader) ([]PoolMember, error) {
	var members []PoolMember
	lineOf := make(map[string]int) // URL -> line
	limited := &io.LimitedReader{R: r, N: maxPoolBytes + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(nil, maxPoolLine)
	number := 0
	for lines.Scan() {
		number++
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		m, err := parseMember(fields)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		for _, u := range []string{m.Find, m.Ingest, m.Admin} {
			if first, dup := lineOf[u]; dup {
				return nil, fmt.Errorf("line %d: %s is used in line %d already: each indexer has URLs of its own", number, u, first)
			}
			lineOf[u] = number
		}
		members = append(members, m)
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("line %d: longer than %d bytes", number+1, maxPoolLine)
	case err != nil:
		return nil, err
	case limited.N == 0:
		return nil, fmt.Errorf("more than %d bytes", maxPoolBytes)
	case len(members) == 0:
		return nil, errors.New("no indexer: add a line such as " + poolForm)
	}
	return members, nil
}

// ReadPoolFile reads the pool at path. A relative token-file is taken from the
// directory of the pool file.
func ReadPoolFile(path string) ([]PoolMember, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("pool file: %w", err)
	}
	defer f.Close()
	members, err := ParsePool(f)
	if err != nil {
		return nil, fmt.Errorf("pool file %s: %w", path, err)
	}
	for i, m := range members {
		if m.TokenFile != "" && !filepath.IsAbs(m.TokenFile) {
			members[i].TokenFile = filepath.Join(filepath.Dir(path), m.TokenFile)
		}
	}
	return members, nil
}

// parseMember reads one line's fields.
func parseMember(fields []string) (m PoolMember, err error) {
	given := make(map[string]bool)
	for _, field := range fields {
		key, value, hasValue := strings.Cut(field, "=")
		if given[key] {
			return m, fmt.Errorf("%s is given twice", key)
		}
		given[key] = true
		if hasValue == (key == "standby") || (hasValue && value == "") {
			return m, fmt.Errorf("%q: want %s", field, poolForm)
		}
		switch key {
		case "find":
			m.Find, err = poolURL(value)
		case "ingest":
			m.Ingest, err = poolURL(value)
		case "admin":
			m.Admin, err = poolURL(value)
		case "standby":
			m.Standby = true
		case "preset":
			m.Preset, err = presets(value)
		case "token-file":
			m.TokenFile = value
		default:
			err = fmt.Errorf("unknown word: want %s", poolForm)
		}
		if err != nil {
			return m, fmt.Errorf("%s: %w", key, err)
		}
	}
	for _, key := range []string{"find", "ingest", "admin"} {
		if !given[key] {
			return m, fmt.Errorf("no %s: add %s=URL", key, key)
		}
	}
	return m, nil
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
