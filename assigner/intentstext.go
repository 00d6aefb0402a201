package assigner

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/api/admin"
)

// The intents file has a wish a line, for people to read:
//
//	# signpost intents 1
//	add find=http://10.0.0.3:3000 ingest=http://10.0.0.3:3001 admin=http://10.0.0.3:3002
//	remove admin=http://10.0.0.1:3002 indexer=12D3KooW... since=2026-11-27T03:10:00Z by="root" reason="disk is dying"
//	drain 12D3KooW... since=2026-11-27T03:00:00Z reason="disk is dying"
//	replication 12D3KooW... 3
//	pin 12D3KooW... 12D3KooW...,12D3KooW...
//	policy deny
//	except 12D3KooW...
//	rebalance off
//
// The first line is the version; other lines beginning with "#" mean nothing.
// Time is RFC 3339; texts are quoted as Go quotes them.
const (
	intentsVersion = "# signpost intents 1"
	intentsAbout   = "# What the operator of this pool asked for; written by the assigner. Edit it only while no assigner runs."
)

const (
	maxIntentsBytes = 16 << 20
	maxIntentsLine  = 64 << 10
)

// text is the file's content.
func (in Intents) text() []byte {
	var b bytes.Buffer
	line := func(words ...string) {
		words = slices.DeleteFunc(words, func(w string) bool { return w == "" })
		fmt.Fprintln(&b, strings.Join(words, " "))
	}
	line(intentsVersion)
	line(intentsAbout)
	for _, l := range in.Added {
		line("add", l.String())
	}
	for _, r := range in.Removed {
		words := []string{"remove"}
		if r.Admin != "" {
			words = append(words, "admin="+r.Admin)
		}
		if r.Indexer != "" {
			words = append(words, "indexer="+r.Indexer.String())
		}
		line(append(words, r.Wish.words()...)...)
	}
	for _, d := range in.Drains {
		words := []string{"drain", d.Indexer.String()}
		if d.Paused {
			words = append(words, "paused=true")
		}
		line(append(words, d.Wish.words()...)...)
	}
	for _, c := range in.Copies {
		line("replication", c.Publisher.String(), strconv.Itoa(c.Copies))
	}
	for _, p := range in.Pins {
		line("pin", p.Publisher.String(), peerList(p.Indexers))
	}
	if in.Policy.Deny {
		line("policy", "deny")
	}
	for _, id := range in.Policy.Except {
		line("except", id.String())
	}
	if in.NoRebalance {
		line("rebalance", "off")
	}
	return b.Bytes()
}

func (w Wish) words() []string {
	var words []string
	if !w.Since.IsZero() {
		words = append(words, "since="+w.Since.UTC().Format(time.RFC3339))
	}
	if w.By != "" {
		words = append(words, "by="+strconv.Quote(w.By))
	}
	if w.Reason != "" {
		words = append(words, "reason="+strconv.Quote(w.Reason))
	}
	return words
}

func peerList(ids []peer.ID) string {
	var texts []string
	for _, id := range ids {
		texts = append(texts, id.String())
	}
	return strings.Join(texts, ",")
}

// parseIntents reads what text wrote, or a person. The error names the line.
func parseIntents(r io.Reader) (in Intents, err error) {
	b, err := io.ReadAll(io.LimitReader(r, maxIntentsBytes+1))
	if err != nil {
		return in, err
	}
	if len(b) > maxIntentsBytes {
		return in, fmt.Errorf("more than %d bytes", maxIntentsBytes)
	}
	number := 0
	for text := range strings.Lines(string(b)) {
		number++
		text = strings.TrimSpace(text)
		switch {
		case number == 1 && text != intentsVersion:
			return Intents{}, fmt.Errorf("line 1: %.40q: want %q", text, intentsVersion)
		case len(text) > maxIntentsLine:
			return Intents{}, fmt.Errorf("line %d: longer than %d bytes", number, maxIntentsLine)
		case text == "" || text[0] == '#':
			continue
		}
		word, rest, _ := strings.Cut(text, " ")
		if in, err = in.read(word, strings.TrimSpace(rest)); err != nil {
			return Intents{}, fmt.Errorf("line %d: %s: %w", number, word, err)
		}
	}
	if number == 0 {
		return in, fmt.Errorf("it is empty: want at least the line %q", intentsVersion)
	}
	return in, nil
}

// read is in with the wish of one line.
func (in Intents) read(word, rest string) (Intents, error) {
	switch word {
	case "add":
		l, err := admin.ParsePoolLine(rest)
		if err != nil {
			return in, err
		}
		return in.add(l)
	case "remove":
		return in.readRemoval(rest)
	case "drain":
		id, rest, err := cutPeer(rest)
		if err != nil {
			return in, err
		}
		d := Drain{Indexer: id}
		err = d.Wish.read(rest, func(key, value string) (err error) {
			if key != "paused" {
				return fmt.Errorf("unknown word %q", key)
			}
			d.Paused, err = strconv.ParseBool(value)
			return err
		})
		if err != nil {
			return in, err
		}
		return in.drain(d)
	case "replication":
		id, rest, err := cutPeer(rest)
		if err != nil {
			return in, err
		}
		n, err := strconv.Atoi(rest)
		if err != nil || n == 0 {
			return in, fmt.Errorf("%q: want a number from 1 to %d", rest, maxCopies)
		}
		return in.setCopies(id, n)
	case "pin":
		id, rest, err := cutPeer(rest)
		if err != nil {
			return in, err
		}
		ids, err := decodePeers(rest)
		if err != nil {
			return in, err
		}
		return in.pin(id, ids)
	case "except":
		id, rest, err := cutPeer(rest)
		if err != nil || rest != "" {
			return in, errors.Join(err, errors.New("want one peer ID"))
		}
		return in.setAllowed(id, in.Policy.Deny)
	case "policy", "rebalance":
		return in.readSwitch(word, rest)
	}
	return in, errors.New("unknown word: want add, remove, drain, replication, pin, policy, except or rebalance")
}

func (in Intents) readSwitch(word, rest string) (Intents, error) {
	switch word + " " + rest {
	case "policy allow", "policy deny":
		if len(in.Policy.Except) > 0 {
			return in, errors.New("it has to come before its exceptions")
		}
		return in.setDefault(rest == "allow"), nil
	case "rebalance on", "rebalance off":
		return in.setRebalance(rest == "on"), nil
	}
	return in, fmt.Errorf("%q: want allow or deny for policy, on or off for rebalance", rest)
}

func (in Intents) readRemoval(rest string) (Intents, error) {
	var r Removal
	err := r.Wish.read(rest, func(key, value string) (err error) {
		switch key {
		case "admin":
			r.Admin = value
		case "indexer":
			r.Indexer, err = decodePeer(value)
		default:
			err = fmt.Errorf("unknown word %q", key)
		}
		return err
	})
	if err != nil {
		return in, err
	}
	return in.remove(r, true)
}

// read takes key=value words; those that are not a wish's go to other.
func (w *Wish) read(rest string, other func(key, value string) error) error {
	for rest != "" {
		key, tail, ok := strings.Cut(rest, "=")
		if !ok {
			return fmt.Errorf("%q: want key=value", rest)
		}
		value := tail
		if quoted, err := strconv.QuotedPrefix(tail); err == nil {
			if value, err = strconv.Unquote(quoted); err != nil {
				return err
			}
			rest = strings.TrimSpace(tail[len(quoted):])
		} else {
			value, rest, _ = strings.Cut(tail, " ")
			rest = strings.TrimSpace(rest)
		}
		if err := w.set(key, value, other); err != nil {
			return err
		}
	}
	return nil
}

func (w *Wish) set(key, value string, other func(key, value string) error) (err error) {
	switch {
	case key == "since":
		w.Since, err = time.Parse(time.RFC3339, value)
	case key == "by":
		w.By = value
	case key == "reason":
		w.Reason = value
	case other != nil:
		err = other(key, value)
	default:
		err = fmt.Errorf("unknown word %q", key)
	}
	return err
}

// cutPeer reads the peer ID at the beginning of a text.
func cutPeer(s string) (peer.ID, string, error) {
	text, rest, _ := strings.Cut(s, " ")
	id, err := decodePeer(text)
	return id, strings.TrimSpace(rest), err
}

// maxPeerText bounds the text of a peer ID, as base58 takes time in the square of
// its length.
const maxPeerText = 512

func decodePeer(s string) (peer.ID, error) {
	if len(s) > maxPeerText {
		return "", errors.New("a peer ID is shorter")
	}
	id, err := peer.Decode(s)
	if err != nil {
		return "", fmt.Errorf("%q: want a peer ID: %w", s, err)
	}
	return id, nil
}

func decodePeers(s string) ([]peer.ID, error) {
	var ids []peer.ID
	for text := range strings.SplitSeq(s, ",") {
		if len(ids) == maxPinned {
			return nil, fmt.Errorf("want at most %d peer IDs", maxPinned)
		}
		id, err := decodePeer(text)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}
