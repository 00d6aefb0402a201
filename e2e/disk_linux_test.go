package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// diskEnv makes this test binary the keeper of a small disk: "SIZE DIR", of which
// DIR is where it is mounted.
const diskEnv = "SIGNPOST_E2E_DISK"

func init() {
	if spec := os.Getenv(diskEnv); spec != "" {
		os.Exit(keepDisk(spec))
	}
}

// smallDisk makes a file system of so many bytes, and returns its directory. A
// process of its own has mounted it, in name spaces of its own, which needs no
// privilege on most systems; others reach it by that process's root in /proc. The
// kernel drops it with the last process that uses it, however the test ends. dir
// is made, and a link in it is what is returned.
func smallDisk(t testing.TB, dir string, bytes int) string {
	t.Helper()
	at := filepath.Join(dir, "mounted") // stays empty, but for the keeper
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	var errs []error
	// Root in a container may be allowed one of these and not the other.
	for _, flags := range []uintptr{syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, syscall.CLONE_NEWNS} {
		keeper, err := startKeeper(t, flags, fmt.Sprintf("%d %s", bytes, at))
		if err == nil {
			link := filepath.Join(dir, "disk")
			if err := os.Symlink(filepath.Join("/proc", fmt.Sprint(keeper), "root", at), link); err != nil {
				t.Fatal(err)
			}
			return link
		}
		errs = append(errs, err)
	}
	t.Fatalf("no small disk can be mounted: %v\n"+
		"This test fills real disks. It needs user name spaces (sysctl user.max_user_namespaces above 0, and where they exist "+
		"kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0), or root with CAP_SYS_ADMIN; "+
		"in a container: --privileged, or --security-opt seccomp=unconfined.", errors.Join(errs...))
	return ""
}

// startKeeper returns the ID of a process that has mounted a disk.
func startKeeper(t testing.TB, flags uintptr, spec string) (pid int, err error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), diskEnv+"="+spec)
	attr := &syscall.SysProcAttr{Cloneflags: flags}
	if flags&syscall.CLONE_NEWUSER != 0 {
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	cmd.SysProcAttr = attr
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	stop := func() error { return errors.Join(in.Close(), cmd.Wait()) }
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "mounted\n" {
		return 0, errors.Join(fmt.Errorf("the keeper of the disk said %q", line), stop())
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("keeper of a disk: %v", err)
		}
	})
	return cmd.Process.Pid, nil
}

// keepDisk is the main function of a keeper: it ends when stdin does.
func keepDisk(spec string) int {
	size, dir, _ := strings.Cut(spec, " ")
	// What is mounted here must not spread to where it came from.
	err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	if err == nil {
		err = syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=0700,size="+size)
	}
	if err != nil {
		fmt.Println("mount:", err)
		return 1
	}
	fmt.Println("mounted")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// fileSystem is the size of a file system and what is free of it, bytes.
func fileSystem(t testing.TB, dir string) (size, free int64) {
	t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	return int64(s.Blocks) * s.Bsize, int64(s.Bavail) * s.Bsize
}
