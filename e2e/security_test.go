package e2e

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// authority is a certificate authority of a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its certificate
	made int64
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir, file: filepath.Join(dir, name+".pem")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.key = key
	a.write(a.file, "CERTIFICATE", der)
	return a
}

func (a *authority) write(file, kind string, der []byte) {
	a.t.Helper()
	// Replaced in one step, as whoever renews certificates should.
	if err := os.WriteFile(file+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		a.t.Fatal(err)
	}
}

// issue makes a certificate, or a new one, for this machine and a name, and returns the
// flags that name its files.
func (a *authority) issue(name string) []string {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.made++
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1 + a.made), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, keyFile := filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key")
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(keyFile, "PRIVATE KEY", b)
	a.write(cert, "CERTIFICATE", der)
	return []string{"--tls-cert", cert, "--tls-key", keyFile}
}

// client trusts the authority, and shows the certificate of a name if one is given.
func (a *authority) client(name string) *http.Client {
	a.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	cfg := &tls.Config{RootCAs: pool}
	if name != "" {
		cert, err := tls.LoadX509KeyPair(filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key"))
		if err != nil {
			a.t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	tr := &http.Transport{TLSClientConfig: cfg}
	a.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

func ask(c *http.Client, method, url, token string) (status int, body string, err error) {
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

const (
	operatorToken = "operator-token-0123456789abcdef"
	viewerToken   = "viewer-token-0123456789abcdef01"
	lateToken     = "late-token-0123456789abcdef0123"
)

// securePool is a pool whose parts speak TLS with one another, and know one another by
// certificates.
type securePool struct {
	t        *testing.T
	dir      string
	ca       *authority
	callers  string // the file of who may do what
	indexers []*indexer
	assigner readyLine
	frontend readyLine
	procs    []*process
}

func startSecurePool(t *testing.T) *securePool {
	t.Helper()
	p := &securePool{t: t, dir: workDir(t)}
	p.ca = newAuthority(t, p.dir, "ca")
	p.callers = filepath.Join(p.dir, "callers")
	p.setCallers("operator assigner cert=assigner", "operator alice token="+operatorToken, "viewer grafana token="+viewerToken)
	secret := filepath.Join(p.dir, "secret")
	var lines []string
	for n := range 2 {
		name := fmt.Sprintf("indexer-%d", n+1)
		flags := append(p.ca.issue(name), "--assigned-only", "--tls-ca", p.ca.file, "--client-ca", p.ca.file, "--admin-token-file", p.callers,
			"--audit-log", filepath.Join(p.dir, name+".audit"), "--index-secret", secret, "--listen-metrics", anyPort)
		ix := startIndexer(t, p.dir, name, flags...)
		p.indexers, p.procs = append(p.indexers, ix), append(p.procs, ix.process)
		lines = append(lines, poolLine(ix))
	}
	file := writePoolLines(t, p.dir, lines...)
	as := spawn(t, p.dir, "assigner", append([]string{"assigner", "--listen", anyPort, "--pool", file, "--poll-interval", "200ms",
		"--listen-p2p", "none", "--listen-admin", anyPort, "--tls-ca", p.ca.file, "--client-ca", p.ca.file, "--admin-token-file", p.callers,
		"--listen-metrics", anyPort}, p.ca.issue("assigner")...)...)
	p.assigner = as.ready()
	fe := spawn(t, p.dir, "frontend", append([]string{"frontend", "--listen", anyPort, "--pool", file, "--tls-ca", p.ca.file, "--index-secret", secret,
		"--listen-metrics", anyPort}, p.ca.issue("frontend")...)...)
	p.frontend = fe.ready()
	p.procs = append(p.procs, as, fe)
	return p
}

func (p *securePool) setCallers(lines ...string) {
	p.t.Helper()
	if err := errors.Join(os.WriteFile(p.callers+".new", []byte(strings.Join(lines, "\n")+"\n"), 0o600), os.Rename(p.callers+".new", p.callers)); err != nil {
		p.t.Fatal(err)
	}
}

// listeners are all of the pool, by name.
func (p *securePool) listeners() map[string]string {
	all := map[string]string{
		"assigner": p.assigner.HTTP, "assigner admin": p.assigner.Admin, "assigner metrics": p.assigner.Metrics,
		"frontend": p.frontend.HTTP, "frontend metrics": p.frontend.Metrics,
	}
	for _, ix := range p.indexers {
		all[ix.name+" find"], all[ix.name+" ingest"], all[ix.name+" admin"], all[ix.name+" metrics"] = ix.Find, ix.Ingest, ix.Admin, ix.Metrics
	}
	return all
}

// TestASecurePool: a pool that speaks TLS everywhere works like another, lets in whom it
// knows for what they may do, and says who did what.
func TestASecurePool(t *testing.T) {
	t.Parallel()
	p := startSecurePool(t)
	for name, url := range p.listeners() {
		if !strings.HasPrefix(url, "https://") {
			t.Errorf("%s at %s", name, url)
		}
	}
	p.works()
	t.Run("who may do what", p.testRights)
	t.Run("certificates", p.testCertificates)
	t.Run("audit log", p.testAudit)
	t.Run("secrets", p.testSecrets)
}

// works publishes and finds, all over TLS.
func (p *securePool) works() {
	p.t.Helper()
	file := filepath.Join(p.dir, "content")
	if err := os.WriteFile(file, []byte("over TLS"), 0o600); err != nil {
		p.t.Fatal(err)
	}
	r := commandOK(p.t, "publish", "--data", filepath.Join(p.dir, "publisher"), "--listen", anyPort, "--announce", p.assigner.HTTP,
		"--find", p.frontend.HTTP, "--wait", "--json", "--tls-ca", p.ca.file, file)
	_, root, ok := strings.Cut(r.stdout, `"roots":["`)
	root, _, _ = strings.Cut(root, `"`)
	if !ok {
		p.t.Fatalf("no root in %s", r.stdout)
	}
	if r := commandOK(p.t, "find", root, "--find", p.frontend.HTTP, "--tls-ca", p.ca.file); !strings.Contains(r.stdout, "/tcp/") {
		p.t.Errorf("found %s", r.stdout)
	}
	eventually(p.t, "the frontend asks on a line", func() error {
		if _, _, err := ask(p.ca.client(""), http.MethodGet, p.frontend.HTTP+"/cid/"+root, ""); err != nil {
			return err
		}
		for _, ix := range p.indexers {
			_, body, err := ask(p.ca.client(""), http.MethodGet, ix.Metrics+"/metrics", "")
			if err != nil {
				return err
			}
			if n := metric(p.t, []byte(body), `signpost_find_request_seconds_count{endpoint="line"}`); n > 0 {
				return nil
			}
		}
		return errors.New("no indexer was asked on a line")
	})
}

func (p *securePool) testRights(t *testing.T) {
	c := p.ca.client("")
	for _, base := range []string{p.indexers[0].Admin, p.assigner.Admin} {
		look, act := "/status", "/freeze"
		if base == p.assigner.Admin {
			look, act = "/signpost/v1/pool", "/signpost/v1/rebalance"
		}
		for _, tc := range []struct {
			method, path, token string
			want                int
		}{
			{http.MethodGet, look, "", 401},
			{http.MethodGet, look, "wrong-token-0123456789", 401},
			{http.MethodPut, act, "", 401},
			{http.MethodGet, look, viewerToken, 200},
			{http.MethodPut, act, viewerToken, 403},
			{http.MethodDelete, act, viewerToken, 403},
			{http.MethodGet, "/debug/pprof/cmdline", viewerToken, 403},
			{http.MethodGet, look, operatorToken, 200},
		} {
			if status, body, err := ask(c, tc.method, base+tc.path, tc.token); err != nil || status != tc.want {
				t.Errorf("%s %s%s with %q: %d %s, %v; want %d", tc.method, base, tc.path, tc.token, status, body, err, tc.want)
			}
		}
	}
	if status, _, err := ask(c, http.MethodGet, p.indexers[0].Admin+"/debug/pprof/cmdline", operatorToken); err != nil || status != 200 {
		t.Errorf("profiles for an operator: %d, %v", status, err)
	}
	// Who is named later is let in without a restart, and who is not any more is not.
	p.setCallers("operator assigner cert=assigner", "operator bob token="+lateToken, "viewer grafana token="+viewerToken)
	for token, want := range map[string]int{lateToken: 200, operatorToken: 401} {
		eventually(t, "the file of callers is read again", func() error {
			if status, _, err := ask(c, http.MethodGet, p.indexers[0].Admin+"/status", token); err != nil || status != want {
				return fmt.Errorf("%d, %v; want %d", status, err, want)
			}
			return nil
		})
	}
}

func (p *securePool) testCertificates(t *testing.T) {
	p.ca.issue("stranger")
	other := newAuthority(t, t.TempDir(), "other")
	other.issue("assigner") // the right name, of another authority
	admin := p.indexers[0].Admin
	if status, _, err := ask(p.ca.client("assigner"), http.MethodGet, admin+"/status", ""); err != nil || status != 200 {
		t.Errorf("a certificate that is known: %d, %v", status, err)
	}
	if status, _, err := ask(p.ca.client("stranger"), http.MethodGet, admin+"/status", ""); err != nil || status != 401 {
		t.Errorf("a certificate nobody named: %d, %v", status, err)
	}
	forged := p.ca.client("")
	cert, err := tls.LoadX509KeyPair(filepath.Join(other.dir, "assigner.crt"), filepath.Join(other.dir, "assigner.key"))
	if err != nil {
		t.Fatal(err)
	}
	forged.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{cert}
	if status, _, err := ask(forged, http.MethodGet, admin+"/status", ""); err == nil && status != 401 {
		t.Errorf("a certificate of another authority: %d", status)
	}
	if _, _, err := ask(other.client(""), http.MethodGet, p.frontend.HTTP+"/health", ""); err == nil {
		t.Error("a client that trusts another authority is served")
	}
	if status, _, err := ask(&http.Client{}, http.MethodGet, strings.Replace(p.frontend.HTTP, "https", "http", 1)+"/health", ""); err == nil && status == 200 {
		t.Error("served without TLS")
	}
	// A new certificate is served without a restart.
	serial := func() (*big.Int, error) {
		pool := x509.NewCertPool()
		pool.AddCert(p.ca.cert)
		conn, err := tls.Dial("tcp", hostport(p.frontend.HTTP), &tls.Config{RootCAs: pool})
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber, nil
	}
	before, err := serial()
	if err != nil {
		t.Fatal(err)
	}
	p.ca.issue("frontend")
	eventually(t, "the new certificate is served", func() error {
		if now, err := serial(); err != nil || now.Cmp(before) == 0 {
			return fmt.Errorf("serial number %v, %v", now, err)
		}
		return nil
	})
}

func (p *securePool) testAudit(t *testing.T) {
	admin := p.indexers[1].Admin
	if status, body, err := ask(p.ca.client(""), http.MethodPut, admin+"/freeze", lateToken); err != nil || status != 200 {
		t.Fatalf("freeze: %d %s, %v", status, body, err)
	}
	b, err := os.ReadFile(filepath.Join(p.dir, "indexer-2.audit"))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, line := range bytes.Split(b, []byte("\n")) {
		found = found || bytes.Contains(line, []byte(`"caller":"bob"`)) && bytes.Contains(line, []byte(`"path":"/freeze"`)) && bytes.Contains(line, []byte(`"status":200`))
	}
	if !found {
		t.Errorf("the audit log does not say who froze the node:\n%s", b)
	}
	b, err = os.ReadFile(filepath.Join(p.dir, "indexer-1.audit"))
	if err != nil || !bytes.Contains(b, []byte("admin request refused")) || !bytes.Contains(b, []byte(`"caller":"grafana"`)) {
		t.Errorf("the audit log does not say who was refused: %v\n%s", err, b)
	}
}

// testSecrets: no token, no key and no index secret is in anything a daemon writes.
func (p *securePool) testSecrets(t *testing.T) {
	secrets := map[string][]byte{"operator's token": []byte(operatorToken), "viewer's token": []byte(viewerToken), "late token": []byte(lateToken)}
	for _, name := range []string{"indexer-1.key", "assigner.key", "frontend.key"} {
		b, err := os.ReadFile(filepath.Join(p.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		secrets[name] = bytes.Split(b, []byte("\n"))[1]
	}
	texts := map[string][]byte{}
	for _, proc := range p.procs {
		texts["log of "+proc.name] = []byte(proc.log())
	}
	for _, name := range []string{"indexer-1.audit", "indexer-2.audit"} {
		b, err := os.ReadFile(filepath.Join(p.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = b
	}
	texts["config show"] = []byte(commandOK(t, "config", "show", "indexer", "--data", p.dir, "--admin-token-file", p.callers,
		"--tls-cert", filepath.Join(p.dir, "frontend.crt"), "--tls-key", filepath.Join(p.dir, "frontend.key")).stdout)
	for where, text := range texts {
		for what, secret := range secrets {
			if bytes.Contains(text, secret) {
				t.Errorf("%s is in %s", what, where)
			}
		}
	}
}

// TestEveryListenerIsBounded: on every listener of a pool a request with an endless
// header is refused, one that comes slowly is let go in time, and of an endless body some
// megabytes are read, whatever is asked.
func TestEveryListenerIsBounded(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	ix := startIndexer(t, dir, "indexer", "--assigned-only", "--listen-metrics", anyPort)
	file := writePool(t, dir, ix)
	as := spawn(t, dir, "assigner", "assigner", "--listen", anyPort, "--pool", file, "--listen-p2p", "none", "--listen-admin", anyPort, "--listen-metrics", anyPort).ready()
	fe := spawn(t, dir, "frontend", "frontend", "--listen", anyPort, "--pool", file, "--listen-metrics", anyPort).ready()
	pub := freeAddr(t)
	spawn(t, dir, "publish", publishArgs(filepath.Join(dir, "pub"), pub, "none", "none")...).event("serving")
	all := map[string]string{
		"find": ix.Find, "ingest": ix.Ingest, "admin": ix.Admin, "metrics": ix.Metrics, "assigner": as.HTTP, "assigner admin": as.Admin,
		"assigner metrics": as.Metrics, "frontend": fe.HTTP, "frontend metrics": fe.Metrics, "publisher": "http://" + pub,
	}
	var wg sync.WaitGroup
	for name, url := range all {
		if url == "" {
			t.Errorf("%s: no address", name)
			continue
		}
		wg.Go(func() {
			if err := refusesEndlessHeader(hostport(url)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		wg.Go(func() {
			if err := letsSlowOnesGo(hostport(url)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		for _, request := range []string{"PUT /announce", "PUT /register", "POST /multihash", "POST /cid", "PUT /freeze", "PUT /signpost/v1/policy",
			"POST /signpost/v1/roles/open", "POST /signpost/v1/snapshot", "PUT /signpost/v1/pool/pin", "GET /metrics", "GET /"} {
			wg.Go(func() {
				if err := refusesEndlessBody(hostport(url), request); err != nil {
					t.Errorf("%s, %s: %v", name, request, err)
				}
			})
		}
	}
	wg.Wait()
}

func refusesEndlessHeader(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	go func() {
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n", addr)
		line := "X-Filler: " + strings.Repeat("a", 1000) + "\r\n"
		for range 200 {
			if _, err := io.WriteString(conn, line); err != nil {
				return // it was refused
			}
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil // the connection was cut off
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		return fmt.Errorf("a header of 200 KB: status %d", resp.StatusCode)
	}
	return nil
}

// mostBody is more than any body that is read, and what is on its way besides.
const mostBody = 24 << 20

// refusesEndlessBody sends a body without end.
func refusesEndlessBody(addr, request string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(io.Discard, conn)
	}()
	defer func() { conn.Close(); <-read }()
	if _, err := fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", request, addr); err != nil {
		return err
	}
	chunk := []byte(fmt.Sprintf("%x\r\n%s\r\n", 64<<10, bytes.Repeat([]byte{'['}, 64<<10)))
	for sent := 0; ; sent += len(chunk) {
		if sent > mostBody {
			return fmt.Errorf("%d bytes of a body were taken", sent)
		}
		if _, err := conn.Write(chunk); err != nil {
			return nil // it was cut off
		}
	}
}

// slowLimit is how long a header may take, and some more.
const slowLimit = 20 * time.Second

func letsSlowOnesGo(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nX-Slow: ", addr); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(slowLimit)); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, conn) // until it is let go
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("a header that does not end is waited for after %s", slowLimit)
	}
	return nil
}
