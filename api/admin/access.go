package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"net/http"
	"strings"

	"github.com/signpost-index/signpost/api"
)

// Right is what the role of a caller lets it do.
type Right uint8

const (
	// MayLook is a viewer: GET and HEAD, but no profiles of the process.
	MayLook Right = 1 + iota
	// Operator may do everything.
	MayAct
)

func (r Right) String() string {
	if r == MayLook {
		return "viewer"
	}
	return "operator"
}

// Access says who gets in at an admin listener, and what for. The zero value lets in
// whom [api.GuardLocal] does, as operators, which is right for a loopback listener
// only; see CheckListen.
type Access struct {
	// Token is what operators carry as "Authorization: Bearer <token>". Empty: none.
	Token string
	// Callers are those of a file. They, or a token, are asked of everybody.
	Callers *Callers
	// Insecure lets everyone in. It is ignored if there is a token, or callers.
	Insecure bool
	// Audit hears what was done, and who was refused; it may be nil.
	Audit *Audit
}

// Protect lets requests to h pass as the admin API does: those that show a token, or a
// client's certificate, that is known (401 for others), viewers to look only (403).
// Without tokens and callers all if insecure, else those [api.GuardLocal] lets in.
// Bodies are limited to 1 MiB.
func Protect(h http.Handler, a Access) http.Handler {
	return a.guard(http.MaxBytesHandler(h, maxRequestBody))
}

func (a Access) guard(h http.Handler) http.Handler {
	switch {
	case a.Token != "" || a.Callers != nil:
		return a.authenticated(h)
	case a.Insecure:
		return a.Audit.heard(h, Caller{Name: "anybody", Right: MayAct})
	default:
		return api.GuardLocal(a.Audit.heard(h, Caller{Name: "local", Right: MayAct}))
	}
}

// authenticated lets known callers pass.
func (a Access) authenticated(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, ok := a.caller(r)
		switch {
		case !ok:
			w.Header().Set("WWW-Authenticate", `Bearer realm="signpost admin"`)
			a.Audit.refused(r, "", ErrUnauthorized)
			writeError(w, ErrUnauthorized)
		case caller.Right < needed(r):
			a.Audit.refused(r, caller.Name, ErrForbidden)
			writeError(w, ErrForbidden)
		default:
			r = r.WithContext(context.WithValue(r.Context(), rightKey{}, caller.Right))
			a.Audit.heard(h, caller).ServeHTTP(w, r)
		}
	})
}

type rightKey struct{}

// RightOf is what the caller of a request that Protect has let in may do.
func RightOf(r *http.Request) Right {
	if right, ok := r.Context().Value(rightKey{}).(Right); ok {
		return right
	}
	return MayAct // nobody was asked
}

// needed is the role it takes.
func needed(r *http.Request) Right {
	looks := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
	if looks && !strings.HasPrefix(r.URL.Path, "/debug/") {
		return MayLook
	}
	return MayAct
}

// caller is who asks.
func (a Access) caller(r *http.Request) (Caller, bool) {
	known := a.Callers.current()
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		if c, ok := known.byCertificate(r.TLS.VerifiedChains[0][0]); ok {
			return c, true
		}
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return Caller{}, false
	}
	got := sha256.Sum256([]byte(strings.TrimSpace(given)))
	if a.Token != "" {
		if want := sha256.Sum256([]byte(a.Token)); subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			return Caller{Name: "token", Right: MayAct}, true
		}
	}
	return known.byToken(got)
}

// Caller is one who is known at an admin listener.
type Caller struct {
	Name  string // for the audit log
	Right Right

	token [32]byte // hash of the token; zero: it has none
	cert  string   // a name in its certificate; "": it has none
}

type callers []Caller

// byToken compares with every token in the same time.
func (cs callers) byToken(got [32]byte) (found Caller, ok bool) {
	for _, c := range cs {
		if c.token != [32]byte{} && subtle.ConstantTimeCompare(got[:], c.token[:]) == 1 {
			found, ok = c, true
		}
	}
	return found, ok
}

func (cs callers) byCertificate(cert *x509.Certificate) (Caller, bool) {
	names := append([]string{cert.Subject.CommonName}, cert.DNSNames...)
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	for _, c := range cs {
		for _, name := range names {
			if c.cert != "" && c.cert == name {
				return c, true
			}
		}
	}
	return Caller{}, false
}
