package deny

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/signpost-index/signpost/api"
	"github.com/signpost-index/signpost/api/find"
)

// limits bound a file.
type limits struct {
	bytes   int64
	entries int
}

var fileLimits = limits{bytes: 256 << 20, entries: 5_000_000}

const (
	maxLine      = 4 << 10
	maxReason    = 1000 // bytes; a client reads 1 KiB of a body
	maxContextID = 64   // IPNI.md, ContextID
	maxPeerText  = 256
	shownText    = 80 // of what is wrong, in an error
)

// errChanging: there is no telling what was read.
var errChanging = errors.New("the file was changed while it was read; read it again")

// readFile reads a list, and tells which file that was. The info is nil if there is
// no such file.
func readFile(name string) (*set, os.FileInfo, error) {
	// Not opened before it is known to be a file: opening a pipe waits.
	info, err := os.Stat(name)
	if err != nil {
		return nil, nil, fmt.Errorf("denylist: %w; make the file, an empty one denies nothing", err)
	}
	if !info.Mode().IsRegular() {
		return nil, info, fmt.Errorf("denylist %s: not a regular file; name a text file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, info, fmt.Errorf("denylist: %w; make it readable for this process", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, nil, fmt.Errorf("denylist: %w", err)
	}
	if info.Size() > fileLimits.bytes {
		return nil, info, fmt.Errorf("denylist %s%w", name, tooMuch(fileLimits))
	}
	s, err := parse(f, fileLimits)
	if after, statErr := f.Stat(); statErr != nil || !same(info, after) {
		return nil, info, fmt.Errorf("denylist %s: %w", name, errChanging)
	}
	if err != nil {
		return nil, info, fmt.Errorf("denylist %s%w", name, err)
	}
	return s, info, nil
}

// parser is a list being read.
type parser struct {
	set    *set
	limits limits
	places map[string]uint32 // of reasons
}

// parse reads a list. Its error begins with ":LINE: " or ": ".
func parse(r io.Reader, limits limits) (*set, error) {
	p := parser{set: &set{}, limits: limits, places: make(map[string]uint32)}
	for k := range p.set.entries {
		p.set.entries[k] = make(map[digest]uint32)
	}
	limited := &io.LimitedReader{R: r, N: limits.bytes + 1}
	hash := sha256.New()
	lines := bufio.NewScanner(io.TeeReader(limited, hash))
	lines.Buffer(make([]byte, 0, maxLine+2), maxLine+2)
	n := 0
	for lines.Scan() {
		line := lines.Bytes()
		if n++; n == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		if len(line) > maxLine {
			return nil, fmt.Errorf(":%d: %w", n, errLongLine)
		}
		if err := p.line(string(line)); err != nil && limited.N > 0 {
			return nil, fmt.Errorf(":%d: %w", n, err)
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf(":%d: %w", n+1, errLongLine)
	case err != nil:
		return nil, fmt.Errorf(":%d: %w", n+1, err)
	case limited.N == 0:
		return nil, tooMuch(limits)
	}
	p.set.sum = hex.EncodeToString(hash.Sum(nil))
	return p.set, nil
}

func tooMuch(l limits) error {
	return fmt.Errorf(": more than %d bytes; keep fewer entries, or shorter reasons", l.bytes)
}

var errLongLine = fmt.Errorf("longer than %d bytes; shorten the reason, or break the line", maxLine)

// line takes one line.
func (p *parser) line(line string) error {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return nil
	}
	word, rest := cutWord(line)
	if key, ok := strings.CutPrefix(word, "//"); ok { // as IPFS's compact denylists have it
		word, rest = string(find.DenyDoubleHash), key+" "+rest
	}
	key, rest := cutWord(rest)
	if key == "" {
		return fmt.Errorf("%s names nothing; %s", shown(word), wanted)
	}
	switch find.DenyKind(word) {
	case find.DenyMultihash, "cid":
		mh, err := find.ParseKey(key)
		if err != nil {
			return fmt.Errorf("%s is neither a CID nor a multihash in base58 or hex; correct or remove it", shown(key))
		}
		return p.add(ofMultihash, digestOf(mh), rest)
	case find.DenyDoubleHash:
		d, err := p.doubleHash(key)
		if err != nil {
			return err
		}
		return p.add(ofDoubleHash, d, rest)
	case find.DenyProvider:
		id, err := parsePeer(key)
		if err != nil {
			return err
		}
		return p.add(ofProvider, ofPeer(id), rest)
	case find.DenyContext:
		id, err := parsePeer(key)
		if err != nil {
			return err
		}
		text, rest := cutWord(rest)
		contextID, err := parseContextID(text)
		if err != nil {
			return err
		}
		return p.add(ofContext, ofPeerContext(id, contextID), rest)
	}
	return fmt.Errorf("%s is no kind of entry; %s", shown(word), wanted)
}

const wanted = "want multihash KEY, double-hash KEY, provider PEERID or context PEERID BASE64, and a reason if there is one"

// add takes an entry, unless it is there.
func (p *parser) add(k kind, d digest, reason string) error {
	if rest, ok := strings.CutPrefix(reason, "# "); ok {
		reason = rest
	}
	reason = api.PlainText(reason, 0)
	if len(reason) > maxReason {
		return fmt.Errorf("reason of %d bytes; shorten it to %d", len(reason), maxReason)
	}
	if _, twice := p.set.entries[k][d]; twice {
		return nil
	}
	if p.set.len() == p.limits.entries {
		return fmt.Errorf("more than %d entries; keep fewer", p.limits.entries)
	}
	place, known := p.places[reason]
	if !known {
		place = uint32(len(p.set.reasons))
		reason = strings.Clone(reason)
		p.places[reason] = place
		p.set.reasons = append(p.set.reasons, reason)
		p.set.texts += int64(len(reason))
	}
	p.set.entries[k][d] = place
	return nil
}

// doubleHash reads a double hash in one of its forms; see saltDoubleHash.
func (p *parser) doubleHash(text string) (d digest, err error) {
	if b, err := hex.DecodeString(text); err == nil && len(b) == sha256.Size {
		p.set.doubles.legacy = true
		return digest(b[:16]), nil
	}
	mh, err := find.ParseKey(text)
	if err != nil {
		return d, fmt.Errorf("%s is no double hash: want a multihash in base58 or hex, or 64 hex digits", shown(text))
	}
	decoded, err := multihash.Decode(mh)
	switch {
	case err != nil || decoded.Length != sha256.Size:
	case decoded.Code == multihash.DBL_SHA2_256:
		p.set.doubles.salted = true
		return digest(decoded.Digest[:16]), nil
	case decoded.Code == multihash.SHA2_256:
		p.set.doubles.base58 = true
		return digest(decoded.Digest[:16]), nil
	}
	return d, fmt.Errorf("%s is no double hash: want one of code dbl-sha2-256, or sha2-256, of 32 bytes; use multihash if it is that of the content", shown(text))
}

func parsePeer(text string) (peer.ID, error) {
	if len(text) <= maxPeerText {
		if id, err := peer.Decode(text); err == nil {
			return id, nil
		}
	}
	return "", fmt.Errorf("%s is no peer ID; want one such as 12D3KooW..., Qm... or a CID of a libp2p key", shown(text))
}

// parseContextID reads base64, standard or for URLs, padded or not.
func parseContextID(text string) ([]byte, error) {
	raw := strings.TrimRight(text, "=")
	b, err := base64.RawStdEncoding.DecodeString(raw)
	if err != nil {
		b, err = base64.RawURLEncoding.DecodeString(raw)
	}
	if err != nil || text == "" || len(b) > maxContextID {
		return nil, fmt.Errorf("%s is no context ID; want at most %d bytes in base64 after the peer ID", shown(text), maxContextID)
	}
	return b, nil
}

// cutWord is the first word of a line, and what follows.
func cutWord(s string) (word, rest string) {
	s = strings.TrimLeft(s, " \t")
	if n := strings.IndexAny(s, " \t"); n >= 0 {
		return s[:n], strings.TrimSpace(s[n:])
	}
	return s, ""
}

// shown is a word of a file as an error has it.
func shown(s string) string { return fmt.Sprintf("%q", api.PlainText(s, shownText)) }
