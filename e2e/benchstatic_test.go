package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// staticEnv makes this test binary a server of two fixed answers.
const staticEnv = "SIGNPOST_E2E_STATIC"

// staticMiss is the path below which a static server gives its answer for what
// is not there; elsewhere it gives the other one.
const staticMiss = "/none/"

// staticAnswers are what a static server gives.
type staticAnswers struct{ Hit, Miss staticAnswer }

type staticAnswer struct {
	Status int
	Header http.Header
	Body   []byte
}

// asStatic is an answer as a static server can give it again. What net/http
// writes by itself it is left to write.
func asStatic(a answer) staticAnswer {
	h := a.header.Clone()
	h.Del("Date")
	h.Del("Content-Length")
	return staticAnswer{a.status, h, a.body}
}

// startStatic starts a process that does nothing but HTTP, with the least of a
// handler: what any server on net/http can reach. It returns its address and its
// process ID, and ends it with the test.
func startStatic(t *testing.T, answers staticAnswers) (addr string, pid int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), staticEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("static server: %v", err)
		}
	})
	if err := json.NewEncoder(in).Encode(answers); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("static server said %q: %v", line, err)
	}
	return strings.TrimSpace(line), cmd.Process.Pid
}

// serveStatic is the main function of a static server: it ends when stdin does.
func serveStatic() int {
	var answers staticAnswers
	in := json.NewDecoder(os.Stdin)
	if err := in.Decode(&answers); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ln, err := net.Listen("tcp", anyPort)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := &answers.Hit
		if strings.HasPrefix(r.URL.Path, staticMiss) {
			a = &answers.Miss
		}
		h := w.Header()
		for name, values := range a.Header {
			h[name] = values
		}
		w.WriteHeader(a.Status)
		_, _ = w.Write(a.Body) // a client that has left is no matter
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(ln) // ends with Close
	}()
	fmt.Println(ln.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	srv.Close()
	<-served
	return 0
}
