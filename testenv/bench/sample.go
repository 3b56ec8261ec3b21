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

// A sample is one process, from before it was started until it was reaped.
type sample struct {
	wall time.Duration
	cpu  time.Duration // user and system
}

// invocation is a program to run, and what it gets on its stdin.
type invocation struct {
	path  string
	args  []string // without the program's name
	env   []string // added to nothing: all there is, with PATH
	stdin []byte
	uid   uint32 // who runs it
}

// command prepares the process. Its files are files, so that no copying
// goroutine is part of what is measured; output goes to a file for the error.
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

// run runs the program to its end and says what that took.
func (v invocation) run() (s sample, err error) {
	s, _, err = v.runFor(false)
	return s, err
}

// runFor also gives what the program said, if that is wanted.
func (v invocation) runFor(said bool) (s sample, text string, err error) {
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
	if said {
		text = read(output)
	}
	return s, text, nil
}

func read(f *os.File) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	return string(b)
}

// peakRSS runs the program by time(1) and gives the most memory that it had at
// once, in KiB. The kernel counts what a process had before it called execve(2)
// as well, so the one that starts it must be small.
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
