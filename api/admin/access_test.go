package admin

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	actToken  = "act-0123456789abcdef"
	lookToken = "look-0123456789abcdef"
)

func callersFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "callers")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestRolesDecideWhatACallerMayDo: by token or certificate, for each method; nobody
// without.
func TestRolesDecideWhatACallerMayDo(t *testing.T) {
	callers, err := OpenCallers(callersFile(t, "# who\noperator alice token="+actToken+"\n\nviewer grafana token="+lookToken+" # dashboards\n"+
		"operator assigner cert=assigner.example\nviewer probe cert=spiffe://pool/probe\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	audit, err := OpenAudit("", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	h := Protect(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { asked++; w.WriteHeader(http.StatusAccepted) }), Access{Callers: callers, Audit: audit})
	probe, _ := url.Parse("spiffe://pool/probe")
	certs := map[string]*x509.Certificate{
		"cert of the assigner": {Subject: pkix.Name{CommonName: "assigner.example"}},
		"cert by DNS name":     {DNSNames: []string{"x", "assigner.example"}},
		"cert of the probe":    {URIs: []*url.URL{probe}},
		"cert of a stranger":   {Subject: pkix.Name{CommonName: "stranger"}, DNSNames: []string{""}},
	}
	const ok, no, who = http.StatusAccepted, http.StatusForbidden, http.StatusUnauthorized
	for name, want := range map[string][4]int{ // GET, HEAD, PUT, GET of profiles
		"":                       {who, who, who, who},
		"Bearer " + actToken:     {ok, ok, ok, ok},
		"bearer " + lookToken:    {ok, ok, no, no},
		"Basic " + actToken:      {who, who, who, who},
		"Bearer " + actToken[1:]: {who, who, who, who},
		"Bearer ":                {who, who, who, who},
		"cert of the assigner":   {ok, ok, ok, ok},
		"cert by DNS name":       {ok, ok, ok, ok},
		"cert of the probe":      {ok, ok, no, no},
		"cert of a stranger":     {who, who, who, who},
	} {
		for n, request := range []struct{ method, path string }{
			{http.MethodGet, "/x"}, {http.MethodHead, "/x"}, {http.MethodPut, "/x"}, {http.MethodGet, "/debug/pprof/heap"},
		} {
			r := httptest.NewRequest(request.method, request.path, nil)
			if cert := certs[name]; cert != nil {
				r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}, PeerCertificates: []*x509.Certificate{cert}}
			} else if name != "" {
				r.Header.Set("Authorization", name)
			}
			before, w := asked, httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != want[n] || (asked > before) != (want[n] == ok) {
				t.Errorf("%s %s by %q: %d, want %d", request.method, request.path, name, w.Code, want[n])
			}
		}
	}
	// A certificate that was shown and not verified is nothing.
	r := httptest.NewRequest(http.MethodGet, "/x", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{certs["cert of the assigner"]}}
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != who {
		t.Errorf("a certificate not verified: %d", w.Code)
	}
	for _, want := range []string{"caller=alice", "caller=assigner", "status=202", "refused", "caller=grafana"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the audit log lacks %q:\n%s", want, &log)
		}
	}
	for _, token := range []string{actToken, lookToken, actToken[1:]} {
		if strings.Contains(log.String(), token) {
			t.Error("a token is in the audit log")
		}
	}
}

// TestRefusalsDoNotFillTheAuditLog: strangers can make as many as they like.
func TestRefusalsDoNotFillTheAuditLog(t *testing.T) {
	var log strings.Builder
	audit, err := OpenAudit("", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	h := Protect(http.NotFoundHandler(), Access{Token: actToken, Audit: audit})
	for range 5000 {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPut, "/freeze", nil))
	}
	if n := strings.Count(log.String(), "\n"); n == 0 || n > 200 {
		t.Errorf("%d lines for 5000 refusals", n)
	}
}

// TestAWrongFileOfCallersIsRefused with its line and without what is secret in it.
func TestAWrongFileOfCallersIsRefused(t *testing.T) {
	for text, says := range map[string]string{
		"":                                  "at least 16",
		"short":                             "at least 16",
		"operator alice":                    "line 1: want",
		"operator alice token=short":        "token of alice",
		"operator alice secret=" + actToken: "token=TOKEN or cert=NAME",
		"root alice token=" + actToken:      "viewer or operator",
		"viewer a cert=":                    "certificate of a",
		"viewer a cert=x\nviewer a cert=y":  "line 2: a is named twice",
		"# nobody\n# at all":                "names nobody",
		"operator alice token=" + actToken + "\x01 ": "alice",
	} {
		_, err := OpenCallers(callersFile(t, text), nil)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), actToken) {
			t.Errorf("%q: %v, want a text with %q", text, err, says)
		}
	}
	if _, err := OpenCallers(callersFile(t, actToken+"\n"), nil); err != nil {
		t.Errorf("a file with one token: %v", err)
	}
}
