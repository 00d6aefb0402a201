package api

import (
	"strings"
	"testing"
)

// TestTLSFilesThatMakeNoSenseAreRefused, with what to do; without any there is no TLS.
// What TLS does is shown on real processes, in package e2e.
func TestTLSFilesThatMakeNoSenseAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  TLSConfig
		says string
	}{
		"cert without key":   {TLSConfig{Cert: "a"}, "needs its key"},
		"key without cert":   {TLSConfig{Key: "a"}, "needs its key"},
		"clients without":    {TLSConfig{Clients: "a"}, "name this server's certificate"},
		"files not there":    {TLSConfig{Cert: "/nowhere/a", Key: "/nowhere/b"}, "/nowhere/a"},
		"roots not there":    {TLSConfig{Roots: "/nowhere/c"}, "/nowhere/c"},
		"roots that are not": {TLSConfig{Roots: "tls_test.go"}, "no certificate in PEM"},
	} {
		if _, err := OpenTLS(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want a text with %q", name, err, tc.says)
		}
	}
	none, err := OpenTLS(TLSConfig{})
	if none != nil || err != nil || none.HasCert() || none.KnowsClients() {
		t.Errorf("without files: %v, %v", none, err)
	}
}
