package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A sample is the cost of one process, from before its start until it was reaped.
type sample struct {
	wall time.Duration
	cpu  time.Duration // user and system
}

// invocation is a program to run, and its standard input.
type invocation struct {
	path  string
	args  []string // without the program's name
	env   []string // the whole environment apart from PATH
	stdin []byte
	uid   uint32 // the user that runs it
}

// command prepares the process. Its standard streams are files, so that no copying goroutine is
// measured; the output is kept for the error.
func (v invocation) command() (cmd *exec.Cmd, output *os.File, err error) {
	cmd = exec.Command(v.path, v.args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, v.env...)
	if v.uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: v.uid, Gid: v.uid}}
	}
	in, err := memfile(v.stdin)
	if err != nil {
		return nil, nil, err
	}
	if output, err = memfile(nil); err != nil {
		return nil, nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, output, output
	return cmd, output, nil
}

func memfile(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("bench", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "bench")
	if _, err := f.Write(content); err != nil {
		return nil, err
	}
	_, err = f.Seek(0, 0)
	return f, err
}

// run runs the program to its end and returns what that cost.
func (v invocation) run() (s sample, err error) {
	s, _, err = v.runFor(false)
	return s, err
}

// runFor also returns the program's output, if wanted is set.
func (v invocation) runFor(wanted bool) (s sample, text string, err error) {
	cmd, output, err := v.command()
	if err != nil {
		return s, "", err
	}
	defer output.Close()
	defer cmd.Stdin.(*os.File).Close()
	began := time.Now()
	err = cmd.Run()
	s.wall = time.Since(began)
	if err != nil {
		return s, "", fmt.Errorf("run %s %s: %w: %s", v.path, strings.Join(v.args, " "), err, strings.TrimSpace(read(output)))
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	s.cpu = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	if wanted {
		text = read(output)
	}
	return s, text, nil
}

func read(f *os.File) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	return string(b)
}

// peakRSS runs the program with time(1) and returns its peak memory in KiB. The kernel includes
// what a process had before it called execve(2), so its parent must be small.
func (v invocation) peakRSS() (kib int, err error) {
	out, err := os.CreateTemp(state, "rss")
	if err != nil {
		return 0, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	timed := v
	timed.path, timed.args = "time", append([]string{"-f", "%M", "-o", out.Name(), v.path}, v.args...)
	if _, err := timed.run(); err != nil {
		return 0, err
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}
