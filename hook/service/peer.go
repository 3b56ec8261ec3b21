package service

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook"
)

// maxGroups is NGROUPS_MAX (linux/limits.h).
const maxGroups = 65536

// peerOf returns the credentials of the caller at fd, as the kernel recorded them at
// connect(2). A later change, such as running a set-user-ID program, has no effect.
// Another process may have the pid by now: it is for the log, and for sameHost. peerOf
// returns an error for overflowUID.
func peerOf(fd int) (*unix.Ucred, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	// A uid that is not mapped here must not pass for one that is (from_kuid_munged).
	if err == nil && cred.Uid == overflowUID {
		err = errors.New("the uid is not mapped in the service's user namespace")
	}
	if err != nil {
		return nil, fmt.Errorf("credentials of the caller: %w", err)
	}
	return cred, nil
}

// callerOf returns the caller at fd with its uid and all its gids.
func callerOf(fd int, cred *unix.Ucred) (hook.Caller, error) {
	groups, err := groupsOf(fd)
	if err != nil {
		return hook.Caller{}, fmt.Errorf("groups of the caller: %w", err)
	}
	return hook.Caller{UID: cred.Uid, GIDs: append(groups, cred.Gid)}, nil
}

// overflowUID is what the kernel reports for a uid that is not mapped
// (kernel/sys.c, DEFAULT_OVERFLOWUID).
const overflowUID = 65534

// groupsOf returns the supplementary gids that the caller at fd had when it connected
// (SO_PEERGROUPS, Linux 4.13).
func groupsOf(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno != unix.ERANGE || size/4 > maxGroups || int(size/4) <= len(groups):
			return nil, errno
		}
		groups = make([]uint32, size/4)
	}
}

// sameHost returns an error if the caller at fd is in another network namespace or in another pid
// namespace than this process: its container's host and pid are not the ones of this process. It
// is for callers that are root. The socket of an accepted connection belongs to the network
// namespace of the one that connected (unix_stream_connect in net/unix/af_unix.c), whatever
// its process has done since.
func sameHost(fd int, cred *unix.Ucred) error {
	netns, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
	if err != nil {
		return fmt.Errorf("network namespace of the caller: %w", err)
	}
	defer unix.Close(netns)
	// /proc/self is the first thread, which may be in the namespace of a container at the moment.
	var theirs, ours unix.Stat_t
	if err := errors.Join(unix.Fstat(netns, &theirs), unix.Stat("/proc/thread-self/ns/net", &ours)); err != nil {
		return fmt.Errorf("network namespace of the caller: %w", err)
	}
	if theirs.Ino != ours.Ino {
		return fmt.Errorf("it is in network namespace %d, not in %d", theirs.Ino, ours.Ino)
	}
	path := fmt.Sprintf("/proc/%d/ns/pid", cred.Pid)
	if err := errors.Join(unix.Stat(path, &theirs), unix.Stat("/proc/self/ns/pid", &ours)); err != nil {
		return fmt.Errorf("pid namespace of the caller: %w", err)
	}
	if theirs.Ino != ours.Ino {
		return fmt.Errorf("it is in pid namespace %d, not in %d", theirs.Ino, ours.Ino)
	}
	return peerRuns(fd)
}

// peerRuns returns an error if the process that has connected has ended: then its pid may be that of
// another process. A process in another pid namespace can pass its socket on, end, and wait for a
// process of this host to get its pid. Before Linux 6.5 peerRuns cannot tell, and returns nil.
func peerRuns(fd int) error {
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process of the caller: %w", err)
	}
	defer unix.Close(pidfd)
	ended := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}} // pidfd_open(2)
	n, err := unix.Poll(ended, 0)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Poll(ended, 0)
	}
	if err == nil && n > 0 {
		err = errors.New("it has ended")
	}
	if err != nil {
		return fmt.Errorf("process of the caller: %w", err)
	}
	return nil
}

// soPassRights is SO_PASSRIGHTS (asm-generic/socket.h, Linux 6.16).
const soPassRights = 83

// refuseRights makes the kernel reject file descriptors that are sent to the socket; the
// sender gets EPERM. Closing a received descriptor can block without limit, if a FUSE
// server delays it. Before Linux 6.16, receive passes no buffer for control data, and
// the kernel drops the descriptors.
func refuseRights(fd int) {
	// Before 6.16 this fails with ENOPROTOOPT, which needs no action.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, soPassRights, 0)
}
