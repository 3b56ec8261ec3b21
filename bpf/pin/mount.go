package pin

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// bpffs is the usual mount point of the BPF file system (Documentation/bpf, systemd).
const bpffs = "/sys/fs/bpf"

func isBPFFS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && int64(st.Type) == unix.BPF_FS_MAGIC
}

// Check returns nil if the root is on a bpffs, or if the first use can mount one there.
func (r Root) Check() error {
	parent := filepath.Dir(string(r))
	if isBPFFS(parent) {
		return nil
	}
	return mountable(parent)
}

// mountable returns why a bpffs cannot be mounted at parent, which is on none.
func mountable(parent string) error {
	var st unix.Statfs_t
	if parent != bpffs {
		return fmt.Errorf("%q is not on a bpffs: choose a directory in %q", parent, bpffs)
	}
	if err := unix.Statfs(bpffs, &st); err != nil {
		return fmt.Errorf("find %q: %w: the kernel has no BPF (CONFIG_BPF_SYSCALL), or sysfs is not mounted", bpffs, err)
	}
	if !inInitMountNS() {
		return fmt.Errorf("no bpffs at %q in this mount namespace, in which one would end with this command, "+
			"and the watch with it: use \"nsenter --net=…\" instead of \"ip netns exec\", or mount a bpffs there", bpffs)
	}
	if int64(st.Type) != unix.SYSFS_MAGIC {
		return fmt.Errorf("another file system is mounted at %q: mount bpffs there", bpffs)
	}
	return nil
}

// mountBPFFS mounts a bpffs at its usual mount point, if that is the parent of the root and nothing
// else is mounted there.
func mountBPFFS(parent string) error {
	if err := mountable(parent); err != nil {
		return err
	}
	// Two processes must not both mount a bpffs, the second of which would cover the first one's
	// pins. Both have opened the directory below the mount, which they lock.
	f, err := os.Open(bpffs)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := flock(f); err != nil {
		return fmt.Errorf("lock %q: %w", bpffs, err)
	}
	if isBPFFS(bpffs) {
		return nil
	}
	if err := unix.Mount("bpf", bpffs, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs at %q: %w: mount it there, with CAP_SYS_ADMIN", bpffs, err)
	}
	return nil
}

// inInitMountNS reports whether this process has the mount namespace of process 1. A bpffs
// that is mounted in another one ends with the last process there: "ip netns exec" makes one
// for each command.
func inInitMountNS() bool {
	own, err := os.Stat("/proc/self/ns/mnt")
	if err != nil {
		return true // no /proc: mounting says what is wrong
	}
	first, err := os.Stat("/proc/1/ns/mnt")
	return err != nil || os.SameFile(own, first)
}
