package link

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// maxNested bounds the walk up the user namespaces: the kernel nests 32
// (kernel/user_namespace.c, create_user_ns).
const maxNested = 33

// Owners gives the uids, as this process's user namespace has them, of those
// who made the user namespaces that the network namespace is under: the nearest
// first, and last the one of the user namespace that this process is in. A
// rootless container's are [1000 0], those of a container of the host's root are
// [0]. Everything comes from the descriptor that is held open, so that nobody
// can put another namespace in its place.
func (n *Netns) Owners() ([]uint32, error) {
	owners, err := ownersOf(n.fd)
	if err != nil {
		return nil, fmt.Errorf("find the owners of a network namespace: %w", err)
	}
	return owners, nil
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
		// There is nothing above that we may see (ioctl_ns(2)).
		if errors.Is(err, unix.EPERM) {
			return owners, nil
		}
		if err != nil {
			return nil, err
		}
		fd = above
	}
	unix.Close(fd)
	return nil, fmt.Errorf("there are more than %d user namespaces above it", maxNested)
}

// Privileged reports whether the calling thread may change the network namespace
// that it is in. A rootless engine's hook has every capability in its engine's user
// namespace, and none in the one that the host's network belongs to.
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
	// Its user namespace is neither ours nor below ours.
	if errors.Is(err, unix.EPERM) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find whose the host's network namespace is: %w", err)
	}
	unix.Close(above)
	return true, nil
}

// initialUserns is the inode of the user namespace that all others are below
// (PROC_USER_INIT_INO, include/linux/proc_ns.h).
const initialUserns = 0xEFFFFFFD

// HostsRoot reports whether the process is root of the host itself, wherever in
// the network it is: root of a user namespace is privileged in a container that
// belongs to it, and still an ordinary user.
func HostsRoot() bool {
	var st unix.Stat_t
	return unix.Geteuid() == 0 && unix.Stat("/proc/self/ns/user", &st) == nil && st.Ino == initialUserns
}
