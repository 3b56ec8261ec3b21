// Package netns opens network namespaces and identifies them and processes, so that a recycled
// pid or inode is never mistaken for the earlier one.
package netns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrExited is returned for a process that has ended, or that ended during the call.
var ErrExited = errors.New("process has exited")

// Process identifies one process among all of the same boot.
type Process struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot: proc_pid_stat(5), field 22
}

// Self returns the calling process.
func Self() (Process, error) { return FindProcess(os.Getpid()) }

// FindProcess returns the process that has the pid now. It returns ErrExited if there is
// none, or if it is a zombie.
func FindProcess(pid int) (Process, error) {
	st, err := readStat(pid)
	if err != nil {
		return Process{}, err
	}
	if st.exited {
		return Process{}, fmt.Errorf("process %d: %w", pid, ErrExited)
	}
	return Process{Pid: pid, Start: st.start}, nil
}

// Alive reports whether p still runs. A zombie, or another process with p's pid, is not p.
// If the kernel returns an error, Alive returns true, because the caller frees the
// process's address otherwise.
func Alive(p Process) bool {
	st, err := readStat(p.Pid)
	if err != nil {
		return !errors.Is(err, ErrExited)
	}
	return !st.exited && st.start == p.Start
}

type stat struct {
	exited bool
	start  uint64
}

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	// ESRCH: the process ended between open and read.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return stat{}, fmt.Errorf("process %d: %w", pid, ErrExited)
	}
	if err != nil {
		return stat{}, err
	}
	st, err := parseStat(text)
	if err != nil {
		return stat{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return st, nil
}

// parseStat parses proc_pid_stat(5). The second field is the program's name in parentheses.
// The process chooses it, and it may contain parentheses and spaces, so the other fields
// are read from the last ')' on.
func parseStat(text []byte) (stat, error) {
	end := bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[end+1:]))
	const first = 3 // the manual's number of fields[0]
	if end < 0 || len(fields) < 20 {
		return stat{}, errors.New("cannot parse its stat file")
	}
	start, err := strconv.ParseUint(fields[22-first], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("cannot parse its start time %q", fields[22-first])
	}
	switch fields[0] {
	// The state is that of the first thread. A container can end only that thread, to
	// appear dead and keep using its address after it is leased to another container.
	// So the process counts as running while other threads do.
	case "Z", "X", "x":
		return stat{exited: fields[20-first] == "0" || fields[20-first] == "1", start: start}, nil
	}
	return stat{start: start}, nil
}

// BootID returns the kernel's random id of this boot.
func BootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
