package store

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuSeconds is what this process has used so far, on all cores.
func cpuSeconds() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err) // cannot be: the arguments are right
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// procNumber reads the number after "name:" in a file of Linux's /proc, 0 if
// there is none.
func procNumber(file, name string) (n uint64) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+":"); ok {
			if _, err := fmt.Sscan(value, &n); err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// peakBytes is the most memory this process ever had, residentBytes what it
// has.
func peakBytes() uint64     { return procNumber("/proc/self/status", "VmHWM") << 10 }
func residentBytes() uint64 { return procNumber("/proc/self/status", "VmRSS") << 10 }

// ioWrittenBytes is what the kernel says this process has sent, or will send,
// to the disk, less what was truncated before it got there.
func ioWrittenBytes() uint64 {
	const file = "/proc/self/io"
	return procNumber(file, "write_bytes") - procNumber(file, "cancelled_write_bytes")
}

// machine describes where figures come from.
func machine() (s string) {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}
