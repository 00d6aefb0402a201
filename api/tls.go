package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
)

// TLSConfig names the files of a daemon's TLS. All are read again when they change.
type TLSConfig struct {
	// Cert and Key are the certificate chain and its key, PEM: shown to clients by
	// listeners, and to servers that ask for one. Empty: none is.
	Cert, Key string
	// Roots are certificates, PEM, of authorities trusted besides the system's when
	// this process asks others.
	Roots string
	// Clients are certificates, PEM, of authorities whose clients are known by their
	// certificates at listeners that ask for one. Empty: nobody is.
	Clients string
	// Logger may be nil.
	Logger *slog.Logger
}

// TLS is what a TLSConfig's files say. A nil *TLS is none.
type TLS struct {
	cert    *Reloaded[*tls.Certificate] // nil: there is none
	roots   *Reloaded[*x509.CertPool]
	clients *Reloaded[*x509.CertPool]
}

// OpenTLS reads the files; nil if none is named.
func OpenTLS(cfg TLSConfig) (*TLS, error) {
	t := &TLS{}
	var err error
	switch {
	case cfg == TLSConfig{Logger: cfg.Logger}:
		return nil, nil
	case (cfg.Cert == "") != (cfg.Key == ""):
		return nil, errors.New("a certificate needs its key, and a key its certificate: name both files")
	case cfg.Clients != "" && cfg.Cert == "":
		return nil, errors.New("clients can show certificates on TLS only: name this server's certificate and key too")
	}
	if cfg.Cert != "" {
		t.cert, err = Reload("TLS certificate", cfg.Logger, func() (*tls.Certificate, error) {
			c, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
			return &c, err
		}, cfg.Cert, cfg.Key)
	}
	if err == nil && cfg.Roots != "" {
		t.roots, err = Reload("trusted authorities", cfg.Logger, func() (*x509.CertPool, error) {
			pool, err := x509.SystemCertPool()
			if err != nil {
				pool = x509.NewCertPool()
			}
			return pool, addCertificates(pool, cfg.Roots)
		}, cfg.Roots)
	}
	if err == nil && cfg.Clients != "" {
		t.clients, err = Reload("authorities of clients", cfg.Logger, func() (*x509.CertPool, error) {
			pool := x509.NewCertPool()
			return pool, addCertificates(pool, cfg.Clients)
		}, cfg.Clients)
	}
	if err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return t, nil
}

func addCertificates(pool *x509.CertPool, file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if !pool.AppendCertsFromPEM(b) {
		return fmt.Errorf("%s: no certificate in PEM", file)
	}
	return nil
}

// HasCert tells whether listeners can speak TLS.
func (t *TLS) HasCert() bool { return t != nil && t.cert != nil }

// KnowsClients tells whether clients can be known by certificates.
func (t *TLS) KnowsClients() bool { return t != nil && t.clients != nil }

// Listen is ln with TLS, if there is a certificate. With clients, those that show one are
// known by it; none has to. HTTP/1.1 only: lines are taken out of HTTP.
func (t *TLS) Listen(ln net.Listener, clients bool) net.Listener {
	if !t.HasCert() {
		return ln
	}
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return t.cert.Get(), nil },
	}
	if clients && t.clients != nil {
		cfg.ClientAuth = tls.VerifyClientCertIfGiven
		cfg.ClientCAs = t.clients.Get()
		base := cfg.Clone()
		cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			c := base.Clone()
			c.ClientCAs = t.clients.Get()
			return c, nil
		}
	}
	return secure{tls.NewListener(ln, cfg)}
}

// secure is a listener of ours that speaks TLS.
type secure struct{ net.Listener }

// IsTLS tells whether a listener is one that Listen has made.
func IsTLS(ln net.Listener) bool {
	_, ok := ln.(secure)
	return ok
}

// client is the part of t that counts when others are asked, as it is now.
func (t *TLS) client() *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if t == nil {
		return cfg
	}
	if t.cert != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return t.cert.Get(), nil }
	}
	if t.roots != nil {
		cfg.RootCAs = t.roots.Get()
	}
	return cfg
}

// dialer dials TLS with the authorities of the moment.
func (t *TLS) dialer(dial func(ctx context.Context, network, addr string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		cfg := t.client()
		cfg.ServerName = host
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		secured := tls.Client(conn, cfg)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return secured, nil
	}
}

// clientTLS is that of clients made by NewHTTPClient.
var clientTLS atomic.Pointer[TLS]

// UseTLS has clients that NewHTTPClient makes from now on trust t's authorities, and show
// its certificate. A process calls it once, when it starts.
func UseTLS(t *TLS) { clientTLS.Store(t) }
