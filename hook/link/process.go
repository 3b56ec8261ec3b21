package link

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

// Process tells one process from every other of the same boot.
type Process struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot: proc_pid_stat(5), field 22
}

// Self is the calling process.
func Self() (Process, error) { return FindProcess(os.Getpid()) }

// FindProcess is the process that has the pid now; ErrExited where none has, or
// a zombie.
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

// Alive says whether p still runs. A zombie, or another process with p's pid,
// does not count; where the kernel will not say, it counts as running, because
// what is asked next is whether to free its address.
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
	// ESRCH: it ended between the opening and the reading.
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

// parseStat reads proc_pid_stat(5). The second field is the program's name in
// parentheses, which the process itself chooses, parentheses and spaces
// included: what counts begins after the last ')'.
func parseStat(text []byte) (stat, error) {
	end := bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[end+1:]))
	const first = 3 // what the manual calls the first of them
	if end < 0 || len(fields) < 20 {
		return stat{}, errors.New("cannot make sense of its stat file")
	}
	start, err := strconv.ParseUint(fields[22-first], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("cannot make sense of its start time %q", fields[22-first])
	}
	switch fields[0] {
	// The state is the first thread's. A container can end that one alone to
	// look dead, and keep its address in use after it went to another: while
	// other threads live, the process does.
	case "Z", "X", "x":
		return stat{exited: fields[20-first] == "0" || fields[20-first] == "1", start: start}, nil
	}
	return stat{start: start}, nil
}

// BootID is the kernel's random id of this boot.
func BootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
