package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const qemu = "qemu-system-x86_64"

// boot runs a job in a new machine and returns its exit status. The error says
// what went wrong with the machine, not with the job.
func boot(ctx context.Context, o options, k Kernel, job Job, scratch string) (int, error) {
	initramfs, err := buildInitramfs(k, job)
	if err != nil {
		return exitMachine, fmt.Errorf("build initramfs: %w", err)
	}
	m := machine{
		kernel:    k,
		initramfs: filepath.Join(scratch, "initramfs"),
		console:   filepath.Join(scratch, "console"),
		status:    filepath.Join(scratch, "status"),
		memory:    o.memory,
		out:       o.out,
		talk:      "quiet",
	}
	if o.verbose {
		m.talk = "loglevel=7"
	}
	if err := os.WriteFile(m.initramfs, initramfs, 0o600); err != nil {
		return exitMachine, err
	}
	timed, cancel := context.WithTimeoutCause(ctx, o.timeout, errTime)
	defer cancel()
	err = m.run(timed, os.Stdout)
	if o.verbose {
		console, _ := os.ReadFile(m.console)
		os.Stderr.Write(console)
	}
	switch {
	case errors.Is(context.Cause(timed), errTime):
		return exitTimeout, fmt.Errorf("no end after %v; the kernel's last words: %s", o.timeout, m.lastWords())
	case ctx.Err() != nil:
		return exitMachine, errors.New("interrupted")
	case err != nil:
		return exitMachine, err
	}
	return m.exitStatus()
}

var errTime = errors.New("time ran out")

// A machine is one run of QEMU.
type machine struct {
	kernel    Kernel
	initramfs string
	console   string // what the kernel says
	status    string // what the job's exit status was
	memory    int
	out       string
	talk      string // how much the kernel says
}

func (m machine) run(ctx context.Context, out io.Writer) error {
	var complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, qemu, m.args()...)
	// A writer of ours, since QEMU makes the descriptor that it is given
	// non-blocking, for everyone who shares it.
	cmd.Stdout = struct{ io.Writer }{out}
	cmd.Stderr = &complaints
	// An end of input would count as a hang-up, and block the guest's output.
	if _, err := cmd.StdinPipe(); err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true, // ^C is ours to handle
		Pdeathsig: syscall.SIGKILL,
	}
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is not installed (package qemu-system-x86)", qemu)
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("run %s: %w: %s", qemu, err, oneLine(complaints.Bytes()))
	}
	return nil
}

// processor has all that QEMU emulates but what makes emulation slower by a quarter and
// is nothing that a test is about: a fifth level of page tables, a check of every access
// from kernel to user, and registers of 256 bits, which every switch between threads saves.
const processor = "max,-la57,-smap,-smep,-umip,-pku,-xsave"

// args: both processors are emulated in turns, on one of ours. Side by side, one now
// and then runs into code that the other is patching (a static key, as the first tc
// program is attached) and the guest dies of the breakpoint in it; and two
// machines side by side make better use of the processors here.
func (m machine) args() []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35", "-accel", "tcg,thread=single", "-cpu", processor, "-smp", "2",
		"-m", strconv.Itoa(m.memory),
		"-kernel", m.kernel.Image, "-initrd", m.initramfs,
		// A panic ends in a reboot, and that (-no-reboot) ends QEMU. On a busy
		// machine the timer's first ticks come late, which would be taken for none, and
		// the clocks seem to drift apart: each look at the one that the kernel would take
		// instead is a call to a device.
		"-append", "console=ttyS0 " + m.talk + " no_timer_check tsc=reliable panic=-1 mitigations=off cgroup_no_v1=all",
		"-chardev", "file,id=console,path=" + escape(m.console), "-serial", "chardev:console",
		"-device", "virtio-serial",
		"-chardev", "stdio,id=output,signal=off", "-device", "virtserialport,chardev=output,name=" + portOutput,
		"-chardev", "file,id=status,path=" + escape(m.status), "-device", "virtserialport,chardev=status,name=" + portStatus,
		"-virtfs", "local,path=/,readonly=on,multidevs=remap,security_model=none,mount_tag=" + tagRoot,
	}
	if m.out != "" {
		args = append(args, "-virtfs",
			"local,path="+escape(m.out)+",multidevs=remap,security_model=none,mount_tag="+tagOut)
	}
	return args
}

// escape doubles commas: QEMU's way to keep one inside a value.
func escape(path string) string { return strings.ReplaceAll(path, ",", ",,") }

// exitStatus reads what the job left. Without it the machine ended early.
func (m machine) exitStatus() (int, error) {
	data, err := os.ReadFile(m.status)
	if err != nil {
		return exitMachine, err
	}
	code, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		m.showReport(os.Stderr)
		return exitMachine, fmt.Errorf("the machine went down before its job ended; the kernel's last words: %s", m.lastWords())
	}
	return code, nil
}

// reportLines is how much of a console is shown: a kernel's report of its own
// crash, registers and stack, is shorter.
const reportLines = 120

// showReport writes the end of the console, where a kernel that crashed says
// where and why.
func (m machine) showReport(w io.Writer) {
	data, err := os.ReadFile(m.console)
	if err != nil {
		return // lastWords says so
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	for _, line := range lines[max(0, len(lines)-reportLines):] {
		fmt.Fprintln(w, "console:", strings.TrimSpace(line))
	}
}

// lastWords picks from the console what tells most: a panic or a complaint of
// the guest's, else the last line.
func (m machine) lastWords() string {
	data, err := os.ReadFile(m.console)
	if err != nil {
		return err.Error()
	}
	last := "nothing"
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if strings.Contains(line, "Kernel panic") || strings.HasPrefix(line, "vm:") {
			return strconv.Quote(line)
		}
		if line != "" {
			last = strconv.Quote(line)
		}
	}
	return last
}
