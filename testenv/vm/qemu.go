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

// boot runs a job in a new virtual machine and returns the job's exit status. The error is about
// the machine, not about the job.
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
		logLevel:  "quiet",
	}
	if o.verbose {
		m.logLevel = "loglevel=7"
	}
	if err := os.WriteFile(m.initramfs, initramfs, 0o600); err != nil {
		return exitMachine, err
	}
	timed, cancel := context.WithTimeoutCause(ctx, o.timeout, errTimeout)
	defer cancel()
	err = m.run(timed, os.Stdout)
	if o.verbose {
		console, _ := os.ReadFile(m.console)
		os.Stderr.Write(console)
	}
	switch {
	case errors.Is(context.Cause(timed), errTimeout):
		return exitTimeout, fmt.Errorf("the job did not end within %v; the end of the console: %s", o.timeout,
			m.lastMessage())
	case ctx.Err() != nil:
		return exitMachine, errors.New("interrupted")
	case err != nil:
		return exitMachine, err
	}
	return m.exitStatus()
}

var errTimeout = errors.New("time ran out")

// A machine is one run of QEMU.
type machine struct {
	kernel    Kernel
	initramfs string
	console   string // file with the kernel's output
	status    string // file with the job's exit status
	memory    int
	out       string
	logLevel  string // kernel parameter for the amount of output
}

func (m machine) run(ctx context.Context, out io.Writer) error {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, qemu, m.args()...)
	// A plain writer instead of the file: QEMU makes its descriptor non-blocking, for every process
	// that shares it.
	cmd.Stdout = struct{ io.Writer }{out}
	cmd.Stderr = &stderr
	// At the end of its input, QEMU would take the guest's port for disconnected and block its
	// output.
	if _, err := cmd.StdinPipe(); err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true, // so that ^C reaches this program only
		Pdeathsig: syscall.SIGKILL,
	}
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is not installed (package qemu-system-x86)", qemu)
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("run %s: %w: %s", qemu, err, oneLine(stderr.Bytes()))
	}
	return nil
}

// processor is everything that QEMU emulates except what slows the emulation down by a quarter and
// does not matter to the tests: a fifth level of page tables, a check of every access from the
// kernel to user memory, and registers of 256 bits, which every thread switch saves.
const processor = "max,-la57,-smap,-smep,-umip,-pku,-xsave"

// args returns QEMU's arguments. The two processors are emulated in turns, by one thread. With one
// thread each, one of them now and then executes code that the other is patching (a static key,
// when the first tc program is attached), and the guest dies of the breakpoint in it. Two virtual
// machines side by side also use the host's processors better.
func (m machine) args() []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35", "-accel", "tcg,thread=single", "-cpu", processor, "-smp", "2",
		"-m", strconv.Itoa(m.memory),
		"-kernel", m.kernel.Image, "-initrd", m.initramfs,
		// A panic reboots, and a reboot (-no-reboot) ends QEMU. On a busy machine the first timer
		// ticks come late, and the kernel would take the timer for broken. The clocks also seem to
		// drift apart, and each read of the clock that the kernel would choose instead is a call to
		// a device.
		"-append", "console=ttyS0 " + m.logLevel + " no_timer_check tsc=reliable panic=-1 mitigations=off cgroup_no_v1=all",
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

// escape doubles commas, which is how QEMU quotes a comma in a value.
func escape(path string) string { return strings.ReplaceAll(path, ",", ",,") }

// exitStatus returns the job's exit status from the status file. If the file is empty, the machine
// stopped early, which is an error.
func (m machine) exitStatus() (int, error) {
	data, err := os.ReadFile(m.status)
	if err != nil {
		return exitMachine, err
	}
	code, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		m.showReport(os.Stderr)
		return exitMachine, fmt.Errorf("the machine stopped before its job ended; the end of the console: %s",
			m.lastMessage())
	}
	return code, nil
}

// reportLines is the number of console lines that are shown. A kernel's crash report, with
// registers and stack, is shorter.
const reportLines = 120

// showReport writes the end of the console, where a kernel that crashed reports the place and the
// reason.
func (m machine) showReport(w io.Writer) {
	data, err := os.ReadFile(m.console)
	if err != nil {
		return // lastMessage reports it
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	for _, line := range lines[max(0, len(lines)-reportLines):] {
		fmt.Fprintln(w, "console:", strings.TrimSpace(line))
	}
}

// lastMessage returns the most useful line of the console: a panic, or an error of the guest;
// otherwise the last line.
func (m machine) lastMessage() string {
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
