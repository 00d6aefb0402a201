package admin

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// poolForm is what a line of a pool file looks like, nameForm and srvForm are
// the forms of a line that stands for all addresses of a name.
const (
	poolForm = "find=URL ingest=URL admin=URL [standby] [preset=PEERID,...] [token-file=FILE]"
	nameForm = "dns=NAME find-port=N ingest-port=N admin-port=N [standby] [preset=PEERID,...] [token-file=FILE]"
	srvForm  = "srv=NAME find-port=N ingest-port=N [admin-port=N] [standby] [preset=PEERID,...] [token-file=FILE]"
)

// maxNameBytes of a DNS name: RFC 1035, 2.3.4.
const maxNameBytes = 253

// PoolLine is one line of a pool file: a member, or the name of several, whose
// URLs are then empty. It is a value; its text form is the line.
type PoolLine struct {
	PoolMember
	// DNS is a name each of whose A and AAAA records is a member; SRV is a name
	// each of whose targets is one. At most one of them is set.
	DNS, SRV string
	// FindPort, IngestPort and AdminPort are those of every member of a name.
	// AdminPort 0, which only SRV allows, means the port of the SRV record.
	FindPort, IngestPort, AdminPort uint16
}

// Name is the name to resolve, or empty for a line with URLs.
func (l PoolLine) Name() string { return l.DNS + l.SRV }

// String is the line, in the one form all equal lines have.
func (l PoolLine) String() string {
	var fields []string
	add := func(key, value string) {
		if value != "" && value != "0" {
			fields = append(fields, key+"="+value)
		}
	}
	port := func(key string, n uint16) { add(key, strconv.Itoa(int(n))) }
	add("find", l.Find)
	add("ingest", l.Ingest)
	add("admin", l.Admin)
	add("dns", l.DNS)
	add("srv", l.SRV)
	port("find-port", l.FindPort)
	port("ingest-port", l.IngestPort)
	port("admin-port", l.AdminPort)
	if l.Standby {
		fields = append(fields, "standby")
	}
	var ids []string
	for _, id := range l.Preset {
		ids = append(ids, id.String())
	}
	add("preset", strings.Join(ids, ","))
	add("token-file", l.TokenFile)
	return strings.Join(fields, " ")
}

// MarshalText is String, for JSON.
func (l PoolLine) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText is ParsePoolLine.
func (l *PoolLine) UnmarshalText(text []byte) (err error) {
	*l, err = ParsePoolLine(string(text))
	return err
}

// ParsePoolLine reads one line of a pool, which has to name a member or several.
func ParsePoolLine(text string) (PoolLine, error) {
	if len(text) > maxPoolLine {
		return PoolLine{}, fmt.Errorf("longer than %d bytes", maxPoolLine)
	}
	if strings.ContainsAny(text, "\r\n") {
		return PoolLine{}, errors.New("want one line")
	}
	fields := lineFields(text)
	if len(fields) == 0 {
		return PoolLine{}, errors.New("no indexer: want " + poolForm)
	}
	return parseLine(fields)
}

func lineFields(text string) []string {
	text, _, _ = strings.Cut(text, "#")
	return strings.Fields(text)
}

// ParsePoolLines reads a pool, one indexer or name a line:
//
//	find=URL ingest=URL admin=URL [standby] [preset=PEERID,...] [token-file=FILE]
//	dns=NAME find-port=N ingest-port=N admin-port=N [standby] [preset=PEERID,...] [token-file=FILE]
//	srv=NAME find-port=N ingest-port=N [admin-port=N] [standby] [preset=PEERID,...] [token-file=FILE]
//
// in any order, with blanks between, "#" starting a comment, and http:// being
// understood where a URL has no scheme. No URL and no name may appear twice, and
// there must be a line. Errors name the line and what to write there.
func ParsePoolLines(r io.Reader) ([]PoolLine, error) {
	var all []PoolLine
	lineOf := make(map[string]int) // URL or name -> line
	limited := &io.LimitedReader{R: r, N: maxPoolBytes + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(nil, maxPoolLine)
	number := 0
	for lines.Scan() {
		number++
		fields := lineFields(lines.Text())
		if len(fields) == 0 {
			continue
		}
		l, err := parseLine(fields)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		for _, u := range l.unique() {
			if first, dup := lineOf[u]; dup {
				return nil, fmt.Errorf("line %d: %s is used in line %d already: each indexer has URLs of its own", number, u, first)
			}
			lineOf[u] = number
		}
		all = append(all, l)
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("line %d: longer than %d bytes", number+1, maxPoolLine)
	case err != nil:
		return nil, err
	case limited.N == 0:
		return nil, fmt.Errorf("more than %d bytes", maxPoolBytes)
	case len(all) == 0:
		return nil, errors.New("no indexer: add a line such as " + poolForm)
	}
	return all, nil
}

// unique is what no other line may have.
func (l PoolLine) unique() []string {
	if name := l.Name(); name != "" {
		return []string{name}
	}
	return []string{l.Find, l.Ingest, l.Admin}
}

// parseLine reads one line's fields.
func parseLine(fields []string) (l PoolLine, err error) {
	given := make(map[string]bool)
	for _, field := range fields {
		key, value, hasValue := strings.Cut(field, "=")
		if given[key] {
			return l, fmt.Errorf("%s is given twice", key)
		}
		given[key] = true
		if hasValue == (key == "standby") || (hasValue && value == "") {
			return l, fmt.Errorf("%q: want %s", field, poolForm)
		}
		if err := l.set(key, value); err != nil {
			return l, fmt.Errorf("%s: %w", key, err)
		}
	}
	return l, l.complete(given)
}

func (l *PoolLine) set(key, value string) (err error) {
	switch key {
	case "find":
		l.Find, err = poolURL(value)
	case "ingest":
		l.Ingest, err = poolURL(value)
	case "admin":
		l.Admin, err = poolURL(value)
	case "dns":
		l.DNS, err = dnsName(value)
	case "srv":
		l.SRV, err = dnsName(value)
	case "find-port":
		l.FindPort, err = port(value)
	case "ingest-port":
		l.IngestPort, err = port(value)
	case "admin-port":
		l.AdminPort, err = port(value)
	case "standby":
		l.Standby = true
	case "preset":
		l.Preset, err = presets(value)
	case "token-file":
		l.TokenFile = value
	default:
		err = fmt.Errorf("unknown word: want %s", poolForm)
	}
	return err
}

// complete holds the fields of a line against its form.
func (l *PoolLine) complete(given map[string]bool) error {
	urls, ports := []string{"find", "ingest", "admin"}, []string{"find-port", "ingest-port", "admin-port"}
	want, refuse, form, value := urls, ports, poolForm, "URL"
	switch {
	case l.DNS != "" && l.SRV != "":
		return fmt.Errorf("dns and srv in one line: want %s, or %s", nameForm, srvForm)
	case l.DNS != "":
		want, refuse, form, value = ports, urls, nameForm, "N"
	case l.SRV != "":
		want, refuse, form, value = ports[:2], urls, srvForm, "N"
	}
	for _, key := range refuse {
		if given[key] {
			return fmt.Errorf("%s does not go with the rest of the line: want %s", key, form)
		}
	}
	for _, key := range want {
		if !given[key] {
			return fmt.Errorf("no %s: add %s=%s", key, key, value)
		}
	}
	if l.Name() != "" && len(slices.Compact(slices.Sorted(slices.Values([]uint16{l.FindPort, l.IngestPort, l.AdminPort})))) < 3 {
		return errors.New("two ports are the same: each API of an indexer has a port of its own")
	}
	return nil
}

func port(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q: want a port from 1 to 65535", s)
	}
	return uint16(n), nil
}

// dnsName reads a name to look up, in lower case and without the dot at the end.
func dnsName(s string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	_, notIP := netip.ParseAddr(name)
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}
	if name == "" || len(name) > maxNameBytes || notIP == nil || strings.ContainsFunc(name, bad) || slices.Contains(strings.Split(name, "."), "") {
		return "", fmt.Errorf("%q: want a DNS name", s)
	}
	return name, nil
}
