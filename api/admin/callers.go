package admin

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/signpost-index/signpost/api"
)

const (
	maxCallersBytes = 1 << 20
	maxCallers      = 1000
)

// Callers are those a file knows, read again when it changes. A nil *Callers knows
// nobody. The file is one token, which is an operator's, or has lines:
//
//	# role   name     how it is known
//	operator alice    token=5d0f…
//	operator assigner cert=assigner.example.com
//	viewer   grafana  token=77b1…
//
// A token has 16 characters or more, printable ASCII without blanks. A cert is the
// common name, or a DNS name or URI, in the certificate a client shows.
type Callers struct {
	file *api.Reloaded[callers]
}

// OpenCallers reads a file of callers. log may be nil.
func OpenCallers(path string, log *slog.Logger) (*Callers, error) {
	file, err := api.Reload("callers of the admin API", log, func() (callers, error) { return readCallers(path) }, path)
	if err != nil {
		return nil, err
	}
	return &Callers{file}, nil
}

// Reload reads the file again now.
func (c *Callers) Reload() error {
	if c == nil {
		return nil
	}
	return c.file.Now()
}

func (c *Callers) current() callers {
	if c == nil {
		return nil
	}
	return c.file.Get()
}

func readCallers(path string) (callers, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("token file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCallersBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("token file: %w", err)
	case len(b) > maxCallersBytes:
		return nil, fmt.Errorf("token file %s: more than %d bytes", path, maxCallersBytes)
	}
	text := strings.TrimSpace(string(b))
	if !strings.ContainsAny(text, " \t\n") {
		if err := checkToken(text); err != nil {
			return nil, fmt.Errorf("token file %s: %w", path, err)
		}
		return callers{{Name: "token", Right: MayAct, token: sha256.Sum256([]byte(text))}}, nil
	}
	cs, names := callers{}, map[string]bool{}
	for n, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		c, err := parseCaller(line)
		if err == nil && names[c.Name] {
			err = fmt.Errorf("%s is named twice", c.Name)
		}
		if err == nil && len(cs) == maxCallers {
			err = fmt.Errorf("more than %d callers", maxCallers)
		}
		if err != nil {
			return nil, fmt.Errorf("token file %s, line %d: %w", path, n+1, err)
		}
		names[c.Name] = true
		cs = append(cs, c)
	}
	if len(cs) == 0 {
		return nil, fmt.Errorf("token file %s: it names nobody", path)
	}
	return cs, nil
}

// parseCaller reads one line. Its errors never show a token.
func parseCaller(line string) (Caller, error) {
	fields := strings.Fields(line)
	if len(fields) != 3 {
		return Caller{}, fmt.Errorf("want: viewer or operator, a name, and token=TOKEN or cert=NAME")
	}
	c := Caller{Name: fields[1]}
	switch fields[0] {
	case "viewer":
		c.Right = MayLook
	case "operator":
		c.Right = MayAct
	default:
		return c, fmt.Errorf("role of %s: want viewer or operator", c.Name)
	}
	kind, value, _ := strings.Cut(fields[2], "=")
	switch kind {
	case "token":
		if err := checkToken(value); err != nil {
			return c, fmt.Errorf("token of %s: %w", c.Name, err)
		}
		c.token = sha256.Sum256([]byte(value))
	case "cert":
		if value == "" {
			return c, fmt.Errorf("certificate of %s: want a name that is in it", c.Name)
		}
		c.cert = value
	default:
		return c, fmt.Errorf("of %s: want token=TOKEN or cert=NAME", c.Name)
	}
	return c, nil
}

func checkToken(token string) error {
	switch {
	case len(token) < minToken:
		return fmt.Errorf("want at least %d characters; for example from: openssl rand -hex 32", minToken)
	case len(token) > maxTokenBytes || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("want one line of printable ASCII without blanks, at most %d characters", maxTokenBytes)
	}
	return nil
}
