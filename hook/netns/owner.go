package netns

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// maxNested limits the walk up the user namespaces: the kernel nests at most 32
// (kernel/user_namespace.c, create_user_ns).
const maxNested = 33

// Owners returns the owner uids of the user namespace that owns the network namespace and of
// all its ancestors, innermost first, up to the user namespace of this process. The uids
// are those that this process's user namespace maps them to. A rootless container has
// [1000 0], a container of the host's root has [0]. All lookups use the open descriptor,
// so no process can substitute another namespace.
func (n *Namespace) Owners() ([]uint32, error) {
	owners, err := ownersOf(n.fd)
	if err != nil {
		return nil, fmt.Errorf("find the owners of a network namespace: %w", err)
	}
	return owners, nil
}

// OwnerOf returns the user that a network namespace belongs to, out of what Owners returns: the owner
// of the outermost user namespace below the host's own. Those further in may belong to other uids that this
// user has chosen, such as subordinate uids, and these must not act for the user. rootless is false,
// and the uid 0, for a namespace of the host's root, and for the host's own.
func OwnerOf(owners []uint32) (uid uint32, rootless bool) {
	if len(owners) < 2 {
		return 0, false
	}
	return owners[len(owners)-2], true
}

func ownersOf(netns int) (owners []uint32, err error) {
	fd, err := unix.IoctlRetInt(netns, unix.NS_GET_USERNS)
	if err != nil {
		return nil, err
	}
	for range maxNested {
		uid, err := unix.IoctlGetUint32(fd, unix.NS_GET_OWNER_UID)
		if err != nil {
			unix.Close(fd)
			return nil, err
		}
		owners = append(owners, uid)
		above, err := unix.IoctlRetInt(fd, unix.NS_GET_PARENT)
		unix.Close(fd)
		// The parent is above this process's user namespace (ioctl_ns(2)).
		if errors.Is(err, unix.EPERM) {
			return owners, nil
		}
		if err != nil {
			return nil, err
		}
		fd = above
	}
	unix.Close(fd)
	return nil, fmt.Errorf("it is below more than %d user namespaces", maxNested)
}

// Privileged reports whether the calling thread may change its network namespace. The hook
// of a rootless engine has all capabilities in the engine's user namespace, but none in
// the user namespace that owns the host's network namespace.
func Privileged() (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("read the capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return false, nil
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("open the host's network namespace: %w", err)
	}
	defer unix.Close(fd)
	above, err := unix.IoctlRetInt(fd, unix.NS_GET_USERNS)
	// The owning user namespace is neither ours nor below ours.
	if errors.Is(err, unix.EPERM) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find the owner of the host's network namespace: %w", err)
	}
	unix.Close(above)
	return true, nil
}

// initialUserns is the inode of the initial user namespace, the ancestor of all others
// (PROC_USER_INIT_INO, include/linux/proc_ns.h).
const initialUserns = 0xEFFFFFFD

// HostsRoot reports whether the process is root in the initial user namespace, in any
// network namespace. Root of another user namespace may be privileged in a container that
// this user namespace owns, but is an ordinary user on the host.
func HostsRoot() bool {
	var st unix.Stat_t
	return unix.Geteuid() == 0 && unix.Stat("/proc/self/ns/user", &st) == nil && st.Ino == initialUserns
}
