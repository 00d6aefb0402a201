package ipnisync

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
)

// Problem is the kind of what is wrong with an address, for programs; the text
// beside it is for people.
type Problem string

// What a probe may find, in the order in which it would come upon it.
const (
	ProblemAddress        Problem = "address"           // not one that can be dialled
	ProblemUnknownHost    Problem = "unknown-host"      // the name does not resolve
	ProblemPrivate        Problem = "private-address"   // not on the public Internet
	ProblemRefused        Problem = "refused"           // nobody listens on the port
	ProblemTimeout        Problem = "timeout"           // no connection, or no answer in time
	ProblemUnreachable    Problem = "unreachable"       // no connection for another reason
	ProblemTLS            Problem = "tls"               // certificate or handshake
	ProblemNotHTTP        Problem = "not-http"          // something else is spoken there
	ProblemNoStreamHTTP   Problem = "no-stream-http"    // libp2p without this protocol
	ProblemRedirects      Problem = "redirects"         // too many, or away from a stream
	ProblemNotFound       Problem = "not-found"         // 404 or 403 at both forms of the path
	ProblemStatus         Problem = "status"            // any other status
	ProblemStalled        Problem = "stalled"           // the answer came too slowly
	ProblemTooLarge       Problem = "too-large"         // the answer is longer than allowed
	ProblemEmpty          Problem = "empty"             // the chain has no head
	ProblemHead           Problem = "bad-head"          // not a signed head
	ProblemOtherKey       Problem = "other-key"         // head or peer of another identity
	ProblemHeadSignature  Problem = "head-signature"    // of the head
	ProblemAdMissing      Problem = "ad-missing"        // 404 for the newest advertisement
	ProblemAdHash         Problem = "ad-hash"           // its bytes are others
	ProblemAd             Problem = "bad-ad"            // it cannot be read or is not valid
	ProblemAdSignature    Problem = "ad-signature"      // of the advertisement
	ProblemNotProvider    Problem = "not-provider"      // signer, publisher and provider differ
	ProblemEntriesMissing Problem = "entries-missing"   // 404 for the first block of entries
	ProblemEntries        Problem = "bad-entries"       // it cannot be read
	ProblemOther          Problem = "connection-failed" // the connection broke
)

// signerError is part of an ErrBadHead: the key is another's.
type signerError struct{ signer peer.ID }

func (e *signerError) Error() string { return "signed by " + e.signer.String() }

func statusOf(err error) int {
	var status *StatusError
	if errors.As(err, &status) {
		return status.Code
	}
	return 0
}

// failed says why what could not be fetched.
func (p *probe) failed(what string, e *endpoint, err error) {
	var mismatch sec.ErrPeerIDMismatch
	host, port := hostPort(e.address())
	switch {
	case statusOf(err) != 0:
		p.status(what, err)
	case errors.Is(err, errNoStreamHTTP):
		p.fail(ProblemNoStreamHTTP, "%s", noStreamHTTPText(err))
	case errors.Is(err, ErrPrivateAddress):
		p.fail(ProblemPrivate, "the address, or where its name or a redirect leads, is not on the public Internet; announce a public one")
	case errors.As(err, &mismatch):
		p.fail(ProblemOtherKey, "peer %s answers there, but %s was announced: the address is another's, or the peer ID is wrong", mismatch.Actual, p.id)
	case isNoSuchHost(err), isUnresolved(e.address(), err):
		p.fail(ProblemUnknownHost, "the name %s does not resolve; is it spelt right, and in the public DNS?", host)
	case isTLS(err):
		p.fail(ProblemTLS, "%s", tlsText(host, err))
	case errors.Is(err, syscall.ECONNREFUSED):
		p.fail(ProblemRefused, "%s refuses connections to port %s: is the publisher running, and does it listen on that address?", host, port)
	case errors.Is(err, ErrStalled):
		p.fail(ProblemStalled, "%s came too slowly: %v", what, err)
	case errors.Is(err, ErrTooLarge):
		p.fail(ProblemTooLarge, "%s is too large: %v", what, err)
	case errors.Is(err, ErrTimeout):
		p.fail(ProblemTimeout, "the connection stands, but no answer came for %s: %v", what, err)
	case errors.Is(err, errRedirects):
		p.fail(ProblemRedirects, "%v", err)
	case errors.Is(err, context.DeadlineExceeded) && e.pace.isKnown():
		p.fail(ProblemTimeout, "%s did not come before the end of the probe's %v", what, probeTimeout)
	case isTimeout(err), errors.Is(err, context.DeadlineExceeded):
		p.fail(ProblemTimeout, "%s does not answer on port %s: is that port open in the firewall and forwarded to the publisher?", host, port)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		p.fail(ProblemUnreachable, "there is no way to %s: %v", host, err)
	case strings.Contains(err.Error(), "malformed HTTP"), strings.Contains(err.Error(), spokeFirst):
		p.fail(ProblemNotHTTP, "%s", notHTTPText(err))
	case errors.Is(err, errImplausible):
		p.fail(ProblemHead, "what is served as %s is something else: %v", what, err)
	default:
		p.fail(ProblemOther, "%s could not be fetched: %v", what, err)
	}
}

func (p *probe) status(what string, err error) {
	code := statusOf(err)
	hint := "look into its log"
	switch {
	case code == http.StatusBadRequest:
		hint = "is the path part of the address right, and does the server expect https?"
	case code == http.StatusForbidden, code == http.StatusUnauthorized:
		hint = "indexers come without credentials: let everybody read"
	case code == http.StatusTooManyRequests:
		hint = "indexers are held back by its rate limit"
	}
	p.fail(ProblemStatus, "asked for %s the server answers %d %s: %s", what, code, http.StatusText(code), hint)
}

// hostPort are the parts of an address that a person has to look after.
func hostPort(a multiaddr.Multiaddr) (host, port string) {
	host, port = "the host", "of the address"
	for i := range a {
		switch a[i].Code() {
		case multiaddr.P_IP4, multiaddr.P_IP6, multiaddr.P_DNS, multiaddr.P_DNS4, multiaddr.P_DNS6, multiaddr.P_DNSADDR:
			host = a[i].Value()
		case multiaddr.P_TCP, multiaddr.P_UDP:
			port = a[i].Value() + "/" + a[i].Protocol().Name
		case multiaddr.P_HTTP:
			port = orElse(port, "80/tcp")
		case multiaddr.P_HTTPS:
			port = orElse(port, "443/tcp")
		}
	}
	return host, port
}

func orElse(port, standard string) string {
	if port == "of the address" {
		return standard
	}
	return port
}

// isUnresolved reports whether libp2p found nothing behind a name.
func isUnresolved(a multiaddr.Multiaddr, err error) bool {
	return !startsWithIP(a) && (errors.Is(err, swarm.ErrNoAddresses) || errors.Is(err, swarm.ErrNoGoodAddresses))
}

// tlsText says what is wrong with a certificate, and what names it has.
func tlsText(host string, err error) string {
	if errors.Is(err, http.ErrSchemeMismatch) {
		return "the address says https, but plain HTTP is spoken on that port"
	}
	var cert *tls.CertificateVerificationError
	if !errors.As(err, &cert) || len(cert.UnverifiedCertificates) == 0 {
		return fmt.Sprintf("no TLS connection: %v", err)
	}
	leaf := cert.UnverifiedCertificates[0]
	var name x509.HostnameError
	if errors.As(err, &name) {
		return fmt.Sprintf("the certificate is not for %s: it has %s", host, certNames(leaf))
	}
	var authority x509.UnknownAuthorityError
	if errors.As(err, &authority) {
		return fmt.Sprintf("the certificate (%s) is not from an authority that everybody knows: %v", certNames(leaf), cert.Err)
	}
	return fmt.Sprintf("the certificate (%s, valid from %s to %s) is not accepted: %v", certNames(leaf),
		leaf.NotBefore.UTC().Format("2006-01-02"), leaf.NotAfter.UTC().Format("2006-01-02"), cert.Err)
}

// certNames lists the first names of a certificate.
func certNames(c *x509.Certificate) string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no names"
	}
	const most = 5
	text := fmt.Sprintf("%q", names[:min(len(names), most)])
	if len(names) > most {
		text += fmt.Sprintf(" and %d more", len(names)-most)
	}
	return text
}

// noStreamHTTPText tells a publisher without the protocol from one that does not
// say where it is.
func noStreamHTTPText(err error) string {
	if errors.Is(err, multistream.ErrNotSupported[protocol.ID]{}) {
		return "the peer is there, but it does not serve HTTP over libp2p streams (" + streamProtocolName +
			"); data-transfer, the older protocol, is not supported: let the publisher serve HTTP"
	}
	return fmt.Sprintf("the peer is there, but it does not say where it serves %s: %v", Path, err)
}

// spokeFirst is in the error that net/http has for a server that sends before it
// is asked; there is no better way to tell.
const spokeFirst = "readLoopPeekFailLocked"

// notHTTPText knows what libp2p says first.
func notHTTPText(err error) string {
	switch text := err.Error(); {
	case strings.Contains(text, "/multistream/"):
		return "the address says http, but libp2p is spoken on that port: announce it without /http"
	case strings.Contains(text, spokeFirst):
		return "the address says http, but who listens on that port speaks first, as libp2p does: if it is that, announce it without /http"
	}
	return fmt.Sprintf("what is spoken on that port is not HTTP: %v; does the server expect https?", err)
}
