package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/signpost-index/signpost/announce"
)

// syncsEnv makes this test binary become the program of that path, whose syncs
// somebody else lets pass.
const syncsEnv = "SIGNPOST_E2E_SYNCS"

func init() {
	if program := os.Getenv(syncsEnv); program != "" {
		fmt.Fprintln(os.Stderr, "cannot become", program, becomeWatched(program))
		os.Exit(1)
	}
}

// syncGate holds up what a process wants to have on disk, as a disk does that is
// busy or about to die: the kernel asks the test about each fsync (seccomp), and
// carries it out once it is let pass. It needs no privilege.
type syncGate struct {
	t      testing.TB
	shut   sync.Mutex // held while nothing passes
	open   func()     // ends that; it may be called again
	socket [2]int     // ours, and that of the process
	done   chan struct{}
	wg     sync.WaitGroup
}

// startGatedIndexer is startIndexer with a gate, which is open.
func startGatedIndexer(t testing.TB, dir, name string) (*indexer, *syncGate) {
	t.Helper()
	g := &syncGate{t: t, open: func() {}, done: make(chan struct{})}
	var err error
	if g.socket, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(g.socket[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience.Seconds())}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(g.done); g.wg.Wait() })
	ix := &indexer{dir: filepath.Join(dir, name)}
	ix.process = (&process{t: t, name: name, args: ix.flags(anyPort, anyPort, anyPort), stderr: filepath.Join(dir, name+".log"), prepare: g.prepare}).start()
	t.Cleanup(func() { g.open() }) // before it is told to stop
	ix.readyLine = ix.ready()
	return ix, g
}

// hang has syncs wait from now on.
func (g *syncGate) hang() {
	g.shut.Lock()
	g.open = sync.OnceFunc(g.shut.Unlock)
}

// prepare has a process that is about to start begin as this test binary, and
// waits for what it sends.
func (g *syncGate) prepare(cmd *exec.Cmd) {
	theirs := os.NewFile(uintptr(g.socket[1]), "socket")
	cmd.Env = append(cmd.Env, syncsEnv+"="+cmd.Path)
	cmd.Path = "/proc/self/exe"
	cmd.ExtraFiles = []*os.File{theirs}
	g.wg.Go(func() {
		defer unix.Close(g.socket[0])
		defer theirs.Close()
		oob := make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := unix.Recvmsg(g.socket[0], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
		if err == nil {
			var messages []unix.SocketControlMessage
			if messages, err = unix.ParseSocketControlMessage(oob[:n]); err == nil && len(messages) == 1 {
				var fds []int
				if fds, err = unix.ParseUnixRights(&messages[0]); err == nil {
					defer unix.Close(fds[0])
					err = g.serve(fds[0])
				}
			}
		}
		if err != nil {
			g.t.Errorf("gate of syncs: %v", err)
		}
	})
}

// seccompNotice and seccompReply are the kernel's struct seccomp_notif and
// seccomp_notif_resp.
type (
	seccompNotice struct {
		id         uint64
		pid, flags uint32
		call       [64]byte
	}
	seccompReply struct {
		id    uint64
		value int64
		err   int32
		flags uint32
	}
)

// serve lets syncs pass one after the other, until the process or the test ends.
func (g *syncGate) serve(fd int) error {
	for {
		select {
		case <-g.done:
			return nil
		default:
		}
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(ready, int(pollEvery/time.Millisecond)); n == 0 || err == unix.EINTR {
			continue
		} else if err != nil {
			return err
		}
		if ready[0].Revents&unix.POLLIN == 0 {
			return nil // the process has ended
		}
		var notice seccompNotice
		if err := control(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&notice)); err == unix.ENOENT || err == unix.EINTR {
			continue // a signal has come between, and it asks again
		} else if err != 0 {
			return err
		}
		g.shut.Lock()
		reply := seccompReply{id: notice.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		err := control(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&reply))
		g.shut.Unlock()
		if err != 0 && err != unix.ENOENT && err != unix.EINTR {
			return err
		}
	}
}

func control(fd int, request uintptr, arg unsafe.Pointer) syscall.Errno {
	_, _, err := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	return err
}

// becomeWatched has the kernel ask about syncs of this thread, hands over who is
// asked, and becomes the program. It returns only if that fails.
func becomeWatched(program string) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	ask := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // the number of the call
	calls := []uint32{unix.SYS_FSYNC, unix.SYS_FDATASYNC}
	for n, call := range calls {
		ask = append(ask, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jt: uint8(len(calls) - n)})
	}
	ask = append(ask,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	filter := unix.SockFprog{Len: uint16(len(ask)), Filter: &ask[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&filter)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	const socket = 3 // the first of ExtraFiles
	if err := unix.Sendmsg(socket, []byte{1}, unix.UnixRights(int(fd)), nil, 0); err != nil {
		return err
	}
	unix.CloseOnExec(socket)
	unix.CloseOnExec(int(fd))
	if err := os.Unsetenv(syncsEnv); err != nil {
		return err
	}
	return syscall.Exec(program, os.Args, os.Environ())
}

// TestAlertsWhenADiskHangs: what a node writes does not get onto its disk.
func TestAlertsWhenADiskHangs(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	ix, disk := startGatedIndexer(t, dir, "indexer")
	o := &observed{t: t, dir: dir, daemons: map[string]string{"indexer": ix.Admin}}
	c := newChain(t, "waits for the disk")
	c.add("before", multihashes("before", 10))
	c.announce(ix.Ingest)
	untilDone(t, ix.Ingest, c)
	o.untilHealthy()

	taken := make(chan error, 1)
	f := o.after(func() {
		disk.hang()
		c.add("after", multihashes("after", 10))
		a := c.announced()
		go func() { taken <- announce.NewSender(client).Send(t.Context(), ix.Ingest, a) }() // it is to be on disk first
	}, map[string]string{"indexer": "store-slow"})
	f.fires(t, dir, map[string][]string{"SignpostStoreSlow": {"indexer"}, "SignpostStoreFailed": nil})

	disk.open()
	if err := <-taken; err != nil {
		t.Error(err)
	}
	untilDone(t, ix.Ingest, c)
}
