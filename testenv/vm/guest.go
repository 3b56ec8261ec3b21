package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names of the virtio ports: one for the job's output, one for a line with its exit status.
const (
	portOutput = "output"
	portStatus = "status"
)

// Tags of the 9p exports.
const (
	tagRoot = "root"
	tagOut  = "out"
)

// guestInit is process 1: it sets up the machine, runs the job, and powers the machine off. It
// returns only if the power-off fails; the kernel then panics, which ends the run, and its output
// is on the console.
func guestInit() int {
	err := guest()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm: guest:", err)
	}
	unix.Sync()
	err = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Fprintln(os.Stderr, "vm: power off:", err)
	return 1
}

func guest() error {
	file, err := os.Open("/" + jobFile)
	if err != nil {
		return err
	}
	var job Job
	if err := json.NewDecoder(file).Decode(&job); err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	if err := loadModules(); err != nil {
		return err
	}
	if err := switchRoot(job); err != nil {
		return fmt.Errorf("make root: %w", err)
	}
	if err := mountAll(job); err != nil {
		return err
	}
	if err := initSystem(job); err != nil {
		return err
	}
	status, err := openPort(portStatus)
	if err != nil {
		return err
	}
	code, err := startJob(file)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(status, code)
	return err
}

// loadModules loads the modules that mounting the next root needs.
func loadModules() error {
	data, err := os.ReadFile("/" + moduleList)
	if err != nil {
		return err
	}
	var names []string
	if err := json.Unmarshal(data, &names); err != nil {
		return err
	}
	for _, n := range names {
		data, err := os.ReadFile(filepath.Join("/", moduleDir, n))
		if err != nil {
			return err
		}
		if err := unix.InitModule(data, ""); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load module %q: %w", n, err)
		}
	}
	return nil
}

// Options of the 9p mounts. The cache of the root saves time when files are read, which matters
// more than seeing changes from outside.
const mount9p = "trans=virtio,version=9p2000.L,msize=524288"

// hostDir is where the host machine's root is if the virtual machine has another userland.
const hostDir = "/host"

// switchRoot puts an overlay in memory over the job's userland and makes it the root.
func switchRoot(job Job) error {
	steps := []func() error{
		func() error { return mount("memory", "/memory", "tmpfs", 0, "mode=755") },
		func() error { return os.MkdirAll("/memory/upper", 0o755) },
		func() error { return os.MkdirAll("/memory/work", 0o755) },
		func() error { return mount(tagRoot, "/lower", "9p", unix.MS_RDONLY, mount9p+",cache=loose") },
		func() error { return mount("/lower"+job.Root, "/base", "", unix.MS_BIND, "") },
		func() error {
			return mount("overlay", "/root", "overlay", 0, "lowerdir=/base,upperdir=/memory/upper,workdir=/memory/work")
		},
		func() error { return job.mountHost() },
		func() error { return os.Chdir("/root") },
		func() error { return mount(".", "/", "", unix.MS_MOVE, "") },
		func() error { return unix.Chroot(".") },
		func() error { return os.Chdir("/") },
		func() error { return os.MkdirAll("/lib/modules/"+job.Release, 0o755) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// mountHost makes the host machine's root visible next to another userland.
func (j Job) mountHost() error {
	if j.Root == "" {
		return nil
	}
	if err := os.MkdirAll("/root"+hostDir, 0o755); err != nil {
		return err
	}
	return mount("/lower", "/root"+hostDir, "", unix.MS_BIND, "")
}

func mountAll(job Job) error {
	// The directories that the job needs may be below /tmp or /run, which are covered next.
	kept := map[string]*os.File{}
	for _, dir := range job.Keep {
		f, err := os.Open(job.hostPath(dir))
		if err != nil {
			return err
		}
		kept[dir] = f
	}
	mounts := []struct {
		source, target, fstype string
		flags                  uintptr
		data                   string
	}{
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=755"},
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"},
		{"mqueue", "/dev/mqueue", "mqueue", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "nsdelegate"},
		{"bpf", "/sys/fs/bpf", "bpf", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "mode=1777"},
		{"debugfs", "/sys/kernel/debug", "debugfs", 0, ""},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
		{"tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		// Container runtimes make overlays here, which cannot be on top of this overlay.
		{"tmpfs", "/var/lib/containers", "tmpfs", unix.MS_NODEV, "mode=755"},
	}
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil && !errors.Is(err, unix.EPERM) {
			return err
		}
		if err := mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return err
		}
	}
	for dir, f := range kept {
		if err := job.keep(dir, f); err != nil {
			return err
		}
		f.Close()
	}
	if err := mount(job.hostPath(job.Modules), "/lib/modules/"+job.Release, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if job.Out != "" {
		if err := os.MkdirAll(job.Out, 0o755); err != nil {
			return err
		}
		if err := mount(tagOut, job.Out, "9p", 0, mount9p+",cache=none"); err != nil {
			return err
		}
	}
	return mount("none", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// hostPath returns the path of a directory of the host machine, before other mounts cover it.
func (j Job) hostPath(dir string) string {
	if j.Root == "" {
		return dir
	}
	return hostDir + dir
}

// keep binds a directory of the host machine to its path if the userland does not have it or a mount
// has covered it.
func (j Job) keep(dir string, f *os.File) error {
	if j.Root == "" && !strings.HasPrefix(dir, "/tmp/") && !strings.HasPrefix(dir, "/run/") {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), dir, "", unix.MS_BIND, "")
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %q: %w", source, target, err)
	}
	return nil
}

// initSystem does what the job expects an init system to have done.
func initSystem(job Job) error {
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if err := unix.Sethostname([]byte("lanyard-vm")); err != nil {
		return err
	}
	// systemd's defaults; podman asks for that many files.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 1 << 19}); err != nil {
		return err
	}
	for _, c := range []string{"cpu", "memory", "pids"} {
		if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+"+c), 0); err != nil {
			return fmt.Errorf("enable cgroup controller %q: %w", c, err)
		}
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	// With -a, modprobe continues after a module that this kernel does not have.
	modprobe := exec.Command("/sbin/modprobe", append([]string{"-aq"}, labModules...)...)
	if err := modprobe.Run(); err != nil && job.Verbose {
		fmt.Fprintln(os.Stderr, "vm: modprobe:", err)
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// startJob runs guestJob as a child, and reaps every process that is reparented to init, until the
// job ends. It returns the job's exit status.
func startJob(job *os.File) (int, error) {
	if _, err := job.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	out, err := openPort(portOutput)
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	p, err := os.StartProcess("/proc/self/exe", []string{"job"}, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{null, out, out, job},
	})
	if err != nil {
		return 0, err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for job: %w", err)
		}
		if pid == p.Pid {
			if status.Exited() {
				return status.ExitStatus(), nil
			}
			return 0, fmt.Errorf("job was killed by %v", status.Signal())
		}
	}
}

// openPort opens a virtio port by its name. It waits, since ports appear a moment after their
// driver.
func openPort(name string) (*os.File, error) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, f := range names {
			data, err := os.ReadFile(f)
			if err == nil && strings.TrimSpace(string(data)) == name {
				return os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(f))), os.O_WRONLY, 0)
			}
		}
	}
	return nil, fmt.Errorf("open port %q: it did not appear", name)
}
